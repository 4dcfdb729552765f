//! What the operator says of TLS.

use std::path::PathBuf;

use clap::Args;

use super::TlsError;
use crate::{
    auth::forwarded::{Format, Forwarding},
    ca::{Authority, ProxyJudge, ProxyName},
};

/// How connections are encrypted.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Speak plain HTTP, for a proxy on this machine that ends TLS. Devices then prove their keys with sessions.
    #[arg(long, global = true, env = "OTA_NO_TLS", conflicts_with_all = ["tls_cert", "tls_key", "tls_name", "trusted_proxy_san"])]
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

    /// Name in the certificate of a proxy that ends TLS and calls over TLS with a certificate of its own: a host name, an
    /// address or a URI. Such a proxy, and nobody else, is believed when it passes on which certificate a device showed it;
    /// the certificate is then checked here as always. May be repeated.
    #[arg(
        long,
        global = true,
        env = "OTA_TRUSTED_PROXY_SAN",
        value_name = "SAN",
        value_delimiter = ',',
        requires = "trusted_proxy_ca"
    )]
    pub trusted_proxy_san: Vec<ProxyName>,

    /// The authorities that sign such proxies' certificates, in PEM. Never this server's own. Read at the start.
    #[arg(long, global = true, env = "OTA_TRUSTED_PROXY_CA", value_name = "FILE", requires = "trusted_proxy_san")]
    pub trusted_proxy_ca: Option<PathBuf>,

    /// The header in which such proxies pass on what they were shown: x-forwarded-client-cert (Envoy), ssl-client-cert
    /// (ingress-nginx) or x-forwarded-tls-client-cert (Traefik). They have to replace or remove it when a caller sends it.
    #[arg(
        long,
        global = true,
        env = "OTA_TRUSTED_PROXY_HEADER",
        value_name = "HEADER",
        default_value = Format::Envoy.header()
    )]
    pub trusted_proxy_header: Format,
}

impl Options {
    /// What is done with certificates that proxies pass on; `None` when no proxy is trusted. `own` signs devices.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn forwarding(&self, own: &Authority) -> Result<Option<Forwarding>, TlsError> {
        if self.trusted_proxy_san.is_empty() {
            return Ok(None);
        }
        Ok(Some(Forwarding::new(self.trusted_proxy_header, own.certificate())?))
    }

    /// Which proxies are trusted; `None` when none is. `own` signs devices.
    pub(super) fn proxies(&self, own: &Authority) -> Result<Option<ProxyJudge>, TlsError> {
        let Some(file) = &self.trusted_proxy_ca else { return Ok(None) };
        let authorities = ota_tls::certificates(file).map_err(TlsError::ProxyAuthorityFile)?;
        let judge = ProxyJudge::new(&authorities, self.trusted_proxy_san.clone(), own.public_key());
        judge.map(Some).map_err(|error| TlsError::ProxyAuthority(file.clone(), error))
    }
}
