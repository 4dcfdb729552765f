//! Why a server does not start, and what can be done about it.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    app, auth::oidc, blobs, db::schema::SchemaError, keys, postgres, secret_file::SecretFileError, tls::TlsError,
};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address beyond this machine without encryption.
    #[error("{0} is reachable from other machines, and nothing is encrypted")]
    ListenInsecure(SocketAddr),
    /// The database URL cannot be read.
    #[error("the database URL is not valid")]
    DatabaseUrl(#[source] sqlx::Error),
    /// A password for a Postgres that is private, or whose URL has one.
    #[error("--database-password-file goes with a database URL that has no password")]
    DatabasePassword,
    /// A file with a secret is no good.
    #[error("a secret cannot be read")]
    Secret(#[from] SecretFileError),
    /// Waiting for somebody else to make the schema of a private Postgres.
    #[error("--schema wait needs a Postgres that others reach")]
    SchemaOfNobody,
    /// The data directory cannot be made or used.
    #[error("the data directory {} cannot be used", .0.display())]
    DataDir(PathBuf, #[source] io::Error),
    /// The private Postgres does not start.
    #[error("the private Postgres does not start")]
    Postgres(#[source] postgres::StartError),
    /// The schema is not what this server needs.
    #[error("the database's schema is not what this server needs")]
    Schema(#[source] SchemaError),
    /// The server's keys are not to be had.
    #[error("the server's keys are not to be had")]
    Keys(#[source] keys::OpenError),
    /// The blob store cannot be opened.
    #[error("the blob store {0} cannot be opened")]
    Blobs(String, #[source] blobs::OpenError),
    /// The blob store is there and not for this server.
    #[error("payloads can be neither stored nor read")]
    BlobsRefused(#[source] blobs::Refusal),
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The first admin token cannot be made.
    #[error("the first admin token cannot be made")]
    FirstAdmin(#[source] app::Error),
    /// What the file holds is no token.
    #[error("--admin-token-file: {} holds no API token", .0.display())]
    AdminToken(PathBuf),
    /// Connections cannot be encrypted.
    #[error("connections cannot be encrypted")]
    Tls(#[source] TlsError),
    /// The identity provider cannot be used as configured.
    #[error("people cannot log in at the identity provider")]
    Oidc(#[source] oidc::ProviderError),
    /// The services cannot be put together.
    #[error("the services cannot be put together")]
    Services(#[source] tonic_reflection::server::Error),
    /// Told to stop before it had started.
    #[error("stopped while starting")]
    Stopped,
}

impl StartError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ListenInsecure(_) => Some(
                "leave --no-tls out, listen on 127.0.0.1, or say --insecure-listen on a network in which nobody listens",
            ),
            Self::DatabaseUrl(_) => Some("write postgres://user:password@host:5432/database"),
            Self::DataDir(..) => Some("name a folder of your own with --data-dir"),
            Self::Postgres(_) => Some("or use a Postgres of your own with --database-url"),
            Self::DatabasePassword => {
                Some("name the Postgres with --database-url or --database-url-file, without a password")
            }
            Self::Secret(_) => {
                Some("the file holds the secret and nothing else; this account has to be able to read it")
            }
            Self::SchemaOfNobody => Some("name it with --database-url, or leave --schema out"),
            Self::Schema(_) => {
                Some("a database that a newer server has used needs that server's version or a newer one")
            }
            Self::AdminToken(_) => Some(
                "write ota_<32 hexadecimal digits, lower case>_<32 random bytes in base58>, as `ota-server admin-token` prints it",
            ),
            Self::Keys(error) => error.hint(),
            Self::Blobs(..) => Some("--blob-store takes a folder or s3://bucket/prefix"),
            Self::BlobsRefused(refusal) => Some(refusal.hint()),
            Self::Listen(..) => Some("another server may be running; choose another address"),
            Self::Tls(error) => error.hint(),
            Self::Oidc(error) => error.hint(),
            Self::FirstAdmin(_) | Self::Services(_) | Self::Stopped => None,
        }
    }
}
