//! The first talk to a server whose authority is not known yet. Nothing secret is said in it.

use std::sync::Arc;

use ota_tls::{Connector, DefaultTimeProvider, IdentitySlot, SeenCertificates, ServerTrust};

use crate::{
    authority::{Authority, Pin},
    client,
    consent::Asker,
    error::Failure,
    server_url::ServerUrl,
};

/// Asks a server for its authority, without believing it yet.
pub async fn authority_shown(server: &ServerUrl) -> Result<Authority, Failure> {
    let (connector, seen) = unbelieved(server)?;
    client::open(server, &connector).await?;
    Authority::of_chain(seen.chain()).ok_or_else(|| {
        Failure::failed(format!("{server} shows a certificate that another authority than the server's own signed"))
            .hint("name the file with that authority's certificate: --ca-file FILE")
    })
}

/// Makes the way to a server whoever it is, and the place where what it shows will be. For what anybody may hear.
pub fn unbelieved(server: &ServerUrl) -> Result<(Connector, SeenCertificates), Failure> {
    let seen = SeenCertificates::default();
    let trust = ServerTrust::Pinning(seen.clone());
    let connector = Connector::tls(server.uri(), trust, IdentitySlot::default(), Arc::new(DefaultTimeProvider));
    Ok((connector.map_err(setup)?, seen))
}

/// Finds the authority with this pin.
pub async fn pinned(server: &ServerUrl, pin: Pin) -> Result<Authority, Failure> {
    let shown = authority_shown(server).await?;
    check(&shown, pin, server)?;
    Ok(shown)
}

/// Compares an authority with a pin.
pub fn check(authority: &Authority, pin: Pin, server: &ServerUrl) -> Result<(), Failure> {
    if authority.pin() == Some(pin) {
        return Ok(());
    }
    Err(Failure::failed(format!("{server} is not the server that the pin stands for"))
        .details([format!("expected {pin}"), format!("found {}", authority.describe())])
        .hint("this is another server, or somebody is between you and it: nothing was sent"))
}

/// Shows a person the authority of a server, and asks whether it is the right one. Fails when nobody is there to ask.
pub async fn asked(server: &ServerUrl, asker: Asker) -> Result<Authority, Failure> {
    let shown = authority_shown(server).await?;
    let name = shown.describe();
    if !asker.may_ask() {
        return Err(unknown(server).details([format!("it shows {name}")]));
    }
    let question = format!(
        "The certificate of {server} is signed by {name}. It is the right server if that is what \
         `otactl context show` says elsewhere, or the SHA-256 of the key in its ca.pem. Trust it?"
    );
    asker.confirm(&question, false)?;
    Ok(shown)
}

/// Makes the failure for a server whose authority nobody named.
pub fn unknown(server: &ServerUrl) -> Failure {
    Failure::usage(format!("nothing says which certificate of {server} to believe"))
        .hint("say --ca-file FILE with the ca.pem of the server's data directory, or --pin SHA256")
}

/// Makes the failure for what cannot even be tried.
pub(crate) fn setup(error: ota_tls::Error) -> Failure {
    Failure::because("cannot set up the connection", &error)
}
