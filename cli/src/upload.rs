//! Brings a payload's bytes to the server, and goes on where an earlier attempt stopped.
//!
//! Every attempt begins by announcing the payload again: the server answers with the offset it has, or that it has all.
//! So a broken connection, a restarted server and a repeated command are one and the same case. Nothing here publishes.

mod pieces;

use std::{fs::File, sync::Arc, time::Duration};

use ota_proto::admin::v1::{CreateUploadRequest, ErrorReason, Upload, create_upload_response::Presence};
use tonic::Status;

use crate::{
    backoff::Backoff,
    client::Client,
    error::{Failure, is_transient, reason_of},
    messages::Messages,
    payload::Payload,
    progress::Progress,
};

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The server had all bytes already.
    Nothing,
    /// The server had the bytes up to this offset.
    From(u64),
}

/// Brings all bytes to the server.
pub async fn send(client: &Client, messages: Messages, payload: &Payload) -> Result<Sent, Failure> {
    let file = payload.file.try_clone().map_err(|error| Failure::because("cannot read the payload again", &error))?;
    let mut transfer = Transfer { client, payload, file: Arc::new(file), progress: None, messages, first_offset: None };
    let mut backoff = Backoff::default();
    loop {
        match transfer.attempt(&mut backoff).await {
            Ok(()) => return Ok(transfer.first_offset.map_or(Sent::Nothing, Sent::From)),
            Err(Interruption::Status(status)) if is_worth_another_try(&status) => {
                let wait = backoff.wait(&status, &mut rand::rng());
                transfer.wait(wait, status).await?;
            }
            Err(Interruption::Status(status)) => return Err(transfer.explain(status)),
            Err(Interruption::Read(failure)) => return Err(failure),
        }
    }
}

/// Tells whether announcing the payload again may help. An upload that is gone begins again from the start.
fn is_worth_another_try(status: &Status) -> bool {
    is_transient(status) || reason_of(status) == Some(ErrorReason::UploadNotFound)
}

/// Why an attempt ended before the last byte.
enum Interruption {
    /// The server or the connection.
    Status(Status),
    /// The payload's own file.
    Read(Failure),
}

impl From<Status> for Interruption {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The transfer of one payload, over all its attempts.
struct Transfer<'a> {
    client: &'a Client,
    payload: &'a Payload,
    file: Arc<File>,
    progress: Option<Progress>,
    messages: Messages,
    first_offset: Option<u64>,
}

impl Transfer<'_> {
    /// Announces the payload and sends what the server lacks.
    async fn attempt(&mut self, backoff: &mut Backoff) -> Result<(), Interruption> {
        let Some(upload) = self.announce().await? else {
            self.end();
            return Ok(());
        };
        let offset = u64::try_from(upload.offset).unwrap_or(0).min(self.payload.size);
        backoff.reached(offset);
        self.first_offset.get_or_insert(offset);
        let progress = self.progress_at(offset);
        let (requests, reader) = pieces::stream(self.file.clone(), upload.name, offset, self.payload.size, progress);
        let answer = self.client.packages().upload_payload(requests).await;
        // When the reader ended first, its failure explains what the server could only call incomplete. One that still
        // runs ends by itself once the connection lets go of the stream.
        if reader.is_finished() {
            reader.finish().await.map_err(Interruption::Read)?;
        }
        answer?;
        self.end();
        Ok(())
    }

    /// Returns the upload to go on with, or `None` when the server has all bytes.
    async fn announce(&self) -> Result<Option<Upload>, Status> {
        let upload = Upload {
            sha256: self.payload.sha256.to_string(),
            size_bytes: i64::try_from(self.payload.size).unwrap_or(i64::MAX),
            ..Upload::default()
        };
        let request = CreateUploadRequest { upload: Some(upload) };
        let answer = self.client.packages().create_upload(request).await?.into_inner();
        match answer.presence {
            Some(Presence::Upload(upload)) => Ok(Some(upload)),
            Some(Presence::Payload(_)) => Ok(None),
            None => Err(Status::internal("the server did not say whether it has the payload")),
        }
    }

    fn progress_at(&mut self, offset: u64) -> Progress {
        let messages = self.messages;
        let progress =
            self.progress.get_or_insert_with(|| Progress::bytes(messages, "uploading", self.payload.size)).clone();
        progress.set(offset);
        if offset > 0 {
            progress.note(
                messages,
                &format!("the server has {} already, going on from there", indicatif::HumanBytes(offset)),
            );
        }
        progress
    }

    async fn wait(&self, wait: Option<Duration>, status: Status) -> Result<(), Failure> {
        let failure = Failure::from(status);
        let Some(wait) = wait else {
            self.end();
            return Err(failure.hint("what was sent is kept: the same command goes on from there"));
        };
        let text =
            format!("the upload was interrupted ({}); trying again in {} s", failure.what(), wait.as_secs_f64().ceil());
        match &self.progress {
            Some(progress) => progress.note(self.messages, &text),
            None => self.messages.say(&text),
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Makes the failure for an answer that no other attempt would change.
    fn explain(&self, status: Status) -> Failure {
        self.end();
        let hint = match reason_of(&status) {
            Some(ErrorReason::ChecksumMismatch) => {
                Some("the file changed while it was sent: upload a copy that nothing writes to")
            }
            Some(ErrorReason::BlobStoreFull) => {
                Some("what was sent is kept: make space on the server, then repeat the command")
            }
            Some(_) | None => None,
        };
        let failure = Failure::from(status);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn end(&self) {
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }
}
