use std::fs;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;

use super::*;
use crate::ca::{Authority, authority_certificate};

fn now() -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn authority() -> Authority {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = authority_certificate(&key, [1; 16], now()).unwrap();
    Authority::open(certificate, &key.serialize_der().into()).unwrap()
}

/// Writes a certificate of its own kind and its key.
fn write(folder: &TempDir) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    certificate.der().to_vec()
}

fn files(folder: &TempDir) -> Source {
    let path = |name| Some(folder.path().join(name));
    Source::of(&Options { tls_cert: path("cert.pem"), tls_key: path("key.pem"), ..Options::default() })
}

#[test]
fn files_are_read_again_when_they_change() {
    let (folder, authority) = (TempDir::new().unwrap(), authority());
    let first = write(&folder);
    let mut source = files(&folder);
    assert_eq!(source.load(&authority, now()).unwrap().cert[0].as_ref(), first);
    assert!(source.reload(&authority, now()).unwrap().is_none());
    let second = write(&folder);
    assert_eq!(source.reload(&authority, now()).unwrap().unwrap().cert[0].as_ref(), second);
    assert!(source.reload(&authority, now()).unwrap().is_none());
}

#[test]
fn a_pair_that_is_half_written_is_refused_once_and_taken_when_whole() {
    let (folder, authority) = (TempDir::new().unwrap(), authority());
    write(&folder);
    let mut source = files(&folder);
    source.load(&authority, now()).unwrap();
    let old_key = fs::read(folder.path().join("key.pem")).unwrap();
    let second = write(&folder);
    let new_key = fs::read(folder.path().join("key.pem")).unwrap();
    fs::write(folder.path().join("key.pem"), old_key).unwrap();
    assert!(matches!(source.reload(&authority, now()), Err(TlsError::Pair(_))));
    assert!(source.reload(&authority, now()).unwrap().is_none());
    fs::write(folder.path().join("key.pem"), new_key).unwrap();
    assert_eq!(source.reload(&authority, now()).unwrap().unwrap().cert[0].as_ref(), second);
}

#[test]
fn files_that_are_no_good_say_which() {
    let (folder, authority) = (TempDir::new().unwrap(), authority());
    assert!(
        matches!(files(&folder).load(&authority, now()), Err(TlsError::Read(path, _)) if path.ends_with("cert.pem"))
    );
    write(&folder);
    fs::write(folder.path().join("key.pem"), "nothing").unwrap();
    let refused = files(&folder).load(&authority, now());
    assert!(matches!(refused, Err(TlsError::Pem { path, .. }) if path.ends_with("key.pem")));
}

#[test]
fn an_own_certificate_is_renewed_at_half_its_life() {
    let authority = authority();
    let mut source = Source::of(&Options { tls_name: vec!["ota.example.com".to_owned()], ..Options::default() });
    let first = source.load(&authority, now()).unwrap();
    assert_eq!(first.cert[1], *authority.certificate());
    let days = |days: u64| now() + Duration::from_secs(days * 24 * 3600);
    assert!(source.reload(&authority, days(14)).unwrap().is_none());
    let second = source.reload(&authority, days(15)).unwrap().unwrap();
    assert_ne!(first.cert[0], second.cert[0]);
    assert!(source.reload(&authority, days(16)).unwrap().is_none());
}

#[test]
fn trusted_proxies_need_an_authority_of_their_own() {
    let (folder, own) = (TempDir::new().unwrap(), authority());
    let file = folder.path().join("proxies.pem");
    let options = Options {
        trusted_proxy_ca: Some(file.clone()),
        trusted_proxy_san: vec!["proxy.example.com".parse().unwrap()],
        ..Options::default()
    };
    assert!(matches!(options.proxies(&own), Err(TlsError::ProxyAuthorityFile(_))));
    fs::write(&file, authority().to_pem()).unwrap();
    assert!(options.proxies(&own).unwrap().is_some() && options.forwarding(&own).unwrap().is_some());
    fs::write(&file, authority().to_pem() + &own.to_pem()).unwrap();
    let refused = options.proxies(&own).unwrap_err();
    assert!(matches!(refused, TlsError::ProxyAuthority(_, ProxyJudgeError::OwnAuthority)), "{refused:?}");
    assert!(Options::default().proxies(&own).unwrap().is_none());
    assert!(Options::default().forwarding(&own).unwrap().is_none());
}
