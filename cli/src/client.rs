//! The connection to the server: one channel, the token and the request id on every call.

use std::{sync::Arc, time::Duration};

use ota_proto::admin::v1::{
    GetLoginOptionsRequest, GetLoginOptionsResponse, access_service_client::AccessServiceClient,
    device_service_client::DeviceServiceClient, enroll_token_service_client::EnrollTokenServiceClient,
    event_service_client::EventServiceClient, package_service_client::PackageServiceClient,
    rollout_service_client::RolloutServiceClient, status_service_client::StatusServiceClient,
    trust_service_client::TrustServiceClient,
};
use ota_tls::{ConnectError, Connector, DefaultTimeProvider, IdentitySlot};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use uuid::Uuid;

use crate::{
    context::{Route, Target},
    error::{Failure, REQUEST_ID_KEY, root_cause},
    first_contact,
    server_url::ServerUrl,
};

/// How long to wait for the server to take the connection. A person is waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a silent connection is asked for a sign of life, and how long it may take to give one.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// Largest answer taken. A page of 500 devices with 64 long labels each is around 5 MB.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// A channel that adds the credentials.
pub type Transport = InterceptedService<Channel, Credentials>;

/// Adds token and request id to every call.
#[derive(Debug, Clone)]
pub struct Credentials {
    token: MetadataValue<Ascii>,
    request_id: MetadataValue<Ascii>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.token.clone());
        metadata.insert(REQUEST_ID_KEY, self.request_id.clone());
        Ok(request)
    }
}

/// A connection to one server as one caller.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    context: String,
}

impl Client {
    /// Connects. All calls of one command carry the same request id, so that the server's log shows what belongs
    /// together.
    pub async fn connect(target: &Target, request_id: Uuid) -> Result<Self, Failure> {
        let channel = connect(&target.route).await?;
        let request_id = MetadataValue::try_from(request_id.to_string()).expect("a UUID is plain ASCII");
        let credentials = Credentials { token: target.token.header(), request_id };
        Ok(Self { transport: InterceptedService::new(channel, credentials), context: target.name.clone() })
    }

    /// Asks where people log in at this server. Needs no token.
    pub async fn login_options(target: &Route) -> Result<GetLoginOptionsResponse, Failure> {
        let mut access = AccessServiceClient::new(connect(target).await?);
        Ok(access.get_login_options(GetLoginOptionsRequest {}).await?.into_inner())
    }

    /// Returns the name under which keys and what was verified of this server are kept.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Returns the client for callers and their tokens.
    pub fn access(&self) -> AccessServiceClient<Transport> {
        AccessServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for devices.
    pub fn devices(&self) -> DeviceServiceClient<Transport> {
        DeviceServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for enrolment tokens.
    pub fn enroll_tokens(&self) -> EnrollTokenServiceClient<Transport> {
        EnrollTokenServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for events.
    pub fn events(&self) -> EventServiceClient<Transport> {
        EventServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for packages, releases and payloads.
    pub fn packages(&self) -> PackageServiceClient<Transport> {
        PackageServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for rollouts and deployments.
    pub fn rollouts(&self) -> RolloutServiceClient<Transport> {
        RolloutServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for the server's state.
    pub fn status(&self) -> StatusServiceClient<Transport> {
        StatusServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the client for signed metadata.
    pub fn trust(&self) -> TrustServiceClient<Transport> {
        TrustServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

/// Opens the channel, encrypted when the address says so.
pub(crate) async fn connect(target: &Route) -> Result<Channel, Failure> {
    let server = &target.server;
    if !server.is_encrypted() {
        return open(server, &Connector::plain(server.uri()).map_err(first_contact::setup)?).await;
    }
    let authority = match (&target.authority, target.pin) {
        (Some(authority), None) => authority.clone(),
        (Some(authority), Some(pin)) => {
            first_contact::check(authority, pin, server)?;
            authority.clone()
        }
        (None, Some(pin)) => first_contact::pinned(server, pin).await?,
        (None, None) => return Err(first_contact::unknown(server)),
    };
    let (trust, clock) = (authority.server_trust(), Arc::new(DefaultTimeProvider));
    let connector =
        Connector::tls(server.uri(), trust, IdentitySlot::default(), clock).map_err(first_contact::setup)?;
    open(server, &connector).await
}

/// Opens a channel over a way that is known.
pub(crate) async fn open(server: &ServerUrl, connector: &Connector) -> Result<Channel, Failure> {
    let endpoint = connector
        .endpoint()
        .user_agent(concat!("otactl/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Failure::because("cannot set up the connection", &error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    connector.connect(&endpoint).await.map_err(|error| match ConnectError::find(&error) {
        Some(reason) => Failure::failed(format!("cannot reach {server}: {reason}")).hint(tls_hint(&reason)),
        None => Failure::failed(format!("cannot reach {server}: {}", root_cause(&error)))
            .hint("does the server run, and is this its address? See `otactl context show`"),
    })
}

/// Says what a person can do about a server that is not to be believed.
pub(crate) fn tls_hint(reason: &ConnectError) -> &'static str {
    match reason {
        ConnectError::WrongAuthority => {
            "this is another server, or one that was set up anew; if you know which, log in again with --ca-file FILE"
        }
        ConnectError::Expired { .. } | ConnectError::NotYetValid { .. } => "are the clocks of both machines right?",
        ConnectError::WrongName { .. } => "use a name that the certificate is for, or the server's --tls-name",
        ConnectError::NotTls | ConnectError::Closed => {
            "for a server without encryption write http://; over a network that needs --insecure"
        }
        ConnectError::OnlyTls => "write https:// in place of http://",
        ConnectError::WrongPurpose
        | ConnectError::Refused { .. }
        | ConnectError::NotHttp2
        | ConnectError::Handshake { .. } => "does an ota server listen at this address? See `otactl context show`",
    }
}
