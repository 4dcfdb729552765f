use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use uuid::Uuid;
use x509_parser::prelude::FromDer as _;

use super::*;

const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0x01890a5d_ac96_774b_bcce_b302099a8057));
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn now() -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(super) fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(super) fn authority() -> Authority {
    let key = p256();
    let certificate = authority_certificate(&key, [1; 16], now()).unwrap();
    Authority::open(certificate, &key.serialize_der().into()).unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::new(vec!["somebody.else".to_owned()]).unwrap().serialize_request(key).unwrap().der().to_vec()
}

fn device_key(key: &KeyPair) -> DeviceKey {
    DeviceKey::from_spki(&key.subject_public_key_info()).unwrap()
}

fn judge(authority: &Authority, certificate: &CertificateDer<'_>) -> PeerIdentity {
    PeerJudge::new(authority.certificate()).unwrap().judge(std::slice::from_ref(certificate))
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let key = p256();
    assert_eq!(parse_request(&request(&key)).unwrap(), device_key(&key));
}

#[test]
fn a_request_for_another_kind_of_key_is_refused() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(parse_request(&request(&key)), Err(RequestError::Key(KeyError)));
    }
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let (mine, theirs) = (p256(), p256());
    let stolen = request(&mine);
    let (_, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(&stolen).unwrap();
    let at = stolen.windows(91).position(|part| part == parsed.certification_request_info.subject_pki.raw).unwrap();
    let mut forged = stolen.clone();
    forged[at..at + 91].copy_from_slice(&theirs.subject_public_key_info());
    assert_eq!(parse_request(&forged), Err(RequestError::Signature));
}

#[test]
fn what_is_no_single_request_is_refused() {
    let good = request(&p256());
    assert_eq!(parse_request(&[]), Err(RequestError::Malformed));
    assert_eq!(parse_request(&good[..good.len() - 1]), Err(RequestError::Malformed));
    assert_eq!(parse_request(&[good.as_slice(), &[0]].concat()), Err(RequestError::Malformed));
    assert_eq!(parse_request(&vec![0x30; MAX_REQUEST_BYTES + 1]), Err(RequestError::TooLong));
}

#[test]
fn a_point_beside_the_curve_is_no_key() {
    let mut spki = p256().subject_public_key_info();
    spki[90] ^= 1;
    assert_eq!(DeviceKey::from_spki(&spki), Err(KeyError));
}

#[test]
fn a_device_is_known_by_its_certificate_whatever_the_time() {
    let (authority, key) = (authority(), p256());
    let long_ago = now() - Duration::from_secs(400 * 24 * 3600);
    for then in [now(), long_ago] {
        let issued = authority.device_certificate(DEVICE, &device_key(&key), [0xff; 16], then, WEEK).unwrap();
        let expected = DeviceCertificate {
            device: DEVICE,
            key_sha256: device_key(&key).sha256(),
            not_before: then - BACKDATED,
            not_after: then + WEEK,
            serial: format!("00{}", "ff".repeat(16)),
        };
        assert_eq!(issued.not_after, then + WEEK);
        assert_eq!(expected.is_good_at(now()), then == now());
        assert_eq!(judge(&authority, &issued.certificate), PeerIdentity::Device(expected));
    }
}

#[test]
fn who_shows_nothing_is_nobody() {
    assert_eq!(PeerJudge::new(authority().certificate()).unwrap().judge(&[]), PeerIdentity::None);
}

#[test]
fn certificates_that_are_not_a_devices_are_foreign() {
    let (ours, theirs, key) = (authority(), authority(), p256());
    let foreign = theirs.device_certificate(DEVICE, &device_key(&key), [1; 16], now(), WEEK).unwrap().certificate;
    let server = ours.server_certificate(&["localhost".to_owned()], &key, [1; 16], now(), WEEK).unwrap().certificate;
    let mut nameless = leaf("device", [1; 16], now(), WEEK);
    nameless.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut doubled = nameless.clone();
    let urn = |id| SanType::URI(name(&format!("{DEVICE_URN}{id}")).unwrap());
    doubled.subject_alt_names = vec![urn(DEVICE), urn(DeviceId(Uuid::nil()))];
    let sign = |params: &CertificateParams| ours.sign(params, &key, now(), WEEK).unwrap().certificate;
    let (nameless, doubled) = (sign(&nameless), sign(&doubled));
    for certificate in [foreign, server, nameless, doubled, ours.certificate().clone(), vec![1, 2, 3].into()] {
        assert!(matches!(judge(&ours, &certificate), PeerIdentity::Foreign(_)));
    }
}

#[test]
fn a_server_is_known_by_every_name_it_was_given() {
    let names = ["localhost", "::1", "127.0.0.1", "ota.example.com"].map(str::to_owned);
    let issued = authority().server_certificate(&names, &p256(), [1; 16], now(), WEEK).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), names.len());
    let bad = authority().server_certificate(&["ö".to_owned()], &p256(), [1; 16], now(), WEEK);
    assert!(matches!(bad, Err(CaError::Name(_))));
}

#[test]
fn a_key_that_is_not_the_certificates_opens_no_authority() {
    let certificate = authority_certificate(&p256(), [1; 16], now()).unwrap();
    let other = p256().serialize_der();
    assert!(matches!(Authority::open(certificate, &other.into()), Err(CaError::Certificate)));
}

#[test]
fn pem_is_what_other_programs_read() {
    use rustls::pki_types::pem::PemObject as _;
    let authority = authority();
    let read = CertificateDer::from_pem_slice(authority.to_pem().as_bytes()).unwrap();
    assert_eq!(&read, authority.certificate());
}
