//! What can go wrong with a cluster, one case for each thing attempted.

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

use super::binaries::FindError;

/// Why the cluster did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No fitting PostgreSQL is installed.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A folder or file of the cluster cannot be prepared.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// What was being made, opened or given away.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Another server has the folder.
    #[error("{} is in use by another ota-server ({by}); stop it, or give this one its own --data-dir", folder.display())]
    Locked {
        /// The cluster's folder.
        folder: PathBuf,
        /// What the other one says it is.
        by: String,
    },
    /// Root lends an account that cannot get there.
    #[error(
        "Postgres cannot run as root, and as user {account} it may not enter {}: allow that (chmod o+x), use another \
         --data-dir, or start the server as another user", closed.display()
    )]
    Closed {
        /// The account.
        account: String,
        /// The first folder on the way that is closed to it.
        closed: PathBuf,
    },
    /// The folder for the socket could let others in.
    #[error("{} is not a folder that only user id {uid} may enter; remove it", folder.display())]
    SocketFolder {
        /// The folder.
        folder: PathBuf,
        /// Who should own it.
        uid: u32,
    },
    /// A Postgres from before does not go away.
    #[error("a Postgres that a killed server left behind (process {pid}) still serves {}", data.display())]
    Orphan {
        /// Its process.
        pid: i32,
        /// Its data.
        data: PathBuf,
    },
    /// A program cannot be run at all.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}):\n{log}")]
    Init {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        log: String,
    },
    /// Postgres ended before it was ready.
    #[error("Postgres did not start ({status}):\n{log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// Postgres runs, but does not answer.
    #[error("Postgres is ready, but cannot be reached on {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// The database could not be made.
    #[error("cannot create the database")]
    CreateDatabase(#[source] sqlx::Error),
}

/// Why the cluster did not stop.
#[derive(Debug, Error)]
pub enum StopError {
    /// Its end cannot be waited for.
    #[error("cannot wait for Postgres to end")]
    Wait(#[source] io::Error),
    /// It neither shut down nor could be made to.
    #[error("Postgres did not end, its data is in {}", data.display())]
    Stays {
        /// Its data.
        data: PathBuf,
    },
}
