//! What the server is told at start. Every flag is also an environment variable, and each has a sane value of its own.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    auth::{Network, limits::Rate, oidc},
    serve::Pace,
    tls,
};

/// Who brings the schema up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Schema {
    /// This server, when it starts.
    Migrate,
    /// Somebody else; this server waits.
    Wait,
}

/// Where things are and how they are done.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Postgres to use. Without it the server runs a private one inside the data directory.
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        conflicts_with = "database_url_file"
    )]
    pub database_url: Option<String>,

    /// File with the URL of the Postgres to use: nobody then reads its password in the list of processes.
    #[arg(long, global = true, env = "OTA_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,

    /// File with the password for a Postgres whose URL has none. Files with secrets are read at the start.
    #[arg(long, global = true, env = "OTA_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,

    /// Who brings the database's schema up to date: this server when it starts, or somebody else (`ota-server migrate`), for
    /// whom it then waits.
    #[arg(long, global = true, env = "OTA_SCHEMA", default_value = "migrate")]
    pub schema: Schema,

    /// Folder for what the server keeps on this machine: the private Postgres, payloads, the first admin token.
    #[arg(long, global = true, env = "OTA_DATA_DIR", value_name = "DIR", default_value_os_t = default_data_dir())]
    pub data_dir: PathBuf,

    /// Address to serve gRPC on, for devices and, without --admin-listen, for operators too. Port 0 takes a free one.
    #[arg(long, global = true, env = "OTA_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,

    /// Address to serve the admin API on, so that networks which only devices need do not reach it. --listen then has the
    /// device API and nothing else has it. Encrypted as --listen is.
    #[arg(long, global = true, env = "OTA_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    /// Address for those who run the server, such as 0.0.0.0:9464: Prometheus metrics at /metrics and gRPC health checks
    /// (`readiness`, `liveness`), over plain HTTP. It answers before the database does. Nobody is asked who they are: let only
    /// Prometheus and the supervisor reach it. Without it there are no metrics.
    #[arg(long, global = true, env = "OTA_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    /// How connections are encrypted.
    #[command(flatten)]
    pub tls: tls::Options,

    /// Allow --no-tls on an address beyond this machine: credentials and software can then be read on the way. For
    /// networks in which nobody listens.
    #[arg(long, global = true, env = "OTA_INSECURE_LISTEN")]
    pub insecure_listen: bool,

    /// Proxies in front of the server, such as 10.0.0.0/8: these, and nobody else, are believed when they say for whom they
    /// call (x-forwarded-for, else forwarded). Without any, the event log has the proxies' own addresses.
    #[arg(long, global = true, env = "OTA_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Who vouches for people.
    #[command(flatten)]
    pub oidc: oidc::Options,

    /// How many devices may enrol from one address: so many at once, and as many again in each such time. Raise it where a
    /// whole fleet comes from behind one address.
    #[arg(long, global = true, env = "OTA_ENROLL_RATE", value_name = "CALLS/TIME", default_value = "5/1m")]
    pub enroll_rate: Rate,

    /// How often each device and each operator may call.
    #[arg(long, global = true, env = "OTA_CALL_RATE", value_name = "CALLS/TIME", default_value = "10000/10s")]
    pub call_rate: Rate,

    /// File with the token to make the first admin with, when the database has no token at all; read at no other time. Of the
    /// form that `ota-server admin-token` prints. Without it the server makes one and leaves it in the data directory.
    #[arg(long, global = true, env = "OTA_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// Where payloads are kept: a folder, or s3://bucket/prefix (with AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY in the environment). Default: `blobs` in the data directory.
    #[arg(long, global = true, env = "OTA_BLOB_STORE", value_name = "FOLDER|URL")]
    pub blob_store: Option<String>,

    /// File with the id of the access key for the object store, in the place of AWS_ACCESS_KEY_ID.
    #[arg(
        long,
        global = true,
        env = "OTA_S3_ACCESS_KEY_ID_FILE",
        value_name = "FILE",
        requires = "s3_secret_access_key_file"
    )]
    pub s3_access_key_id_file: Option<PathBuf>,

    /// File with the secret of the access key for the object store, in the place of AWS_SECRET_ACCESS_KEY.
    #[arg(
        long,
        global = true,
        env = "OTA_S3_SECRET_ACCESS_KEY_FILE",
        value_name = "FILE",
        requires = "s3_access_key_id_file"
    )]
    pub s3_secret_access_key_file: Option<PathBuf>,

    /// File with the key that seals the server's private keys in the database: 32 bytes, as they are, in base64 or in
    /// hexadecimal digits. All servers on a database need the same. Made at the first start. Default:
    /// `key-encryption-key` in the data directory.
    #[arg(long, global = true, env = "OTA_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Largest payload taken, in bytes.
    #[arg(long, global = true, env = "OTA_MAX_PAYLOAD_BYTES", value_name = "BYTES", default_value_t = 16 << 30)]
    pub max_payload_bytes: u64,

    /// How often devices check in when nothing wakes them, such as 30s or 5m.
    #[arg(long, global = true, env = "OTA_CHECK_IN_INTERVAL", value_name = "TIME", default_value = "5m", value_parser = parse_interval)]
    pub check_in_interval: Duration,

    /// How long a device's certificate is good. Devices renew theirs at half of it.
    #[arg(long, global = true, env = "OTA_DEVICE_CERTIFICATE_LIFETIME", value_name = "TIME", default_value = "7d",
          value_parser = parse_lifetime)]
    pub device_certificate_lifetime: Duration,

    /// Most connections to Postgres.
    #[arg(long, global = true, env = "OTA_DATABASE_CONNECTIONS", value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,

    /// How long a connection lasts before its client is asked to make another, a tenth more or less: behind a load
    /// balancer, replicas that start later get their share.
    #[arg(long, global = true, env = "OTA_MAX_CONNECTION_AGE", value_name = "TIME", default_value = "1h", value_parser = parse_age)]
    pub max_connection_age: Duration,

    /// How long a server that is told to stop says that it is not ready and goes on as before, so that load balancers send
    /// callers elsewhere. Told a second time, it waits no longer.
    #[arg(long, global = true, env = "OTA_STOP_DELAY", value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    pub stop_delay: Duration,

    /// How long a stopping server then waits for calls in progress.
    #[arg(long, global = true, env = "OTA_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = parse_time)]
    pub drain_timeout: Duration,

    /// How slowly clients may send and take. No flag: who is slower than the default has a dead connection.
    #[arg(skip)]
    pub pace: Pace,
}

impl Config {
    /// Whether the operator named a Postgres.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.database_url.is_some() || self.database_url_file.is_some()
    }

    /// Where the key is that seals the server's private keys.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.data_dir.join("key-encryption-key"))
    }
}

/// Refuses what would make devices hammer the server or vanish for a week.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_time(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be between 1s and 7d".to_owned())
    }
}

/// Refuses what would keep devices busy with renewing, or let a stolen key work for years.
fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_time(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600)).contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("must be between 1s and 366d".to_owned())
    }
}

/// Refuses what would keep clients busy with connecting.
fn parse_age(text: &str) -> Result<Duration, String> {
    let age = parse_time(text)?;
    if age >= Duration::from_secs(1) { Ok(age) } else { Err("must be at least 1s".to_owned()) }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 30s, 5m or 1h"))
}

/// `/var/lib/ota` for root, else a folder in the user's home as the XDG base directory specification has it.
fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/ota");
    }
    let home = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    home("XDG_DATA_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("ota")
}
