//! The agent at work: checks in, does what is offered, waits until the next check-in is due or the server rings.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use ota_bundle::{Bundle, ReadError};
use ota_domain::inventory::Inventory;
use ota_domain::{DeviceId, device};
use ota_tls::ServerTrust;
use ota_trust::TrustError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::{self, Access, Answer, CheckIn, Class, Client, Credentials, Gate, Offer};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{self, DataDir};
use crate::doorbell::Doorbell;
use crate::driver::{self, Driver};
use crate::failure;
use crate::guard::Guard;
use crate::identity::{self, Certificate, DeviceKey, Enrollment};
use crate::inventory;
use crate::release::Release;
use crate::releases;
use crate::renewal::Renewal;
use crate::server_url::ServerUrl;
use crate::trust_store;

/// Bounds of the wait after a check-in that did not work.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Bounds of the wait after work, before the server is asked for more. Grows while the server keeps offering.
const WORK_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(300));

/// The server may not send the agent to sleep for longer, nor keep it from sleeping at all.
const CHECK_IN_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));

/// When to ask again while an operator has yet to approve the device.
const PENDING_WAIT: Duration = Duration::from_secs(30);

/// When to ask again after the device was kept or taken out: rarely, but an operator may change their mind.
const UNWANTED_WAIT: Duration = Duration::from_secs(900);

/// Why the agent cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(data_dir::Error),
    /// The identity cannot be read or kept.
    #[error(transparent)]
    Identity(identity::Error),
    /// The device is not enrolled.
    #[error("this device is not enrolled")]
    NotEnrolled,
    /// The server is another machine and the connection is not encrypted.
    #[error("{server} is another machine, and http:// is not encrypted")]
    Insecure {
        /// The server.
        server: ServerUrl,
    },
    /// The server cannot be asked, or does not answer as it should.
    #[error("cannot check in at {server}")]
    CheckIn {
        /// The server's address.
        server: String,
        /// What came back.
        #[source]
        source: client::Error,
    },
    /// The certificates to check the server with cannot be used.
    #[error(transparent)]
    Tls(ota_tls::Error),
    /// The work cannot go on.
    #[error(transparent)]
    Driver(driver::Error),
    /// What the device trusts cannot be read or kept.
    #[error(transparent)]
    Trust(trust_store::Error),
    /// A bundle cannot be read.
    #[error("cannot read the bundle")]
    Bundle(#[source] ReadError),
    /// A bundle does not hold what it should.
    #[error("the bundle is damaged")]
    BundleAnswer(#[source] client::Error),
    /// A bundle is for others.
    #[error("the bundle holds nothing for this device, {device}")]
    NotForThisDevice {
        /// This device.
        device: DeviceId,
    },
    /// A download is under way that a bundle cannot go on with.
    #[error("the agent is downloading {release}")]
    AtWork {
        /// What is being downloaded.
        release: Box<Release>,
    },
    /// A bundle's metadata is not to be believed.
    #[error("the bundle is not to be believed")]
    NotBelieved(#[source] TrustError),
}

/// Tells whether a server may be spoken to: encrypted, on this machine, or because somebody said so.
pub fn may_speak_to(server: &ServerUrl, config: &Config) -> bool {
    server.is_tls() || server.is_loopback() || config.insecure
}

/// Returns whom to believe: the authorities of a file if there is one.
pub fn trust(ca_file: Option<&Path>, otherwise: impl FnOnce() -> ServerTrust) -> Result<ServerTrust, ota_tls::Error> {
    match ca_file {
        Some(path) => ota_tls::certificates(path).map(ServerTrust::Roots),
        None => Ok(otherwise()),
    }
}

/// Makes the clock that connections go by: the machine's own, unless it is before the device's certificate was made. Then
/// the machine does not know the time, and the latest that the device has verified is nearer. Against a clock that may be
/// right that time is not believed: whoever stole the key that signs it could set the device past the end of every
/// certificate, where the root that takes the key away never reaches it.
fn connection_clock(data: &Path, clock: Clock, certificate: &Certificate) -> Clock {
    let latest = trust_store::peek(data).map(|trusted| trusted.now(DateTime::UNIX_EPOCH)).unwrap_or_default();
    let made_at = certificate.not_before;
    Clock::new(move || {
        let now = clock.now();
        if now < made_at { now.max(latest) } else { now }
    })
}

/// The agent of one enrolled device.
#[derive(Debug)]
pub struct Agent {
    data: DataDir,
    config: Config,
    client: Client,
    driver: Driver,
    is_recovered: bool,
    enrollment: Enrollment,
    server: ServerUrl,
    boot_id: String,
    inventory: Option<Inventory>,
    stop: CancellationToken,
}

impl Agent {
    /// Locks the data directory and reads what is in it.
    pub fn open(config: Config, stop: CancellationToken) -> Result<Self, Error> {
        Self::open_at(config, stop, Clock::system())
    }

    /// Does the same with another clock.
    pub fn open_at(mut config: Config, stop: CancellationToken, clock: Clock) -> Result<Self, Error> {
        let data = DataDir::open(&config.data_dir).map_err(Error::Data)?;
        config.data_dir = data.path().to_owned();
        let enrollment = Enrollment::load(data.path()).map_err(Error::Identity)?.ok_or(Error::NotEnrolled)?;
        let key = DeviceKey::load(data.path()).map_err(Error::Identity)?.ok_or(Error::NotEnrolled)?;
        let certificate = Certificate::load(data.path()).map_err(Error::Identity)?.ok_or(Error::NotEnrolled)?;
        let server = config.server.clone().unwrap_or_else(|| enrollment.server.clone());
        if !may_speak_to(&server, &config) {
            return Err(Error::Insecure { server });
        }
        let authority = identity::load_authority(data.path()).map_err(Error::Identity)?.ok_or(Error::NotEnrolled)?;
        let ca_file = config.ca_file.as_deref().or(enrollment.ca_file.as_deref());
        let trust = trust(ca_file, || ServerTrust::Authority(authority)).map_err(Error::Tls)?;
        let connection_clock = connection_clock(data.path(), clock.clone(), &certificate);
        let credentials = Credentials { data: data.path().to_owned(), device: enrollment.device, key, certificate };
        let access = Access::new(&server, trust, credentials, connection_clock)
            .map_err(|source| Error::CheckIn { server: server.to_string(), source })?;
        let client = Client::new(Arc::new(access), config.limits.check_in);
        let guard = Guard::open(data.path(), clock).map_err(Error::Trust)?;
        let driver = Driver::open(config.clone(), client.clone(), guard, stop.clone()).map_err(Error::Driver)?;
        let boot_id = inventory::boot_id();
        Ok(Self {
            data,
            config,
            client,
            driver,
            is_recovered: false,
            enrollment,
            server,
            boot_id,
            inventory: None,
            stop,
        })
    }

    /// Returns the driver, for what it knows of the work.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Returns the access to the server.
    pub fn access(&self) -> &Arc<Access> {
        self.client.access()
    }

    /// Returns what runs of a package.
    pub fn running(&self, release: &Release) -> Result<Option<Release>, Error> {
        let releases = releases::Releases::new(self.data.path(), &release.package);
        releases.current_release().map_err(|error| Error::Driver(driver::Error::Disk(error)))
    }

    /// Goes on with work that a restart interrupted, or that could not be brought to its end. Does nothing when there is
    /// none.
    pub async fn recover(&mut self) -> Result<(), Error> {
        if !self.is_recovered || self.driver.is_busy() {
            self.driver.recover().await.map_err(Error::Driver)?;
            self.is_recovered = true;
        }
        self.driver.tell_untold().await.map_err(Error::Driver)
    }

    /// Does what a bundle has for this device, without a network: verified as if the server had sent it, reported when
    /// there is a network again. Returns what the bundle offers.
    pub async fn open_bundle(&mut self, mut bundle: Bundle<File>) -> Result<Vec<Offer>, Error> {
        let device = self.enrollment.device;
        let answer = bundle.check_in(device).map_err(Error::Bundle)?.ok_or(Error::NotForThisDevice { device })?;
        let answer = Answer::read(&answer).map_err(Error::BundleAnswer)?;
        if let Some(release) = self.driver.downloading()
            && bundle.payload(release.payload.sha256).map_err(Error::Bundle)?.is_none()
        {
            return Err(Error::AtWork { release: Box::new(release.clone()) });
        }
        self.driver.go_offline(bundle);
        self.driver.recover().await.map_err(Error::Driver)?;
        self.is_recovered = true;
        match self.driver.guard_mut().hear_bundle(answer.metadata).map_err(Error::Trust)? {
            Some(fault) => Err(Error::NotBelieved(fault)),
            None => Ok(answer.offers),
        }
    }

    /// Renews the certificate if that is due. A renewal that fails can wait: the server takes an expired one for it.
    pub async fn renew_if_due(&self) {
        if self.access().renewal_in().is_zero()
            && let Err(error) = self.access().renew().await
        {
            tracing::warn!("cannot renew the certificate: {error}");
        }
    }

    /// Asks the server what to do. An answer that cannot be believed comes without offers.
    pub async fn check_in(&mut self) -> Result<Answer, Error> {
        let found = inventory::collect(&self.config.attributes, self.inventory.as_ref());
        let inventory = self.inventory.insert(found);
        let checksum = inventory::sha256(inventory, &self.boot_id);
        let running = releases::running(self.data.path()).map_err(|error| Error::Driver(driver::Error::Disk(error)))?;
        let running: Vec<_> = running.iter().map(Release::running).collect();
        let time_zone = inventory::time_zone();
        let trust = self.driver.guard_mut().question(&mut rand::rng()).map_err(Error::Trust)?;
        let check_in =
            CheckIn { running: &running, boot_id: &self.boot_id, time_zone: &time_zone, inventory: checksum, trust };
        let answer = self.client.check_in(check_in).await;
        let admission = match answer.as_ref().map_err(client::Error::class) {
            Ok(_) => Some(device::State::Accepted),
            Err(Class::NotAdmitted(state)) => Some(state),
            Err(Class::Unreachable | Class::Faulty | Class::Permanent | Class::Unknown) => None,
        };
        self.note_admission(admission)?;
        let mut answer = answer.map_err(|source| Error::CheckIn { server: self.server.to_string(), source })?;
        if self.driver.guard_mut().hear(answer.metadata.take()).map_err(Error::Trust)?.is_some() {
            answer.offers.clear();
        }
        if answer.inventory_wanted
            && let Some(inventory) = &self.inventory
            && let Err(error) = self.client.report_inventory(checksum, inventory).await
        {
            // The next check-in says again that it is wanted.
            tracing::warn!("cannot send the inventory: {error}");
        }
        Ok(answer)
    }

    fn note_admission(&mut self, state: Option<device::State>) -> Result<(), Error> {
        let Some(state) = state.filter(|&state| state != self.enrollment.state) else { return Ok(()) };
        tracing::info!("the device is {} by the server", state.as_str());
        self.enrollment.state = state;
        self.enrollment.save(self.data.path()).map_err(Error::Identity)
    }

    /// Does what is offered, to its end or to a stop.
    pub async fn work_on(&mut self, offer: Offer) -> Result<(), Error> {
        match offer {
            Offer::Job { job, .. } => self.driver.offer(*job, &self.enrollment.hardware).await.map_err(Error::Driver),
            Offer::Unusable { deployment, attempt, failure } => {
                self.driver.answer_unusable(deployment, attempt, &failure).await;
                Ok(())
            }
        }
    }

    /// Tells the server that a person refused the work.
    pub async fn refuse(&mut self, offer: Offer) -> Result<(), Error> {
        match offer {
            Offer::Job { job, .. } => self.driver.refuse(*job).await.map_err(Error::Driver),
            Offer::Unusable { .. } => Ok(()),
        }
    }

    /// Works until it is told to stop.
    pub async fn run(mut self) -> Result<(), Error> {
        let _renewal = Renewal::start(Arc::clone(self.access()), self.stop.clone());
        let mut doorbell = Doorbell::start(self.client.clone(), self.stop.clone());
        let mut troubles = Backoff::new(WAIT.0, WAIT.1);
        let mut works = Backoff::new(WORK_WAIT.0, WORK_WAIT.1);
        while !self.stop.is_cancelled() {
            let wait = match self.round().await {
                Ok(Round { has_worked: true, .. }) => {
                    troubles.reset();
                    works.next(&mut rand::rng())
                }
                Ok(Round { next_check_in, .. }) => {
                    troubles.reset();
                    works.reset();
                    next_check_in
                }
                Err(Error::CheckIn { source, .. }) => self.wait_after(&source, &mut troubles),
                Err(error @ (Error::Driver(_) | Error::Trust(_))) => {
                    // A full or failing disk. What was begun is taken up from its saved state when it is better.
                    self.is_recovered = false;
                    let wait = troubles.next(&mut rand::rng()).max(CHECK_IN_BOUNDS.0);
                    tracing::error!(wait_ms = millis(wait), "cannot work: {}", failure::chain(&error));
                    wait
                }
                Err(other) => return Err(other),
            };
            tokio::select! {
                () = sleep(wait) => {}
                delay = doorbell.rung() => {
                    tokio::select! {
                        () = sleep(delay.min(CHECK_IN_BOUNDS.1)) => {}
                        () = self.stop.cancelled() => {}
                    }
                }
                () = self.stop.cancelled() => {}
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Goes on with interrupted work, checks in once and does what is offered.
    async fn round(&mut self) -> Result<Round, Error> {
        self.recover().await?;
        let answer = self.check_in().await?;
        let (shortest, longest) = CHECK_IN_BOUNDS;
        let next_check_in = answer.next_check_in.unwrap_or(self.config.check_in_fallback).clamp(shortest, longest);
        let mut has_worked = false;
        for offer in answer.offers {
            let may_start = match &offer {
                Offer::Job { gate, .. } => *gate == Gate::Open,
                Offer::Unusable { .. } => true,
            };
            if may_start && !self.stop.is_cancelled() {
                self.work_on(offer).await?;
                has_worked = true;
            }
        }
        Ok(Round { has_worked, next_check_in })
    }

    fn wait_after(&self, error: &client::Error, troubles: &mut Backoff) -> Duration {
        let wait = match error.class() {
            Class::Unreachable | Class::Faulty => troubles.next_after(error.retry_after(), &mut rand::rng()),
            Class::NotAdmitted(device::State::Pending) => {
                let least = error.retry_after().unwrap_or(PENDING_WAIT).clamp(CHECK_IN_BOUNDS.0, UNWANTED_WAIT);
                tracing::info!("waiting for an operator to approve device {}", self.enrollment.device);
                return least + troubles.next(&mut rand::rng()).min(least / 4);
            }
            Class::NotAdmitted(_) | Class::Unknown | Class::Permanent => UNWANTED_WAIT,
        };
        tracing::warn!(wait_ms = millis(wait), "cannot check in: {error}");
        wait
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What one round came to.
struct Round {
    has_worked: bool,
    next_check_in: Duration,
}
