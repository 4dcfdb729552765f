//! Behind a proxy that ends TLS and passes on what certificate it was shown.

use std::{fs, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use ota_e2e::{Options, TestDevice, TestServer, assert_refused, credential::connect_as};
use ota_proto::{
    admin::v1::DecommissionDeviceRequest,
    device::v1::{
        CheckInRequest, CheckInResponse, RenewCertificateRequest, enrollment_service_client::EnrollmentServiceClient,
        update_service_client::UpdateServiceClient,
    },
};
use ota_server::{auth::forwarded::Format, ca::Authority, tls};
use ota_tls::{CertificateDer, Identity, SeenCertificates, ServerTrust, write_certificate};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::tls::{id, issued, other_authority};

const NAME: &str = "spiffe://cluster/ns/edge/sa/envoy";
const HEADER: &str = "x-forwarded-client-cert";

/// A server, and the authority that signs its proxies.
struct Scene {
    server: TestServer,
    proxies: Ca,
    _folder: TempDir,
}

/// An authority that is not the server's.
struct Ca {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = ota_server::ca::authority_certificate(&key, rand::random(), Utc::now()).unwrap();
        Self { certificate, key }
    }

    /// A certificate for a client of this name.
    fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(rand::random::<[u8; 16]>().to_vec()));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Identity::new(vec![certificate.der().clone()], key.serialize_der().into()).unwrap()
    }
}

impl Scene {
    async fn begin(format: Format) -> Self {
        let (folder, proxies) = (TempDir::new().unwrap(), Ca::new());
        let file = folder.path().join("proxies.pem");
        fs::write(&file, write_certificate(&proxies.certificate)).unwrap();
        let tls = tls::Options {
            trusted_proxy_ca: Some(file),
            trusted_proxy_san: vec![NAME.parse().unwrap()],
            trusted_proxy_header: format,
            ..Default::default()
        };
        let server = TestServer::with(Options { tls, ..Options::default() }).await;
        Self { server, proxies, _folder: folder }
    }

    /// Calls as the trusted proxy, with these headers.
    fn proxy(&self, headers: &[(&'static str, String)]) -> Hop {
        self.hop(Some(self.proxies.client(NAME)), headers)
    }

    fn hop(&self, identity: Option<Identity>, headers: &[(&'static str, String)]) -> Hop {
        let trust = ServerTrust::Pinning(SeenCertificates::default());
        let channel = connect_as(&self.server.url(), trust, identity);
        Hop(InterceptedService::new(channel, Headers(headers.to_vec())))
    }
}

/// Puts headers into every call.
#[derive(Debug, Clone)]
struct Headers(Vec<(&'static str, String)>);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        Ok(request)
    }
}

/// The last hop before the server.
#[derive(Debug, Clone)]
struct Hop(InterceptedService<Channel, Headers>);

impl Hop {
    async fn check_in(&self) -> Result<CheckInResponse, Status> {
        let request = CheckInRequest { agent_version: "1.0.0".to_owned(), ..Default::default() };
        Ok(UpdateServiceClient::new(self.0.clone()).check_in(request).await?.into_inner())
    }

    async fn renew(&self, device: &TestDevice) -> Result<Bytes, Status> {
        let request = RenewCertificateRequest { certificate_request: device.key().request() };
        let answer = EnrollmentServiceClient::new(self.0.clone()).renew_certificate(request).await?.into_inner();
        Ok(answer.certificate_chain[0].clone())
    }
}

fn escaped(certificate: &[u8]) -> String {
    let pem = write_certificate(&CertificateDer::from(certificate.to_vec()));
    pem.replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// What Envoy writes of a client with this certificate.
fn element(certificate: &[u8]) -> String {
    let hash = ota_e2e::device::sha256(certificate);
    format!("By=spiffe://ota;Hash={hash};Cert=\"{}\";Subject=\"CN=device\"", escaped(certificate))
}

#[tokio::test]
async fn a_device_is_known_by_the_certificate_that_its_proxy_passes_on() {
    for format in Format::ALL {
        let scene = Scene::begin(format).await;
        let device = scene.server.admin().enroll().await;
        let value = match format {
            Format::Envoy => element(&device.certificate()),
            Format::Nginx => escaped(&device.certificate()),
            Format::Traefik => data_encoding::BASE64.encode(&device.certificate()),
        };
        let through = scene.proxy(&[(format.header(), value)]);
        through.check_in().await.unwrap();
        // It is this device: nobody else's certificate is renewed for its key.
        let renewed = through.renew(&device).await.unwrap();
        device.showing(&scene.server.url(), renewed).check_in().await.unwrap();
        // Past the proxy devices go on calling by themselves.
        device.certified(&scene.server.url()).check_in().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_is_believed() {
    let scene = Scene::begin(Format::Envoy).await;
    let admin = scene.server.admin();
    let (victim, thief) = (admin.enroll().await, admin.enroll().await);
    let stolen = [(HEADER, element(&victim.certificate()))];
    let shown = |device: &TestDevice| {
        let chain = vec![device.certificate().to_vec().into()];
        Some(Identity::new(chain, device.key().to_pkcs8().into()).unwrap())
    };
    // Without a certificate, and with ones that are not a trusted proxy's.
    let nobody = scene.hop(None, &stolen).check_in().await.unwrap_err();
    assert_refused(&nobody, Code::Unauthenticated, "CREDENTIAL_MISSING");
    for identity in [scene.proxies.client("spiffe://cluster/ns/other/sa/envoy"), Ca::new().client(NAME)] {
        let refusal = scene.hop(Some(identity), &stolen).check_in().await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "CERTIFICATE_INVALID");
    }
    // A device is itself, whatever it says.
    scene.hop(shown(&thief), &stolen).renew(&thief).await.unwrap();
    let name = thief.name();
    admin.devices().decommission_device(DecommissionDeviceRequest { name }).await.unwrap();
    let refusal = scene.hop(shown(&thief), &stolen).check_in().await.unwrap_err();
    assert_refused(&refusal, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
}

#[tokio::test]
async fn a_proxy_is_nobody_until_it_says_for_whom_it_calls() {
    let scene = Scene::begin(Format::Envoy).await;
    let device = scene.server.admin().enroll().await;
    // What it writes in another proxy's header is what a caller sent through it.
    let escaped = escaped(&device.certificate());
    for headers in [vec![], vec![(HEADER, String::new())], vec![(Format::Nginx.header(), escaped)]] {
        let refusal = scene.proxy(&headers).check_in().await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_MISSING");
    }
    // A session needs nothing of the proxy.
    let bearer = format!("Bearer {}", device.bearer().token().unwrap());
    scene.proxy(&[("authorization", bearer)]).check_in().await.unwrap();
}

#[tokio::test]
async fn a_forwarded_certificate_is_judged_as_one_that_was_shown() {
    let scene = Scene::begin(Format::Envoy).await;
    let server = &scene.server;
    let (device, other) = (server.admin().enroll().await, server.admin().enroll().await);
    let through = |certificate: &[u8]| scene.proxy(&[(HEADER, element(certificate))]);

    let late = through(&issued(server, id(&device), device.key(), 400));
    assert_refused(&late.check_in().await.unwrap_err(), Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    let fresh = late.renew(&device).await.unwrap();
    through(&fresh).check_in().await.unwrap();

    let forged = through(&issued(server, id(&device), other.key(), 0));
    assert_refused(&forged.check_in().await.unwrap_err(), Code::Unauthenticated, "CREDENTIAL_INVALID");

    let sign = |authority: &Authority| {
        let signed = authority.device_certificate(
            id(&device),
            &device.key().public(),
            rand::random(),
            Utc::now(),
            Duration::from_secs(3600),
        );
        signed.unwrap().certificate
    };
    for foreign in [sign(&other_authority()), scene.proxies.certificate.clone(), vec![1, 2, 3].into()] {
        let refusal = through(&foreign).check_in().await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "CERTIFICATE_INVALID");
    }

    let name = device.name();
    server.admin().devices().decommission_device(DecommissionDeviceRequest { name }).await.unwrap();
    for refusal in [through(&fresh).check_in().await.unwrap_err(), late.renew(&device).await.unwrap_err()] {
        assert_refused(&refusal, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    }
}

#[tokio::test]
async fn a_header_that_is_not_clear_is_refused() {
    let scene = Scene::begin(Format::Envoy).await;
    let device = scene.server.admin().enroll().await;
    let good = element(&device.certificate());
    let hash = format!("Hash={}", ota_e2e::device::sha256(&device.certificate()));
    for (headers, due) in [
        // The caller's own, and the proxy's behind it.
        (vec![(HEADER, format!("{good},{good}"))], "2 elements"),
        (vec![(HEADER, good.clone()), (HEADER, good.clone())], "more than once"),
        (vec![(HEADER, format!("{hash};Subject=\"CN=device {}\"", device.id()))], "no certificate"),
        (vec![(HEADER, format!("{good};{hash}"))], "Hash twice"),
        (vec![(HEADER, good.replace("Cert=\"", "Cert=\"%"))], "escaped"),
        (vec![(HEADER, device.id().to_owned())], "pairs"),
    ] {
        let refusal = scene.proxy(&headers).check_in().await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_INVALID");
        assert!(refusal.message().contains(due) && refusal.message().contains(HEADER), "{due}: {refusal:?}");
    }
}

#[tokio::test]
async fn no_proxy_is_trusted_that_nobody_named() {
    let server = TestServer::with(Options::encrypted()).await;
    let device = server.admin().enroll().await;
    let (folder, proxies) = (TempDir::new().unwrap(), Ca::new());
    let scene = Scene { server, proxies, _folder: folder };
    let refusal = scene.proxy(&[(HEADER, element(&device.certificate()))]).check_in().await.unwrap_err();
    assert_refused(&refusal, Code::Unauthenticated, "CERTIFICATE_INVALID");
}
