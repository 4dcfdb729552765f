//! What a machine asks before it is a device.

use ota_domain::secret::EnrollmentString;
use ota_domain::{DeviceId, Hardware, device};
use ota_proto::device::v1 as wire;
use ota_proto::device::v1::enrollment_service_client::EnrollmentServiceClient;
use ota_tls::{CertificateDer, IdentitySlot, ServerTrust};
use tonic::transport::Channel;

use super::channel::{TlsClock, Way};
use super::{CALL_TIMEOUT, Error, answered, timed};
use crate::clock::Clock;
use crate::identity::{Certificate, DeviceKey};
use crate::server_url::ServerUrl;

/// What the pin of an enrolment string is made from, as the server tells it.
#[derive(Debug, Clone)]
pub struct Anchors {
    /// The certificate of the authority that signs servers and devices.
    pub authority: CertificateDer<'static>,
    /// The image repository's root, as signed.
    pub image_root: Vec<u8>,
    /// The director repository's root, as signed.
    pub director_root: Vec<u8>,
}

/// What the server made of a machine.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The device that it is.
    pub device: DeviceId,
    /// Its admission.
    pub state: device::State,
    /// Its certificate.
    pub certificate: Certificate,
}

/// Asks a server for its anchors. They are worth nothing before the pin has vouched for them.
pub async fn anchors(
    server: &ServerUrl,
    trust: ServerTrust,
    clock: &Clock,
    string: &EnrollmentString,
) -> Result<Anchors, Error> {
    let request = timed(wire::GetTrustAnchorsRequest { token_id: string.token_id() });
    let mut service = EnrollmentServiceClient::new(nobodys_channel(server, trust, clock)?);
    let answer = answered(CALL_TIMEOUT, service.get_trust_anchors(request)).await?;
    Ok(Anchors {
        authority: answer.certificate_authority.to_vec().into(),
        image_root: answer.image_root.to_vec(),
        director_root: answer.director_root.to_vec(),
    })
}

/// Asks to join the fleet. Sends the secret: the server has to be verified. Safe to repeat with the same key.
pub async fn enroll(
    server: &ServerUrl,
    trust: ServerTrust,
    clock: &Clock,
    string: &EnrollmentString,
    key: &DeviceKey,
    machine: (&Hardware, &str),
) -> Result<Joined, Error> {
    let (hardware, hardware_id) = machine;
    let request = timed(wire::EnrollRequest {
        token_id: string.token_id(),
        secret: string.secret(),
        hardware: hardware.to_string(),
        hardware_id: hardware_id.to_owned(),
        certificate_request: key.certificate_request()?.into(),
    });
    let mut service = EnrollmentServiceClient::new(nobodys_channel(server, trust, clock)?);
    let answer = answered(CALL_TIMEOUT, service.enroll(request)).await?;
    let device = answer.device.parse().map_err(|_| Error::nonsense("a device id that is none"))?;
    let state = match answer.state() {
        wire::EnrollmentState::Pending => device::State::Pending,
        wire::EnrollmentState::Accepted => device::State::Accepted,
        wire::EnrollmentState::Unspecified => return Err(Error::nonsense("no enrolment state")),
    };
    let chain = answer.certificate_chain.into_iter().map(|certificate| certificate.to_vec().into()).collect();
    let certificate = Certificate::read(chain, key, device, clock.now());
    let certificate = certificate.map_err(|error| Error::nonsense(error.to_string()))?;
    Ok(Joined { device, state, certificate })
}

/// Opens a channel for a caller without an identity.
fn nobodys_channel(server: &ServerUrl, trust: ServerTrust, clock: &Clock) -> Result<Channel, Error> {
    Ok(Way::new(server, trust, IdentitySlot::default(), TlsClock::new(clock.clone()))?.channel())
}
