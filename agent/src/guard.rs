//! Stands between what the server says and what the device does: verifies metadata, keeps it, and says which release may
//! be installed.
//!
//! Nothing that fails here touches what runs. Bad metadata makes the device stay as it is and say so at the next
//! check-in; metadata that has expired forbids new work and nothing else; a store that is lost forbids all new work.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ota_domain::DeviceId;
use ota_trust::device::{Order, Trusted, Update};
use ota_trust::{Because as _, Fault, TrustError};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::client::Question;
use crate::clock::Clock;
use crate::durable;
use crate::failure::{Failure, FailureCode, failure};
use crate::release::Job;
use crate::trust_store::{self, Error, TrustStore};

const FAULT: &str = "fault.json";

/// Why the device last believed something not, and when. Kept for people; nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedFault {
    /// Which check failed.
    pub fault: Fault,
    /// What was found.
    pub message: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Nothing has been believed since; the server is told at the next check-in.
    pub is_current: bool,
}

/// What one device believes.
#[derive(Debug)]
pub struct Guard {
    data: PathBuf,
    clock: Clock,
    belief: Belief,
    fault: Option<NotedFault>,
    nonce: Option<[u8; 16]>,
}

#[derive(Debug)]
enum Belief {
    /// What was verified so far, and where it is kept.
    Held(TrustStore, Box<Trusted>),
    /// The store is damaged: nothing is believed until the device is enrolled again.
    Lost,
    /// The store did not take something; it has to be read again before anything is believed.
    Unknown,
}

impl Guard {
    /// Reads what the device of a data directory believes.
    pub fn open(data: &Path, clock: Clock) -> Result<Self, Error> {
        let fault = noted_fault(data);
        let mut guard = Self { data: data.to_owned(), clock, belief: Belief::Unknown, fault, nonce: None };
        guard.read()?;
        Ok(guard)
    }

    fn read(&mut self) -> Result<(), Error> {
        self.belief = match TrustStore::open(&self.data) {
            Ok((store, trusted)) => Belief::Held(store, Box::new(trusted)),
            Err(error @ Error::Lost { .. }) => {
                self.note(&Fault::Store.because(error.to_string()));
                Belief::Lost
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Returns what the next check-in has to say. Remembers the nonce that it asks with.
    pub fn question(&mut self, rng: &mut impl Rng) -> Result<Question, Error> {
        if matches!(self.belief, Belief::Unknown) {
            self.read()?;
        }
        let fault = self.fault.as_ref().filter(|noted| noted.is_current).map(|noted| noted.fault);
        self.nonce = None;
        let Belief::Held(_, trusted) = &self.belief else { return Ok(Question { fault, ..Question::default() }) };
        if trusted.wants_freshness(self.clock.now()) {
            let mut nonce = [0; 16];
            rng.fill_bytes(&mut nonce);
            self.nonce = Some(nonce);
        }
        Ok(Question { versions: Some(trusted.versions()), nonce: self.nonce, fault })
    }

    /// Verifies what an answer brought and keeps it. Returns why it was not believed: then what the same answer offers is
    /// not to be looked at.
    pub fn hear(&mut self, update: Option<Update>) -> Result<Option<TrustError>, Error> {
        let nonce = self.nonce.take();
        let Belief::Held(store, trusted) = &mut self.belief else { return Ok(None) };
        if update.is_none() && nonce.is_none() {
            self.overcome_fault();
            return Ok(None);
        }
        let nonce = nonce.as_ref().map(|nonce| &nonce[..]);
        match trusted.update(&update.unwrap_or_default(), nonce, self.clock.now()) {
            Ok(updated) => {
                let is_new = updated.to_bytes() != trusted.to_bytes();
                if is_new && let Err(error) = store.accept(&updated) {
                    self.belief = Belief::Unknown;
                    return Err(error);
                }
                **trusted = updated;
                self.overcome_fault();
                Ok(None)
            }
            Err(error) => {
                tracing::error!("the server's metadata is not to be believed; nothing is installed: {error}");
                self.note(&error);
                Ok(Some(error))
            }
        }
    }

    /// Verifies what a bundle brought and keeps it, like [`Self::hear`]. The roots in it that are held are passed over.
    pub fn hear_bundle(&mut self, update: Option<Update>) -> Result<Option<TrustError>, Error> {
        let update = match &self.belief {
            Belief::Held(_, trusted) => update.map(|update| trusted.pass_over_held_roots(update)),
            Belief::Lost | Belief::Unknown => update,
        };
        self.hear(update)
    }

    /// Tells why a release must not be installed at this moment.
    pub fn forbids(&mut self, job: &Job) -> Option<Failure> {
        let error = match &self.belief {
            Belief::Lost => Fault::Store.because("the record of what this device trusts is damaged or gone"),
            Belief::Unknown => Fault::Store.because("the record of what this device trusts could not be written"),
            Belief::Held(_, trusted) => trusted.authorize(&order(job), self.clock.now()).err()?,
        };
        tracing::error!(release = %job.release, "must not be installed: {error}");
        self.note(&error);
        Some(Failure { trust_fault: Some(error.fault), ..failure(FailureCode::Trust, error.message) })
    }

    /// Returns the metadata that a release is allowed by, as it is kept beside the release.
    pub fn evidence(&self) -> Option<Vec<u8>> {
        match &self.belief {
            Belief::Held(_, trusted) => Some(trusted.to_bytes()),
            Belief::Lost | Belief::Unknown => None,
        }
    }

    /// Returns the device that the metadata is for.
    pub fn device(&self) -> Option<DeviceId> {
        match &self.belief {
            Belief::Held(_, trusted) => Some(trusted.device()),
            Belief::Lost | Belief::Unknown => None,
        }
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn note(&mut self, error: &TrustError) {
        let is_known =
            |known: &NotedFault| known.is_current && (known.fault, &known.message) == (error.fault, &error.message);
        if !self.fault.as_ref().is_some_and(is_known) {
            let (fault, message) = (error.fault, error.message.clone());
            self.keep_fault(NotedFault { fault, message, at: self.clock.now(), is_current: true });
        }
    }

    fn overcome_fault(&mut self) {
        if let Some(noted) = self.fault.take_if(|noted| noted.is_current) {
            self.keep_fault(NotedFault { is_current: false, ..noted });
        }
    }

    fn keep_fault(&mut self, noted: NotedFault) {
        let folder = trust_store::folder(&self.data);
        let kept = serde_json::to_vec_pretty(&noted)
            .map_err(std::io::Error::from)
            .and_then(|json| durable::write(&folder.join(FAULT), &json, 0o644));
        if let Err(error) = kept {
            tracing::warn!("cannot keep what was not believed: {error}");
        }
        self.fault = Some(noted);
    }
}

/// Reads why the device of a data directory last believed something not.
pub fn noted_fault(data: &Path) -> Option<NotedFault> {
    let text = std::fs::read(trust_store::folder(data).join(FAULT)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn order(job: &Job) -> Order {
    let release = &job.release;
    Order {
        package: release.package.clone(),
        version: release.version.clone(),
        sha256: release.payload.sha256,
        length: release.payload.size_bytes,
        release_counter: release.release_counter,
        hardware: job.hardware.clone(),
        installer: release.installer,
        unpacked_size_bytes: job.unpacked_size_bytes,
    }
}
