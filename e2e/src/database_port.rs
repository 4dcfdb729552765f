//! A TCP port that leads to a test's database, for a server that cannot reach a Unix socket.

use std::{io, path::PathBuf};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};

/// Forwards connections to a database. Ends when dropped.
#[derive(Debug)]
pub struct DatabasePort {
    port: u16,
    user: String,
    database: String,
    _tasks: JoinSet<()>,
}

impl DatabasePort {
    /// Opens one.
    ///
    /// # Panics
    /// When there is no port, or the options name no database.
    pub async fn open(options: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Place::of(options)));
        let database = options.get_database().expect("the options name a database").to_owned();
        Self { port, user: options.get_username().to_owned(), database, _tasks: tasks }
    }

    /// Returns the database's address, by this name of this machine.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        format!("postgres://{}@{host}:{}/{}", self.user, self.port, self.database)
    }
}

/// Where the database really listens.
#[derive(Debug, Clone)]
enum Place {
    Socket(PathBuf),
    Host(String, u16),
}

impl Place {
    fn of(options: &PgConnectOptions) -> Self {
        match options.get_socket() {
            Some(folder) => Self::Socket(folder.join(format!(".s.PGSQL.{}", options.get_port()))),
            None => Self::Host(options.get_host().to_owned(), options.get_port()),
        }
    }

    async fn forward(&self, mut client: TcpStream) -> io::Result<(u64, u64)> {
        match self {
            Self::Socket(file) => copy_bidirectional(&mut client, &mut UnixStream::connect(file).await?).await,
            Self::Host(host, port) => {
                let mut server = TcpStream::connect((host.as_str(), *port)).await?;
                copy_bidirectional(&mut client, &mut server).await
            }
        }
    }
}

async fn accept(listener: TcpListener, place: Place) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let place = place.clone();
        connections.spawn(async move {
            // A server that is killed breaks its connections, and the database may be gone.
            place.forward(client).await.ok();
        });
    }
}
