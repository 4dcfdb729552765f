//! How a device proves who it is: certificates for its key, and sessions where nobody can show a certificate.

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, EnrollTokenId, secret::SessionToken};
use ota_trust::pin::Pin;
use rustls::pki_types::CertificateDer;
use sqlx::PgConnection;

use super::{App, Error, Reason, Result};
use crate::{
    auth::session::{ChallengeFault, signed_bytes},
    ca::{DeviceKey, Issued},
    db::{
        self,
        enroll_token::RootVersions,
        trust_metadata::{self, Repository},
    },
    fleet::Record,
};

/// What the pin of an enrolment string is made from.
#[derive(Debug)]
pub struct TrustAnchors {
    /// Certificate of the authority that signs servers and devices.
    pub certificate_authority: CertificateDer<'static>,
    /// The image repository's root, as signed.
    pub image_root: Vec<u8>,
    /// The director repository's root, as signed.
    pub director_root: Vec<u8>,
}

/// What a machine compares with its token's pin. For a token that does not exist the answer is today's, so that nobody
/// learns which there are.
///
/// # Errors
/// When the database does not answer.
pub async fn trust_anchors(app: &App, token: EnrollTokenId) -> Result<TrustAnchors> {
    let mut connection = app.pool.acquire().await?;
    let versions = match db::enroll_token::root_versions(&mut connection, token).await? {
        Some(versions) => versions,
        None => current_roots(&mut connection).await?,
    };
    anchors(app, &mut connection, versions).await
}

/// Versions of the newest roots.
async fn current_roots(connection: &mut PgConnection) -> Result<RootVersions> {
    let newest = trust_metadata::versions(connection).await?;
    Ok(RootVersions { image: newest.image_root, director: newest.director_root })
}

async fn anchors(app: &App, connection: &mut PgConnection, versions: RootVersions) -> Result<TrustAnchors> {
    Ok(TrustAnchors {
        certificate_authority: app.keys.authority().certificate().clone(),
        image_root: root(connection, Repository::Image, versions.image).await?,
        director_root: root(connection, Repository::Director, versions.director).await?,
    })
}

async fn root(connection: &mut PgConnection, repository: Repository, version: u64) -> Result<Vec<u8>> {
    match trust_metadata::find(connection, repository, "root", version).await? {
        Some(root) => Ok(root.document),
        None => Err(Error::internal(format!("the {} repository has no root {version}", repository.as_str()))),
    }
}

/// Versions of the roots that a token made now is pinned to, and the pin.
pub(super) async fn pin(app: &App, connection: &mut PgConnection) -> Result<(RootVersions, Pin)> {
    let versions = current_roots(connection).await?;
    let anchors = anchors(app, connection, versions).await?;
    let pin = Pin::of(app.keys.authority().public_key(), &anchors.image_root, &anchors.director_root);
    Ok((versions, pin))
}

/// Gives a device a certificate for its key and notes until when it is good.
pub(super) async fn certify(
    app: &App,
    connection: &mut PgConnection,
    device: DeviceId,
    key: &DeviceKey,
    now: DateTime<Utc>,
) -> Result<Issued> {
    let lifetime = app.settings.device_certificate_lifetime;
    let issued = app.keys.authority().device_certificate(device, key, rand::random(), now, lifetime);
    let issued = issued.map_err(Error::internal)?;
    db::device::set_certificate_expiry(connection, device, issued.not_after).await?;
    Ok(issued)
}

/// Gives a device a fresh certificate for the key it enrolled with.
///
/// # Errors
/// `Invalid` when the request is for another key.
pub async fn renew(app: &App, record: &Record, key: &DeviceKey, now: DateTime<Utc>) -> Result<Issued> {
    if record.key_sha256 != Some(key.sha256()) {
        return Err(Error::invalid("certificate_request", "must be for the key that the device enrolled with"));
    }
    certify(app, &mut *app.pool.acquire().await?, record.id, key, now).await
}

/// Makes a challenge for [`create_session`].
#[must_use]
pub fn create_challenge(app: &App, now: DateTime<Utc>) -> Vec<u8> {
    app.keys.session().challenge(rand::random(), now)
}

/// Begins a session for whoever signed a challenge with the device's key. Whether the device is welcome is asked when the
/// session is used.
///
/// # Errors
/// `CHALLENGE_EXPIRED`; `CREDENTIAL_INVALID` alike for an unknown device, a wrong signature and a challenge that is none.
pub async fn create_session(
    app: &App,
    device: DeviceId,
    challenge: &[u8],
    signature: &[u8],
    now: DateTime<Utc>,
) -> Result<SessionToken> {
    let invalid = || Error::refused(Reason::CredentialInvalid, "no such device, or the proof is wrong");
    let sessions = app.keys.session();
    sessions.check_challenge(challenge, now).map_err(|fault| match fault {
        ChallengeFault::Invalid => invalid(),
        ChallengeFault::Expired => {
            Error::refused(Reason::ChallengeExpired, "the challenge is older than two minutes; ask for another")
        }
    })?;
    // Not from memory, which nobody shall fill who has proven nothing.
    let key = db::device::key(&mut *app.pool.acquire().await?, device).await?;
    match key {
        Some(key) if key.signed(&signed_bytes(device, challenge), signature) => Ok(sessions.session(device, now)),
        Some(_) | None => Err(invalid()),
    }
}
