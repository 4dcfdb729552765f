//! Does what the machine decides: saves each state before it performs the effects, and turns what comes of them into
//! events. Decides nothing about the work itself.

mod announce;
mod fetch;
mod trial;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;

use chrono::Utc;
use ota_bundle::Bundle;
use ota_domain::release;
use ota_domain::{DeploymentId, Hardware};
use tokio::sync::Mutex;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Report, Stage};
use crate::config::{Config, Package};
use crate::failure::{Failure, FailureCode, failure};
use crate::guard::Guard;
use crate::install::{self, SingleFile};
use crate::journal::{self, Journal, Record, SaveError};
use crate::machine::{Effect, Event, Found, Phase, Present, Settled, State, recover, step};
use crate::release::{Job, Release};
use crate::releases::{self, Releases};
use crate::tree::Mode;

/// How many reports are set aside with one write to the disk. A report every two seconds takes weeks to use them up.
const SEQUENCES: u64 = 1_000_000;

/// Why the driver cannot go on. The state on disk is the one before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Open(#[source] io::Error),
    /// The journal cannot be written.
    #[error("cannot keep the agent's record")]
    Save(#[source] SaveError),
    /// The releases on disk cannot be looked at.
    #[error("cannot read the releases on disk")]
    Disk(#[source] io::Error),
}

/// Drives the machine of one device.
#[derive(Debug)]
pub struct Driver {
    config: Config,
    client: Client,
    guard: RefCell<Guard>,
    /// Where payloads come from when there is no network; then nothing is reported either.
    bundle: Option<Mutex<Bundle<File>>>,
    journal: Journal,
    record: Record,
    next_sequence: Cell<u64>,
    stop: CancellationToken,
}

impl Driver {
    /// Opens the journal. `stop` asks the driver to stop at the next safe point. `config` names the data directory,
    /// which the caller has locked.
    pub fn open(config: Config, client: Client, guard: Guard, stop: CancellationToken) -> Result<Self, Error> {
        let (journal, found) = Journal::open(&config.data_dir).map_err(Error::Open)?;
        let record = match found {
            journal::Found::Record(record) => *record,
            journal::Found::Nothing if releases::running(&config.data_dir).map_err(Error::Disk)?.is_empty() => {
                Record::default()
            }
            journal::Found::Nothing | journal::Found::Unreadable => {
                tracing::warn!("the journal is lost; staying with what runs");
                let state = State { journal_lost: true, ..State::default() };
                // The true count is not known; the clock is past it, for nobody sends a thousand reports a second.
                let sequence = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
                Record { state, sequence }
            }
        };
        let next_sequence = Cell::new(record.sequence + 1);
        let mut driver =
            Self { config, client, guard: RefCell::new(guard), bundle: None, journal, record, next_sequence, stop };
        driver.set_sequences_aside()?;
        Ok(driver)
    }

    /// Goes on with the work that was found saved, to its end or to a stop.
    pub async fn recover(&mut self) -> Result<(), Error> {
        let found = match self.record.state.phase.job() {
            None => Found { current: None, part_bytes: 0 },
            Some(job) => {
                let releases = self.releases(&job.release);
                let part = std::fs::metadata(releases.part(job.release.payload.sha256));
                // A part that is not there, or cannot be looked at, is no headway.
                let part_bytes = part.map(|part| part.len()).unwrap_or(0);
                Found { current: releases.current().map_err(Error::Disk)?, part_bytes }
            }
        };
        if let Some(job) = self.record.state.phase.job() {
            tracing::info!(deployment.id = %job.deployment, release = %job.release, "going on after a restart");
        }
        let (state, effects) = recover(self.record.state.clone(), found);
        self.enter(state)?;
        self.carry_out(effects).await
    }

    /// Does the work that the server offers, to its end or to a stop.
    pub async fn offer(&mut self, job: Job, own: &Hardware) -> Result<(), Error> {
        let releases = self.releases(&job.release);
        let payload = job.release.payload.sha256;
        let current = releases.current().map_err(Error::Disk)?;
        let present = if current == Some(payload) {
            Present::Running
        } else if block_in_place(|| releases.is_whole(payload)).map_err(Error::Disk)? {
            Present::Tree
        } else {
            Present::Nothing
        };
        let from = if present == Present::Running { releases.previous_release() } else { releases.current_release() };
        let from = from.map_err(Error::Disk)?;
        let unfit = if release::fits(&job.hardware, own) {
            self.guard_mut().forbids(&job)
        } else {
            let fitting: Vec<_> = job.hardware.iter().map(Hardware::as_str).collect();
            let message = format!("{} is for {}, this device is {own}", job.release, fitting.join(", "));
            Some(failure(FailureCode::Hardware, message))
        };
        self.take_in(Event::Offered { job, from, present, unfit }).await
    }

    /// Tells the server that a person refused.
    pub async fn refuse(&mut self, job: Job) -> Result<(), Error> {
        self.take_in(Event::Refused { job }).await
    }

    /// Answers a deployment that cannot even be turned into work. Stateless: it is offered again until it is answered.
    pub async fn answer_unusable(&mut self, deployment: DeploymentId, attempt: u32, failure: &Failure) {
        tracing::warn!(deployment.id = %deployment, "cannot do what the server offers: {}", failure.message);
        if self.is_offline() {
            return;
        }
        let report =
            Report { deployment, attempt, sequence: self.sequence(), stage: Stage::Failed(failure), bytes_done: 0 };
        if let Err(error) = self.client.report(&report).await {
            tracing::warn!(deployment.id = %deployment, "cannot report: {error}");
        }
    }

    /// Takes payloads from a bundle from here on, and keeps the reports for later.
    pub fn go_offline(&mut self, bundle: Bundle<File>) {
        self.bundle = Some(Mutex::new(bundle));
    }

    /// Returns the release whose payload is being fetched.
    pub fn downloading(&self) -> Option<&Release> {
        match &self.record.state.phase {
            Phase::Downloading { job, .. } => Some(&job.release),
            Phase::Idle
            | Phase::Verified { .. }
            | Phase::Activating { .. }
            | Phase::Trial { .. }
            | Phase::Returning { .. }
            | Phase::Ended { .. } => None,
        }
    }

    fn is_offline(&self) -> bool {
        self.bundle.is_some()
    }

    /// Returns what the device believes.
    pub fn guard_mut(&mut self) -> &mut Guard {
        self.guard.get_mut()
    }

    /// Returns how the last deployment ended.
    pub fn last_settled(&self) -> Option<&Settled> {
        self.record.state.settled.last()
    }

    /// Tells whether work is at hand, because a stop or a lost connection interrupted it.
    pub fn is_busy(&self) -> bool {
        self.record.state.phase != Phase::Idle
    }

    async fn take_in(&mut self, event: Event) -> Result<(), Error> {
        let (state, effects) = step(self.record.state.clone(), event);
        self.enter(state)?;
        self.carry_out(effects).await
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), Error> {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            if self.stop.is_cancelled() && self.may_stop() {
                return Ok(());
            }
            let Some(event) = self.perform(effect).await else { continue };
            let (state, effects) = step(self.record.state.clone(), event);
            let has_moved = state != self.record.state || !effects.is_empty();
            self.enter(state)?;
            if has_moved {
                // What was still to be done belonged to the state that was left.
                queue = effects.into();
            }
        }
        Ok(())
    }

    /// Tells whether the device is not in between two releases. Between the switch and the verdict it is not left
    /// alone: the old release is stopped, the new one may not run.
    fn may_stop(&self) -> bool {
        match self.record.state.phase {
            Phase::Idle
            | Phase::Downloading { .. }
            | Phase::Verified { .. }
            | Phase::Activating { .. }
            | Phase::Ended { .. } => true,
            Phase::Trial { .. } | Phase::Returning { .. } => false,
        }
    }

    fn enter(&mut self, state: State) -> Result<(), Error> {
        if state != self.record.state {
            if let Some(job) = state.phase.job() {
                tracing::info!(deployment.id = %job.deployment, release = %job.release, "{}", describe(&state.phase));
            }
            let record = Record { state, sequence: self.record.sequence };
            self.journal.save(&record).map_err(Error::Save)?;
            self.record = record;
        }
        self.set_sequences_aside()
    }

    /// Makes sure that the reports to come have numbers that no report before a crash can have had.
    fn set_sequences_aside(&mut self) -> Result<(), Error> {
        let next = self.next_sequence.get();
        if next + SEQUENCES / 2 > self.record.sequence {
            let record = Record { state: self.record.state.clone(), sequence: next + SEQUENCES };
            self.journal.save(&record).map_err(Error::Save)?;
            self.record = record;
        }
        Ok(())
    }

    fn sequence(&self) -> u64 {
        self.next_sequence.replace(self.next_sequence.get() + 1)
    }

    async fn perform(&self, effect: Effect) -> Option<Event> {
        // Every effect belongs to some work.
        let job = self.record.state.phase.job()?;
        let releases = self.releases(&job.release);
        let payload = job.release.payload.sha256;
        match effect {
            Effect::Download => self.download(job).await,
            Effect::DropDownload => {
                log_error("cannot delete the download", block_in_place(|| releases.remove_download(payload)));
                None
            }
            Effect::ReportInstalling => self.report_installing(job).await,
            Effect::Install => Some(block_in_place(|| self.install(&releases, job))),
            Effect::CheckTree => Some(match block_in_place(|| releases.is_whole(payload)) {
                Ok(true) => Event::TreeWhole,
                Ok(false) => Event::TreeDamaged,
                Err(error) => {
                    tracing::warn!(release = %job.release, "cannot read the tree: {error}");
                    Event::TreeDamaged
                }
            }),
            Effect::DropTree => {
                let from = self.record.state.phase.from().map(|from| from.payload.sha256);
                log_error("cannot delete the damaged tree", block_in_place(|| drop_tree(&releases, payload, from)));
                None
            }
            Effect::Activate => Some(self.activate(&releases, job).await),
            Effect::Try => Some(self.try_release(&releases, job).await),
            Effect::Return => Some(self.go_back(&releases, job).await),
            Effect::CollectGarbage => {
                log_error("cannot delete old releases", block_in_place(|| releases.collect_garbage()));
                None
            }
            Effect::Announce => self.announce(job).await,
        }
    }

    fn install(&self, releases: &Releases, job: &Job) -> Event {
        let settings = self.package(&job.release);
        let name = settings.file_name.unwrap_or_else(|| job.release.package.to_string());
        let mode = if settings.is_plain { Mode::Plain } else { Mode::Executable };
        let unpack = install::installer(job.release.installer, self.config.limits.archive, SingleFile { name, mode });
        match install::install(releases, &job.release, unpack.as_ref(), Utc::now()) {
            Ok(()) => Event::Installed,
            Err(error) => error.failure().map_or(Event::PayloadLost, Event::InstallFailed),
        }
    }

    fn data(&self) -> &Path {
        &self.config.data_dir
    }

    fn releases(&self, release: &Release) -> Releases {
        Releases::new(self.data(), &release.package)
    }

    fn package(&self, release: &Release) -> Package {
        self.config.package(&release.package)
    }
}

/// Deletes a tree; what runs is switched back first, so that `current` never points at nothing.
fn drop_tree(
    releases: &Releases,
    payload: ota_domain::Sha256Digest,
    from: Option<ota_domain::Sha256Digest>,
) -> io::Result<()> {
    if releases.current()? == Some(payload) {
        releases.switch_back(from)?;
    }
    releases.remove(payload)
}

/// For what is tidied up: a failure is worth a line, and is made up for by the next time.
fn log_error(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("{what}: {error}");
    }
}

fn describe(phase: &Phase) -> &'static str {
    match phase {
        Phase::Idle => "nothing to do",
        Phase::Downloading { .. } => "downloading",
        Phase::Verified { .. } => "downloaded and verified; installing",
        Phase::Activating { .. } => "installed; switching",
        Phase::Trial { .. } => "switched; on trial",
        Phase::Returning { .. } => "going back to the release before",
        Phase::Ended { .. } => "decided; telling the server",
    }
}
