//! A balancer for TCP connections in front of several servers, as a Kubernetes Service is one: each new connection goes to
//! the next server that is ready, what is connected stays where it is, and nobody tries twice for the client.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ota_server::serve::health::READINESS;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{credential, eventually, proxy::copy};

/// How often servers are asked whether they are ready, and how long they may take to say so.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(90);

/// Spreads connections over servers. Ends when dropped, with all connections.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    backends: Arc<[Backend]>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Backend {
    address: SocketAddr,
    ready: AtomicBool,
    open: AtomicUsize,
    down: watch::Sender<u64>,
    up: watch::Sender<u64>,
}

impl Balancer {
    /// Starts one in front of these servers, which speak TLS.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(servers: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let backend = |&address| Backend {
            address,
            ready: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            down: watch::Sender::new(0),
            up: watch::Sender::new(0),
        };
        let backends: Arc<[Backend]> = servers.iter().map(backend).collect();
        let mut tasks = JoinSet::new();
        for number in 0..backends.len() {
            tasks.spawn(probe(Arc::clone(&backends), number));
        }
        tasks.spawn(accept(listener, Arc::clone(&backends)));
        Self { address, backends, _tasks: tasks }
    }

    /// Returns where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Waits until a server is ready, or is not.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn sees(&self, server: usize, ready: bool) {
        eventually(&format!("server {server} is ready: {ready}"), PATIENCE, async || {
            (self.backends[server].ready.load(Ordering::Relaxed) == ready).then_some(())
        })
        .await;
    }

    /// Returns how many connections a server has.
    #[must_use]
    pub fn open(&self, server: usize) -> usize {
        self.backends[server].open.load(Ordering::Relaxed)
    }

    /// Returns how many bytes came from a server.
    #[must_use]
    pub fn down(&self, server: usize) -> u64 {
        *self.backends[server].down.borrow()
    }

    /// Waits until at least so many bytes have come from a server.
    ///
    /// # Panics
    /// Never: the sender lives as long as the balancer.
    pub async fn came_down(&self, server: usize, bytes: u64) {
        let mut down = self.backends[server].down.subscribe();
        down.wait_for(|down| *down >= bytes).await.expect("the sender is in self");
    }
}

/// Keeps `ready` true to what the server says of itself.
async fn probe(backends: Arc<[Backend]>, number: usize) {
    let backend = &backends[number];
    let mut health = HealthClient::new(credential::connect(&format!("https://{}", backend.address)));
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let request = HealthCheckRequest { service: READINESS.to_owned() };
        let answer = timeout(PROBE_TIMEOUT, health.check(request)).await;
        let ready = matches!(answer, Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving);
        backend.ready.store(ready, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, backends: Arc<[Backend]>) {
    let mut connections = JoinSet::new();
    let mut next = 0;
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let count = backends.len();
        let chosen = (next..next + count).map(|n| n % count).find(|&n| backends[n].ready.load(Ordering::Relaxed));
        // Without one that is ready the connection is closed, as a Service without endpoints refuses it.
        let Some(chosen) = chosen else { continue };
        next = chosen + 1;
        let backends = Arc::clone(&backends);
        connections.spawn(async move {
            let backend = &backends[chosen];
            backend.open.fetch_add(1, Ordering::Relaxed);
            // An end that breaks is what this is for.
            forward(client, backend).await.ok();
            backend.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Until either end closes: a half-closed connection is of no use to HTTP/2.
async fn forward(mut client: TcpStream, backend: &Backend) -> io::Result<()> {
    let mut server = TcpStream::connect(backend.address).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        ended = copy(from_client, to_server, &backend.up, None) => ended,
        ended = copy(from_server, to_client, &backend.down, None) => ended,
    }
}
