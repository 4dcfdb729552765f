//! Many devices in this process. Each is the whole agent but its command line: its own key and certificate, its own folder,
//! its own connection, its doorbell, and its own mind.

use std::{
    fmt::Debug,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ota_agent::{
    agent::{self, Agent},
    clock::Clock,
    config::Config,
    data_dir::DataDir,
    enroll::{self, Machine},
};
use ota_e2e::scratch;
use tempfile::TempDir;
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    instrument::WithSubscriber as _,
};
use tracing_subscriber::{Layer, Registry, layer::Context, prelude::*};

/// How many devices enrol at once.
const AT_ONCE: usize = 16;

/// Devices. They work until this is dropped.
pub(crate) struct Fleet {
    folder: TempDir,
    names: Vec<String>,
    noticed: Noticed,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), agent::Error>>,
}

/// What the devices logged.
#[derive(Clone, Default)]
pub(crate) struct Noticed {
    /// Downloads that broke off, when some of the bytes were there.
    pub(crate) interrupted: Arc<AtomicU64>,
    /// Downloads that were not the payload in the end.
    pub(crate) damaged: Arc<AtomicU64>,
}

impl Fleet {
    /// Enrols devices and sets them to work.
    pub(crate) async fn start(url: &str, enrollment_string: &str, count: usize) -> Self {
        let folder = TempDir::with_prefix_in("ota-fleet-", scratch::parent()).unwrap();
        let enrolled = stream::iter(0..count).map(|number| {
            let data = folder.path().join(number.to_string());
            async move { (number, enroll_at(&data, url, enrollment_string).await) }
        });
        let mut names: Vec<_> = enrolled.buffer_unordered(AT_ONCE).collect().await;
        names.sort_unstable();
        let mut fleet = Self {
            folder,
            names: names.into_iter().map(|(_, name)| name).collect(),
            noticed: Noticed::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        for number in 0..count {
            let mut config = Config { data_dir: fleet.data(number), ..Config::default() };
            config.limits.reserve_bytes = 0;
            let agent = Agent::open(config, fleet.stop.clone()).unwrap();
            let log = Registry::default().with(fleet.noticed.clone());
            // An agent stays on one thread.
            fleet.tasks.spawn_blocking(|| Handle::current().block_on(agent.run().with_subscriber(log)));
        }
        fleet
    }

    fn data(&self, number: usize) -> std::path::PathBuf {
        self.folder.path().join(number.to_string())
    }

    /// Returns the devices' resource names.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn noticed(&self) -> &Noticed {
        &self.noticed
    }

    /// Asserts that every device runs these bytes.
    pub(crate) fn assert_runs(&self, package: &str, payload: &Bytes) {
        for number in 0..self.names.len() {
            let file = self.data(number).join("packages").join(package).join("current").join(package);
            assert!(std::fs::read(file).unwrap() == *payload, "{} runs other bytes", self.names[number]);
        }
    }

    /// Tells the devices to stop, and waits until they have.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn enroll_at(data: &Path, url: &str, enrollment_string: &str) -> String {
    let data = DataDir::open(data).unwrap();
    let machine = Machine { hardware: "test".parse().unwrap(), hardware_id: String::new() };
    let (server, string) = (url.parse().unwrap(), enrollment_string.parse().unwrap());
    let enrolled = enroll::enroll(&data, server, &Config::default(), &string, machine, &Clock::system()).await;
    format!("devices/{}", enrolled.unwrap().device)
}

impl<S: Subscriber> Layer<S> for Noticed {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if line.message.starts_with("download interrupted") && line.bytes_done > 0 {
            self.interrupted.fetch_add(1, Ordering::Relaxed);
        }
        if line.message.starts_with("the downloaded payload is damaged") {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A line of a device's log.
#[derive(Default)]
struct Line {
    message: String,
    bytes_done: u64,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "bytes_done" {
            self.bytes_done = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
