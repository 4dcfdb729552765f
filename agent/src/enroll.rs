//! Joins a fleet: makes a key, checks that the server is the one the enrolment string is for, then sends the secret.
//!
//! Safe to repeat after a kill at any point and after an answer that got lost: the key is kept before the server hears
//! of it, the enrolment after everything it needs.

use ota_domain::secret::EnrollmentString;
use ota_domain::{DeviceId, Hardware};
use ota_tls::{SeenCertificates, ServerTrust};
use ota_trust::pin::Pin;

use crate::agent::{may_speak_to, trust};
use crate::client::{self, Anchors};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::identity::{self, DeviceKey, Enrollment};
use crate::server_url::ServerUrl;
use crate::trust_store;

/// Why the machine did not join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is another machine and the connection is not encrypted.
    #[error("{server} is another machine, and http:// is not encrypted")]
    Insecure {
        /// The server.
        server: ServerUrl,
    },
    /// The data directory is another device's.
    #[error(
        "this data directory belongs to device {device} already; to enrol another device, name another with --data-dir"
    )]
    Taken {
        /// That device.
        device: DeviceId,
    },
    /// The pin does not fit. The secret was not sent.
    #[error("{server} is not the server that the enrolment string is for; it was not told the string's secret")]
    WrongPin {
        /// The server.
        server: ServerUrl,
    },
    /// The identity cannot be read or kept.
    #[error(transparent)]
    Identity(identity::Error),
    /// What the device is to trust cannot be kept, or is no root.
    #[error(transparent)]
    Trust(trust_store::Error),
    /// The certificates to check the server with cannot be used.
    #[error(transparent)]
    Tls(ota_tls::Error),
    /// The server cannot be asked, or does not answer as it should.
    #[error("cannot enrol at {server}")]
    Client {
        /// The server.
        server: ServerUrl,
        /// What came back.
        #[source]
        source: client::Error,
    },
}

/// What a machine says of itself.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its hardware type.
    pub hardware: Hardware,
    /// What its maker calls it. Empty when it does not know.
    pub hardware_id: String,
}

/// Enrols the machine at a server and keeps what came of it.
pub async fn enroll(
    data: &DataDir,
    server: ServerUrl,
    config: &Config,
    string: &EnrollmentString,
    machine: Machine,
    clock: &Clock,
) -> Result<Enrollment, Error> {
    if !may_speak_to(&server, config) {
        return Err(Error::Insecure { server });
    }
    let path = data.path();
    let known = Enrollment::load(path).map_err(Error::Identity)?;
    if let Some(Enrollment { device, .. }) = known
        && DeviceKey::load(path).map_err(Error::Identity)?.is_none_or(|key| key.token != string.token)
    {
        return Err(Error::Taken { device });
    }
    let failed = |source| Error::Client { server: server.clone(), source };
    let key = DeviceKey::for_token(path, string.token).map_err(Error::Identity)?;

    // Whoever answers may say anything here: only what the pin fits counts.
    let ca_file = config.ca_file.as_deref();
    let nobody = || ServerTrust::Pinning(SeenCertificates::default());
    let believed = trust(ca_file, nobody).map_err(Error::Tls)?;
    let anchors = client::anchors(&server, believed, clock, string).await.map_err(failed)?;
    if pin_of(&anchors) != Some(Pin(string.pin)) {
        return Err(Error::WrongPin { server });
    }
    identity::save_authority(path, &anchors.authority).map_err(Error::Identity)?;

    let believed = trust(ca_file, || ServerTrust::Authority(anchors.authority.clone())).map_err(Error::Tls)?;
    let Machine { hardware, hardware_id } = machine;
    let joined = client::enroll(&server, believed, clock, string, &key, (&hardware, &hardware_id));
    let joined = joined.await.map_err(failed)?;
    joined.certificate.save(path).map_err(Error::Identity)?;
    trust_store::begin(path, joined.device, &hardware, &anchors.image_root, &anchors.director_root)
        .map_err(Error::Trust)?;
    let enrollment = Enrollment {
        device: joined.device,
        server,
        hardware,
        state: joined.state,
        enrolled_at: clock.now(),
        ca_file: ca_file.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_owned())),
    };
    enrollment.save(path).map_err(Error::Identity)?;
    Ok(enrollment)
}

fn pin_of(anchors: &Anchors) -> Option<Pin> {
    let (_, authority) = x509_parser::parse_x509_certificate(&anchors.authority).ok()?;
    Some(Pin::of(authority.public_key().raw, &anchors.image_root, &anchors.director_root))
}
