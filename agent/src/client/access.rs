//! The device's access to its server: shows its certificate, or a session where nobody can see certificates, and keeps
//! both fresh.
//!
//! What the server says about a credential is acted upon here and the call made once more, so that callers never learn of
//! a certificate that ran out or a session that ended. Everything else they are told.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ota_domain::DeviceId;
use ota_proto::convert;
use ota_proto::device::v1 as wire;
use ota_proto::device::v1::ErrorReason;
use ota_proto::device::v1::enrollment_service_client::EnrollmentServiceClient;
use ota_tls::{Identity, IdentitySlot, ServerTrust};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::channel::{TlsClock, Way};
use super::{CALL_TIMEOUT, Error, answered, timed};
use crate::clock::Clock;
use crate::identity::{Certificate, DeviceKey, renewal_at, renewal_fraction};
use crate::server_url::ServerUrl;

/// A channel that adds the session, if there is one.
pub(super) type Transport = InterceptedService<Channel, Authorization>;

/// Adds the session to every call.
#[derive(Debug, Clone)]
pub(super) struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What a device needs for its access.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Where renewed certificates are kept.
    pub data: PathBuf,
    /// The device.
    pub device: DeviceId,
    /// Its key.
    pub key: DeviceKey,
    /// Its certificate.
    pub certificate: Certificate,
}

/// One device's access to its server.
#[derive(Debug)]
pub struct Access {
    credentials: Credentials,
    is_tls: bool,
    clock: TlsClock,
    way: Way,
    slot: IdentitySlot,
    certificate: RwLock<Held>,
    link: RwLock<Link>,
    /// Held by whoever changes certificate or link, so that one does it for all.
    changing: Mutex<()>,
}

/// The certificate, and how much of its life passes before it is renewed.
#[derive(Debug, Clone)]
struct Held {
    certificate: Certificate,
    fraction: f64,
}

/// How calls are made at the moment.
#[derive(Debug, Clone)]
struct Link {
    channel: Channel,
    proof: Proof,
    generation: u64,
}

#[derive(Debug, Clone)]
enum Proof {
    /// The handshake's certificate.
    Certificate,
    /// A session, to be begun with the first call.
    Session(Option<Session>),
}

#[derive(Debug, Clone)]
struct Session {
    authorization: MetadataValue<Ascii>,
    begun_at: Instant,
    lifetime: Duration,
}

impl Session {
    fn is_over(&self) -> bool {
        self.begun_at.elapsed() >= self.lifetime
    }

    /// A third of its life is left to get another.
    fn is_ending(&self) -> bool {
        self.begun_at.elapsed() >= self.lifetime.mul_f64(2.0 / 3.0)
    }
}

impl Link {
    fn transport(&self) -> Transport {
        let authorization = match &self.proof {
            Proof::Certificate | Proof::Session(None) => None,
            Proof::Session(Some(session)) => Some(session.authorization.clone()),
        };
        InterceptedService::new(self.channel.clone(), Authorization(authorization))
    }

    /// Tells whether a call that was refused wants another session, or one at all.
    fn wants_session(&self, error: &Error) -> bool {
        match self.proof {
            // Something between ends TLS, and the server never saw the certificate.
            Proof::Certificate => error.reason() == Some(ErrorReason::CredentialMissing),
            Proof::Session(_) => error.reason() == Some(ErrorReason::CredentialInvalid),
        }
    }
}

impl Access {
    /// Prepares the access; nothing is sent before the first call.
    pub fn new(server: &ServerUrl, trust: ServerTrust, credentials: Credentials, clock: Clock) -> Result<Self, Error> {
        let certificate = credentials.certificate.clone();
        let slot = if server.is_tls() {
            IdentitySlot::from(Identity::new(certificate.chain.clone(), credentials.key.to_der())?)
        } else {
            // Nobody would see it.
            IdentitySlot::default()
        };
        let clock = TlsClock::new(clock);
        clock.raise(certificate.not_before);
        let way = Way::new(server, trust, slot.clone(), clock.clone())?;
        let proof = if server.is_tls() { Proof::Certificate } else { Proof::Session(None) };
        let link = Link { channel: way.channel(), proof, generation: 0 };
        let held = Held { certificate, fraction: renewal_fraction(&mut rand::rng()) };
        Ok(Self {
            credentials,
            is_tls: server.is_tls(),
            clock,
            way,
            slot,
            certificate: RwLock::new(held),
            link: RwLock::new(link),
            changing: Mutex::new(()),
        })
    }

    /// Makes a call, with a fresh credential where the server asks for one.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Transport) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let link = self.fresh_link().await?;
        match call(link.transport()).await {
            Err(error) if self.overcome(&link, &error).await? => call(self.link().transport()).await,
            end => end,
        }
    }

    /// Returns how long until the certificate is to be renewed; nothing when it is due.
    pub fn renewal_in(&self) -> Duration {
        let Held { certificate, fraction } = self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone();
        (renewal_at(&certificate, fraction) - self.clock.now()).to_std().unwrap_or_default()
    }

    /// Gets a fresh certificate for the device's key, with which the next connection is made.
    pub async fn renew(&self) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        self.renew_certificate().await
    }

    fn link(&self) -> Link {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_link(&self, change: impl FnOnce(&mut Link)) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut link);
        link.generation += 1;
    }

    /// Returns the link, with a session that lasts for a while if there has to be one.
    async fn fresh_link(&self) -> Result<Link, Error> {
        let link = self.link();
        let (is_ending, is_over) = match &link.proof {
            Proof::Certificate => return Ok(link),
            Proof::Session(None) => (true, true),
            Proof::Session(Some(session)) => (session.is_ending(), session.is_over()),
        };
        if !is_ending {
            return Ok(link);
        }
        let _changing = self.changing.lock().await;
        if self.link().generation == link.generation
            && let Err(error) = self.begin_session().await
        {
            if is_over {
                return Err(error);
            }
            tracing::debug!("cannot get another session yet: {error}");
        }
        Ok(self.link())
    }

    /// Does what a refusal asks for. Returns whether it makes sense to call again.
    async fn overcome(&self, used: &Link, error: &Error) -> Result<bool, Error> {
        let is_expired = error.reason() == Some(ErrorReason::CertificateExpired);
        if !is_expired && !used.wants_session(error) {
            return Ok(false);
        }
        let _changing = self.changing.lock().await;
        if self.link().generation != used.generation {
            // Somebody else has done it.
            return Ok(true);
        }
        if is_expired {
            tracing::info!("the certificate has expired; renewing it");
            self.renew_certificate().await?;
        } else {
            self.begin_session().await?;
        }
        Ok(true)
    }

    /// Proves the key to the server. To be called by whoever holds `changing`.
    async fn begin_session(&self) -> Result<(), Error> {
        let channel = self.link().channel;
        let mut service = EnrollmentServiceClient::new(channel);
        let request = timed(wire::CreateChallengeRequest {});
        let challenge = answered(CALL_TIMEOUT, service.create_challenge(request)).await?.challenge;
        let device = self.credentials.device;
        let signature = self.credentials.key.answer(device, &challenge)?;
        let request = wire::CreateSessionRequest { device: device.to_string(), challenge, signature: signature.into() };
        // Counted from before the answer: never longer than the server means.
        let begun_at = Instant::now();
        let answer = answered(CALL_TIMEOUT, service.create_session(timed(request))).await?;
        let mut authorization = MetadataValue::try_from(format!("Bearer {}", answer.token))
            .map_err(|_| Error::nonsense("a session that no header can carry"))?;
        authorization.set_sensitive(true);
        let lifetime = answer.lifetime.as_ref().and_then(convert::from_duration).unwrap_or_default();
        tracing::debug!(lifetime_ms = lifetime.as_millis() as u64, "the server gave a session");
        let session = Session { authorization, begun_at, lifetime };
        self.set_link(|link| link.proof = Proof::Session(Some(session)));
        Ok(())
    }

    /// To be called by whoever holds `changing`.
    async fn renew_certificate(&self) -> Result<(), Error> {
        let link = self.link();
        if let Proof::Session(session) = &link.proof
            && session.as_ref().is_none_or(Session::is_over)
        {
            self.begin_session().await?;
        }
        let link = self.link();
        let chain = match self.ask_for_certificate(&link).await {
            Err(error) if link.wants_session(&error) => {
                self.begin_session().await?;
                self.ask_for_certificate(&self.link()).await?
            }
            end => end?,
        };
        let Credentials { data, device, key, .. } = &self.credentials;
        let certificate = Certificate::read(chain, key, *device, self.clock.now())
            .map_err(|error| Error::nonsense(error.to_string()))?;
        let identity = Identity::new(certificate.chain.clone(), key.to_der())?;
        if let Err(error) = certificate.save(data) {
            // It can be had again; until then it serves from memory.
            tracing::error!("cannot keep the renewed certificate: {}", crate::failure::chain(&error));
        }
        tracing::info!(not_after = %certificate.not_after, "the certificate was renewed");
        self.clock.raise(certificate.not_before);
        self.slot.set(identity);
        let fraction = renewal_fraction(&mut rand::rng());
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Held { certificate, fraction };
        self.set_link(|link| {
            // What is under way goes on over the old connection.
            link.channel = self.way.channel();
            if self.is_tls {
                link.proof = Proof::Certificate;
            }
        });
        Ok(())
    }

    async fn ask_for_certificate(&self, link: &Link) -> Result<Vec<ota_tls::CertificateDer<'static>>, Error> {
        let certificate_request = self.credentials.key.certificate_request()?.into();
        let request = timed(wire::RenewCertificateRequest { certificate_request });
        let mut service = EnrollmentServiceClient::new(link.transport());
        let answer = answered(CALL_TIMEOUT, service.renew_certificate(request)).await?;
        Ok(answer.certificate_chain.into_iter().map(|certificate| certificate.to_vec().into()).collect())
    }
}
