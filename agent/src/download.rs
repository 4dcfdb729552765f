//! Fetches a payload, whatever happens: resumes where it was, tries again with growing waits, notices silence, gives up
//! only at what cannot get better, and stops when it is told to. Never ends without a word.

mod bucket;
mod pace;
pub mod part;

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use ota_bundle::Bundle;
use ota_domain::release::Payload;
use rand::Rng;
use tokio::sync::watch;
use tokio::task::{block_in_place, yield_now};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::{Class, Client, Error as ClientError};
use crate::failure::{Failure, FailureCode, failure, from_error, is_disk_full};
use crate::install::{space_free, space_needed};
use crate::release::Job;
use crate::releases::Releases;
use bucket::Bucket;
use pace::Pace;
pub use pace::Slow;
use part::Part;

/// Bounds of the wait between two tries.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How many answers that make no sense are borne in a row, without a byte between them.
const MAX_FAULTS: u32 = 10;

/// How often a whole payload may turn out to be another than the signed one.
const MAX_CHECKSUM_FAULTS: u32 = 3;

/// How a download ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The payload is on disk and is what it should be.
    Complete,
    /// It was told to stop; what is here stays.
    Stopped,
    /// It cannot be had.
    Failed(Failure),
}

/// What a download needs to know.
#[derive(Debug)]
pub struct Download<'a> {
    /// The server.
    pub client: &'a Client,
    /// Where it goes.
    pub releases: &'a Releases,
    /// What it is for.
    pub job: &'a Job,
    /// Bytes to leave free.
    pub reserve_bytes: u64,
    /// Most bytes a second.
    pub bandwidth: Option<u64>,
    /// What is too slow to be waited for.
    pub slow: Slow,
    /// How long it may make no headway.
    pub stall: Duration,
    /// Stops it.
    pub stop: &'a CancellationToken,
    /// Bytes that are here.
    pub progress: &'a watch::Sender<u64>,
}

/// How one try ended before the payload was complete.
enum Interruption {
    Stopped,
    Network(ClientError),
    /// The bytes trickle.
    Slow,
    Disk(io::Error),
}

impl Download<'_> {
    /// Fetches the payload to its end. Must run on a runtime with several threads: the disk is written in place.
    pub async fn run(&self) -> End {
        match self.fetch().await {
            Ok(end) => end,
            Err(error) if is_disk_full(&error) => {
                let payload = self.job.release.payload.sha256;
                // The space is worth more than the part; the report matters more than an error here.
                block_in_place(|| self.releases.remove_download(payload)).ok();
                End::Failed(failure(FailureCode::NoSpace, "the disk became full during the download"))
            }
            Err(error) => End::Failed(from_error(FailureCode::Download, &error)),
        }
    }

    async fn fetch(&self) -> io::Result<End> {
        let payload = self.job.release.payload;
        let mut part = block_in_place(|| self.open(payload))?;
        if let Some(failure) = block_in_place(|| self.lack_of_space(&part))? {
            block_in_place(|| self.releases.remove_download(payload.sha256))?;
            return Ok(End::Failed(failure));
        }
        let mut patience = Patience::new(self.stall, Instant::now());
        let mut checksum_faults = 0;
        loop {
            self.progress.send_replace(part.len());
            if part.is_complete() {
                if block_in_place(|| part::is_payload(&self.releases.part(payload.sha256), payload))? {
                    return Ok(End::Complete);
                }
                checksum_faults += 1;
                if checksum_faults == MAX_CHECKSUM_FAULTS {
                    let message = format!("{checksum_faults} downloads in a row do not hash to {}", payload.sha256);
                    return Ok(End::Failed(failure(FailureCode::Checksum, message)));
                }
                tracing::warn!(payload = %payload.sha256, "the downloaded payload is damaged; fetching it again");
                drop(part);
                block_in_place(|| self.releases.remove_download(payload.sha256))?;
                part = block_in_place(|| self.open(payload))?;
            }
            let before = part.len();
            let unreachable = |reason: &str| ClientError::Unreachable { reason: reason.to_owned() };
            let (error, is_fast) = match self.try_once(&mut part).await {
                Ok(()) => (unreachable("the stream ended early"), true),
                Err(Interruption::Stopped) => return Ok(End::Stopped),
                Err(Interruption::Disk(error)) => return Err(error),
                Err(Interruption::Network(error)) => (error, true),
                Err(Interruption::Slow) => (unreachable("the bytes come too slowly"), false),
            };
            if part.is_complete() {
                continue;
            }
            // What trickles in is kept, but is not what patience waits for.
            let made_headway = is_fast && part.len() > before;
            match patience.after(made_headway, &error, Instant::now(), &mut rand::rng()) {
                Ok(wait) => {
                    tracing::info!(
                        bytes_done = part.len(),
                        wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                        "download interrupted: {error}"
                    );
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.stop.cancelled() => return Ok(End::Stopped),
                    }
                }
                Err(failure) => return Ok(End::Failed(failure)),
            }
        }
    }

    /// Copies the payload out of a bundle. Nothing of it is believed before the whole hashes to what was signed.
    pub async fn copy(&self, bundle: &mut Bundle<File>) -> End {
        let payload = self.job.release.payload;
        let failure = match self.copy_payload(bundle, payload).await {
            Ok(end) => return end,
            Err(error) if is_disk_full(&error) => {
                failure(FailureCode::NoSpace, "the disk became full while the payload was copied")
            }
            Err(error) => from_error(FailureCode::Download, &error),
        };
        // As above.
        block_in_place(|| self.releases.remove_download(payload.sha256)).ok();
        End::Failed(failure)
    }

    async fn copy_payload(&self, bundle: &mut Bundle<File>, payload: Payload) -> io::Result<End> {
        let wrong = |code, what: &str| Ok(End::Failed(failure(code, format!("the bundle {what} {}", payload.sha256))));
        let (size, mut bytes) = match bundle.payload(payload.sha256).map_err(io::Error::other)? {
            Some(found) => found,
            None => return wrong(FailureCode::Download, "does not hold the payload"),
        };
        if size != payload.size_bytes {
            return wrong(FailureCode::Checksum, "holds another number of bytes for the payload");
        }
        let mut part = block_in_place(|| self.open(payload))?;
        if let Some(failure) = block_in_place(|| self.lack_of_space(&part))? {
            block_in_place(|| self.releases.remove_download(payload.sha256))?;
            return Ok(End::Failed(failure));
        }
        block_in_place(|| io::copy(&mut (&mut bytes).take(part.len()), &mut io::sink()))?;
        let mut piece = vec![0; part::BLOCK_BYTES];
        while !part.is_complete() {
            if self.stop.is_cancelled() {
                return Ok(End::Stopped);
            }
            block_in_place(|| {
                let count = bytes.read(&mut piece)?;
                if count == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                part.append(&piece[..count])
            })?;
            self.progress.send_replace(part.len());
            // Whoever shows the progress gets a turn.
            yield_now().await;
        }
        if block_in_place(|| part::is_payload(&self.releases.part(payload.sha256), payload))? {
            return Ok(End::Complete);
        }
        block_in_place(|| self.releases.remove_download(payload.sha256))?;
        wrong(FailureCode::Checksum, "holds other bytes for the payload")
    }

    fn open(&self, payload: Payload) -> io::Result<Part> {
        self.releases.create()?;
        let (bytes, checksums) = (self.releases.part(payload.sha256), self.releases.part_checksums(payload.sha256));
        Part::open(&bytes, &checksums, payload.size_bytes)
    }

    fn lack_of_space(&self, part: &Part) -> io::Result<Option<Failure>> {
        let payload = self.job.release.payload;
        let needed = space_needed(payload, self.job.unpacked_size_bytes, part.len(), self.reserve_bytes);
        let free = space_free(&self.releases.folder())?;
        Ok((free < needed).then(|| {
            let message = format!("{} needs {needed} bytes of disk space, {free} are free", self.job.release);
            failure(FailureCode::NoSpace, message)
        }))
    }

    /// Opens one stream and takes what it brings.
    async fn try_once(&self, part: &mut Part) -> Result<(), Interruption> {
        let payload = self.job.release.payload;
        let opened = tokio::select! {
            opened = self.client.download(payload.sha256, part.len()) => opened,
            () = self.stop.cancelled() => return Err(Interruption::Stopped),
        };
        let mut chunks = opened.map_err(Interruption::Network)?;
        let mut bucket = Bucket::new(self.job.bandwidth_limit.into_iter().chain(self.bandwidth).min(), Instant::now());
        let mut pace = Pace::new(self.slow);
        loop {
            let asked_at = Instant::now();
            let next = tokio::select! {
                next = chunks.next(self.slow.patience()) => next,
                () = self.stop.cancelled() => return Err(Interruption::Stopped),
            };
            let Some(data) = next.map_err(Interruption::Network)? else { return Ok(()) };
            if part.len() + data.len() as u64 > payload.size_bytes {
                let what = "more bytes than the payload has".to_owned();
                return Err(Interruption::Network(ClientError::Nonsense { what }));
            }
            block_in_place(|| part.append(&data)).map_err(Interruption::Disk)?;
            self.progress.send_replace(part.len());
            if part.is_complete() {
                return Ok(());
            }
            if pace.is_too_slow_after(data.len() as u64, asked_at.elapsed()) {
                return Err(Interruption::Slow);
            }
            let wait = bucket.take(data.len() as u64, Instant::now());
            if !wait.is_zero() {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = self.stop.cancelled() => return Err(Interruption::Stopped),
                }
            }
        }
    }
}

/// Decides after each interruption whether to go on, and how long to wait.
struct Patience {
    backoff: Backoff,
    faults: u32,
    stall: Duration,
    headway_at: Instant,
}

impl Patience {
    fn new(stall: Duration, now: Instant) -> Self {
        Self { backoff: Backoff::new(WAIT.0, WAIT.1), faults: 0, stall, headway_at: now }
    }

    fn after(
        &mut self,
        made_headway: bool,
        error: &ClientError,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Duration, Failure> {
        if made_headway {
            self.backoff.reset();
            self.faults = 0;
            self.headway_at = now;
        }
        match error.class() {
            Class::Permanent => return Err(from_error(FailureCode::Download, error)),
            Class::Faulty => {
                self.faults += 1;
                if self.faults >= MAX_FAULTS {
                    return Err(from_error(FailureCode::Download, error));
                }
            }
            // A device that was taken out may be let in again; its deployments end on the server by their own rules.
            Class::Unreachable | Class::NotAdmitted(_) | Class::Unknown => {}
        }
        if now.saturating_duration_since(self.headway_at) >= self.stall {
            let message = format!("no byte came for {} s; the last error: {error}", self.stall.as_secs());
            return Err(failure(FailureCode::Deadline, message));
        }
        Ok(self.backoff.next_after(error.retry_after(), rng))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tonic::Code;

    use super::*;

    const STALL: Duration = Duration::from_secs(3600);

    fn refused(code: Code) -> ClientError {
        ClientError::Refused { code, reason: None, message: "no".to_owned(), retry_after: None }
    }

    /// Meets the same error again and again and returns how often, how long, and how it ended.
    fn endure(error: &ClientError, made_headway: bool) -> Option<(u32, Duration, FailureCode)> {
        let mut rng = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let mut now = start;
        let mut patience = Patience::new(STALL, start);
        for tries in 1..10_000 {
            match patience.after(made_headway, error, now, &mut rng) {
                Ok(wait) => {
                    assert!(wait <= WAIT.1);
                    now += wait;
                }
                Err(failure) => return Some((tries, now - start, failure.code)),
            }
        }
        None
    }

    #[test]
    fn what_cannot_get_better_ends_at_once() {
        let end = endure(&refused(Code::NotFound), false);
        assert_eq!(end, Some((1, Duration::ZERO, FailureCode::Download)));
    }

    #[test]
    fn nonsense_is_borne_a_bounded_number_of_times() {
        let (tries, _, code) = endure(&refused(Code::Internal), false).unwrap();
        assert_eq!((tries, code), (MAX_FAULTS, FailureCode::Download));
        assert_eq!(endure(&refused(Code::Internal), true), None, "headway starts the count anew");
    }

    #[test]
    fn a_server_that_is_away_is_waited_for_until_the_deadline() {
        let unreachable = ClientError::Unreachable { reason: "connection refused".to_owned() };
        let (_, waited, code) = endure(&unreachable, false).unwrap();
        assert_eq!(code, FailureCode::Deadline);
        assert!((STALL..STALL + WAIT.1).contains(&waited), "{waited:?}");
    }
}
