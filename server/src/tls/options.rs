//! What the operator says of TLS.

use std::path::PathBuf;

use clap::Args;

/// How connections are encrypted.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Speak plain HTTP, for a proxy on this machine that ends TLS. Devices then prove their keys with sessions.
    #[arg(long, global = true, env = "OTA_NO_TLS", conflicts_with_all = ["tls_cert", "tls_key", "tls_name"])]
    pub no_tls: bool,

    /// Certificate to show, with its intermediates, in PEM. Read again when it changes. Without it the server shows one
    /// that its own authority signed; clients check it with ca.pem in the data directory.
    #[arg(long, global = true, env = "OTA_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's key, in PEM.
    #[arg(long, global = true, env = "OTA_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Another name or address of this server, for the certificate that its own authority signs. May be repeated.
    #[arg(
        long,
        global = true,
        env = "OTA_TLS_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        conflicts_with = "tls_cert"
    )]
    pub tls_name: Vec<String>,
}
