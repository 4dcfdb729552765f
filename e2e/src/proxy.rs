//! A TCP proxy that counts: what really went over the wire, whoever was killed meanwhile.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
};

/// Forwards connections to a server, and counts. Ends when dropped.
#[derive(Debug)]
pub struct CountingProxy {
    address: SocketAddr,
    counts: Counts,
    _tasks: JoinSet<()>,
}

/// Bytes, as they were handed to the system.
#[derive(Debug, Clone)]
struct Counts {
    down: watch::Sender<u64>,
    up: watch::Sender<u64>,
    /// When so many bytes have come down, no more come.
    most_down: watch::Sender<u64>,
}

impl CountingProxy {
    /// Starts one in front of `server`, which need not be there yet.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let most_down = watch::Sender::new(u64::MAX);
        let counts = Counts { down: watch::Sender::new(0), up: watch::Sender::new(0), most_down };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, counts.clone()));
        Self { address, counts, _tasks: tasks }
    }

    /// Returns where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns how many bytes came from the server.
    #[must_use]
    pub fn down(&self) -> u64 {
        *self.counts.down.borrow()
    }

    /// Returns how many bytes went to the server.
    #[must_use]
    pub fn up(&self) -> u64 {
        *self.counts.up.borrow()
    }

    /// Lets this many bytes and no more come from the server, a piece more or less; `u64::MAX` lets everything come again.
    pub fn let_come_down(&self, bytes: u64) {
        self.counts.most_down.send_replace(bytes);
    }

    /// Waits until at least so many bytes have come from the server.
    ///
    /// # Panics
    /// Never: the sender lives as long as the proxy.
    pub async fn came_down(&self, bytes: u64) {
        self.counts.down.subscribe().wait_for(|down| *down >= bytes).await.expect("the sender is in self");
    }

    /// Waits until at least so many bytes have gone to the server.
    ///
    /// # Panics
    /// Never: the sender lives as long as the proxy.
    pub async fn went_up(&self, bytes: u64) {
        self.counts.up.subscribe().wait_for(|up| *up >= bytes).await.expect("the sender is in self");
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, counts: Counts) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let counts = counts.clone();
        connections.spawn(async move {
            // An end that breaks is what this is for.
            forward(client, server, &counts).await.ok();
        });
    }
}

/// Until either end closes: a half-closed connection is of no use to HTTP/2.
async fn forward(mut client: TcpStream, server: SocketAddr, counts: &Counts) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        ended = copy(from_client, to_server, &counts.up, None) => ended,
        ended = copy(from_server, to_client, &counts.down, Some(&counts.most_down)) => ended,
    }
}

/// Passes on what comes until nothing does, and counts it; no more than `most` of all that is counted.
pub(crate) async fn copy(
    mut from: tcp::ReadHalf<'_>,
    mut to: tcp::WriteHalf<'_>,
    count: &watch::Sender<u64>,
    most: Option<&watch::Sender<u64>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if let Some(most) = most {
            // Fails when the sender is gone, which `most` borrows.
            most.subscribe().wait_for(|most| *count.borrow() < *most).await.ok();
        }
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        count.send_modify(|total| *total += length as u64);
    }
}
