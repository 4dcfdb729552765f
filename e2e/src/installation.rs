//! A device's folder with the agent in it, whose clock the test sets, started anew for each visit.
//!
//! Either it is enrolled with a world's roots, and a test hands in byte for byte what an attacker would send: then it is the
//! agent's verification, its store and its driver, as `ota-agent install` puts them together. Or it is enrolled at a
//! server and calls that one: then it is all of the agent but its command line.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ota_agent::{
    agent::{self, Agent},
    client::{Access, Answer, Client, Credentials, Offer, Question},
    clock::Clock,
    config::Config,
    data_dir::DataDir,
    driver::Driver,
    enroll::{self, Machine},
    guard::{self, Guard},
    identity::{Certificate, DeviceKey},
    machine::Outcome,
    release::Release,
    releases,
    server_url::ServerUrl,
    trust_store,
};
use ota_bundle::{Bundle, Manifest, Writer};
use ota_domain::{DeviceId, EnrollTokenId, Hardware, release::Installer};
use ota_proto::device::v1::CheckInResponse;
use ota_tls::{SeenCertificates, ServerTrust};
use ota_trust::{
    Fault,
    device::Trusted,
    metadata::{Custom, Target},
};
use prost::Message as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{device::sha256, scratch, signed::World};

/// What is handed in: an answer, and payloads to download.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    /// The answer to the check-in.
    pub answer: CheckInResponse,
    /// What downloads may find. Each goes under the hash that it should have.
    pub payloads: Vec<Bytes>,
    /// What downloads find under a hash that is another's.
    pub forged: Vec<(ota_domain::Sha256Digest, Bytes)>,
}

/// What a device made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Why it does not believe the metadata.
    pub fault: Option<Fault>,
    /// How each order ended.
    pub ends: Vec<Outcome>,
}

impl Visit {
    /// Returns the fault that the device reports first: of the metadata, or of the first order.
    #[must_use]
    pub fn reported(&self) -> Option<Fault> {
        let of_order = |end: &Outcome| match end {
            Outcome::Failed(failure) => failure.trust_fault,
            Outcome::Committed | Outcome::RolledBack(_) | Outcome::Rejected(_) | Outcome::Canceled => None,
        };
        self.fault.or_else(|| self.ends.first().and_then(of_order))
    }
}

/// How long a download may make no headway: one that breaks off where it began has failed.
const DOWNLOAD_STALL: Duration = Duration::from_millis(1);

/// An enrolled device.
#[derive(Debug)]
pub struct Installation {
    folder: TempDir,
    device: DeviceId,
    hardware: Hardware,
    /// Where it calls, when that is not where it was enrolled.
    server: Option<ServerUrl>,
    time: Arc<Mutex<DateTime<Utc>>>,
}

impl Installation {
    /// Enrols a device with a world's roots.
    ///
    /// # Panics
    /// When the disk does not take it, or the hardware type is none.
    #[must_use]
    pub fn new(world: &World, hardware: &str, now: DateTime<Utc>) -> Self {
        let folder = scratch();
        let device = DeviceId(Uuid::now_v7());
        let hardware: Hardware = hardware.parse().expect("a hardware type");
        trust_store::begin(folder.path(), device, &hardware, world.image_root(), &world.director_root)
            .expect("the roots of a world");
        Self { folder, device, hardware, server: None, time: Arc::new(Mutex::new(now)) }
    }

    /// Enrols a device at a server. Its clock stands still until it is set.
    ///
    /// # Panics
    /// When it is not enrolled.
    pub async fn enroll(url: &str, enrollment_string: &str, hardware: &str) -> Self {
        let folder = scratch();
        let data = DataDir::open(folder.path()).expect("a scratch folder");
        let string = enrollment_string.parse().expect("an enrolment string");
        let hardware: Hardware = hardware.parse().expect("a hardware type");
        let machine = Machine { hardware: hardware.clone(), hardware_id: String::new() };
        let server = url.parse().expect("an address");
        let enrolled = enroll::enroll(&data, server, &Config::default(), &string, machine, &Clock::system()).await;
        let device = enrolled.expect("a server that enrols devices").device;
        Self { folder, device, hardware, server: None, time: Arc::new(Mutex::new(Utc::now())) }
    }

    /// Configures it to call another server.
    ///
    /// # Panics
    /// When the address is none.
    pub fn point_to(&mut self, url: &str) {
        self.server = Some(url.parse().expect("an address"));
    }

    /// Makes another device of which everything is the same, also its identity.
    ///
    /// # Panics
    /// When the disk does not take it.
    #[must_use]
    pub fn twin(&self) -> Self {
        let folder = scratch();
        copy(self.folder.path(), folder.path());
        let time = Arc::new(Mutex::new(self.now()));
        Self { folder, device: self.device, hardware: self.hardware.clone(), server: self.server.clone(), time }
    }

    /// Returns the device's id.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Returns the folder with all it keeps.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Returns what the device takes for the time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the device's clock.
    pub fn set_time(&self, now: DateTime<Utc>) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// A client of a server that does not exist: nothing here calls it.
    fn nobody(&self) -> Client {
        let data = self.data().to_owned();
        let key = DeviceKey::for_token(&data, EnrollTokenId(Uuid::nil())).expect("the disk takes a key");
        let now = self.now();
        let certificate = Certificate { chain: Vec::new(), not_before: now, not_after: now, received_at: now };
        let credentials = Credentials { data, device: self.device, key, certificate };
        let server = "http://127.0.0.1:9".parse().expect("an address");
        let trust = ServerTrust::Pinning(SeenCertificates::default());
        let access = Access::new(&server, trust, credentials, Clock::system()).expect("an address");
        Client::new(Arc::new(access), Config::default().limits.check_in)
    }

    /// Starts the agent, lets it ask, hands in what `speak` says to that, and lets it do what it believes it should.
    ///
    /// # Panics
    /// When the disk does not work.
    pub async fn visit(&self, speak: impl FnOnce(&Question) -> Brought) -> Visit {
        let mut guard = Guard::open(self.data(), self.clock()).expect("the store can be read");
        let question = guard.question(&mut rand::rng()).expect("the store can be read");
        let brought = speak(&question);
        let answer = Answer::read(&brought.answer.encode_to_vec()).expect("an answer that can be decoded");
        let fault = guard.hear(answer.metadata).expect("the store can be written").map(|error| error.fault);
        let mut driver = Driver::open(self.config(), self.nobody(), guard, CancellationToken::new())
            .expect("the journal can be read");
        driver.go_offline(self.bundle(&brought));
        driver.recover().await.expect("the disk works");
        let mut ends = Vec::new();
        let offers = if fault.is_none() { answer.offers } else { Vec::new() };
        for offer in offers {
            let Offer::Job { job, .. } = offer else { continue };
            driver.offer(*job, &self.hardware).await.expect("the disk works");
            ends.push(driver.last_settled().expect("work comes to an end").outcome.clone());
        }
        Visit { fault, ends }
    }

    /// Starts the agent, lets it ask its server, and lets it do what it believes it should.
    ///
    /// # Errors
    /// When the server does not answer, or not as it should.
    ///
    /// # Panics
    /// When work comes to no end.
    pub async fn call(&self) -> Result<Visit, agent::Error> {
        let mut agent = Agent::open_at(self.config(), CancellationToken::new(), self.clock())?;
        agent.recover().await?;
        let answer = agent.check_in().await?;
        let fault = guard::noted_fault(self.data()).filter(|noted| noted.is_current).map(|noted| noted.fault);
        let mut ends = Vec::new();
        for offer in answer.offers {
            let is_job = matches!(offer, Offer::Job { .. });
            agent.work_on(offer).await?;
            if is_job {
                ends.push(agent.driver().last_settled().expect("work comes to an end").outcome.clone());
            }
        }
        Ok(Visit { fault, ends })
    }

    fn config(&self) -> Config {
        let server = self.server.clone();
        let mut config = Config { data_dir: self.data().to_owned(), server, ..Config::default() };
        config.limits.reserve_bytes = 0;
        config.limits.download_stall = DOWNLOAD_STALL;
        config
    }

    fn clock(&self) -> Clock {
        let time = Arc::clone(&self.time);
        Clock::new(move || *time.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what runs.
    ///
    /// # Panics
    /// When the disk cannot be read.
    #[must_use]
    pub fn runs(&self) -> Vec<Release> {
        releases::running(self.data()).expect("the disk can be read")
    }

    /// Returns the file that a package's running release installed.
    #[must_use]
    pub fn content(&self, package: &str) -> Option<Vec<u8>> {
        fs::read(self.data().join("packages").join(package).join("current").join(package)).ok()
    }

    /// Returns what the device trusts.
    ///
    /// # Panics
    /// When its store is lost.
    #[must_use]
    pub fn trusted(&self) -> Trusted {
        trust_store::peek(self.data()).expect("the store is whole")
    }

    /// Returns a file of the device's trust store.
    #[must_use]
    pub fn store(&self, copy: &str) -> PathBuf {
        self.data().join("trust").join(copy)
    }

    fn bundle(&self, brought: &Brought) -> Bundle<File> {
        let path = self.data().join("brought");
        let mut writer = Writer::new(File::create(&path).expect("a file in the scratch folder"));
        let named = brought.payloads.iter().map(|bytes| (sha256(bytes), bytes));
        for (name, bytes) in named.chain(brought.forged.iter().map(|(name, bytes)| (*name, bytes))) {
            let mut entry = writer.payload(name, bytes.len() as u64).expect("a file that can be written");
            entry.write(bytes).and_then(|()| entry.finish()).expect("a file that can be written");
        }
        let now = self.now();
        writer.finish(&Manifest::new(now, now)).expect("a file that can be written");
        Bundle::open(File::open(&path).expect("the file just written")).expect("a bundle just written")
    }
}

/// Describes a payload that is installed as a file, on any of these hardware types.
///
/// # Panics
/// When the names are none.
#[must_use]
pub fn release(package: &str, version: &str, counter: i64, hardware: &[&str], payload: &[u8]) -> Target {
    Target {
        length: payload.len() as u64,
        sha256: sha256(payload),
        custom: Custom {
            package: package.parse().expect("a package's name"),
            version: version.parse().expect("a version"),
            release_counter: counter,
            floor: 0,
            hardware: hardware.iter().map(|name| name.parse().expect("a hardware type")).collect(),
            installer: Installer::File,
            unpacked_size_bytes: 0,
        },
    }
}

/// Makes a folder in memory, where there is such a place: thousands of visits sync thousands of files.
fn scratch() -> TempDir {
    TempDir::with_prefix_in("ota-device-", scratch::parent()).expect("a scratch folder")
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder that can be read") {
        let entry = entry.expect("a folder that can be read");
        let to = to.join(entry.file_name());
        let kind = entry.file_type().expect("a folder that can be read");
        if kind.is_dir() {
            fs::create_dir(&to).expect("a scratch folder");
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).expect("a link");
            std::os::unix::fs::symlink(target, to).expect("a scratch folder");
        } else {
            fs::copy(entry.path(), to).expect("a scratch folder");
        }
    }
}
