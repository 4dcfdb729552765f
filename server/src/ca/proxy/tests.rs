use std::time::Duration;

use chrono::TimeDelta;
use rcgen::CertificateParams;

use super::*;
use crate::ca::{
    Authority,
    tests::{authority, now, p256},
};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn judge(authority: &Authority, names: &[&str]) -> ProxyJudge {
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    ProxyJudge::new(std::slice::from_ref(authority.certificate()), names, authority_of_devices().public_key()).unwrap()
}

fn authority_of_devices() -> Authority {
    authority()
}

fn signed(authority: &Authority, params: &CertificateParams) -> CertificateDer<'static> {
    authority.sign(params, &p256(), now(), WEEK).unwrap().certificate
}

fn client(name: rcgen::SanType) -> CertificateParams {
    let mut params = super::super::leaf("proxy", [1; 16], now(), WEEK);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![name];
    params
}

fn named(authority: &Authority, name: &str) -> CertificateDer<'static> {
    use rcgen::SanType::{DnsName, IpAddress, URI};
    let name = match name.parse().unwrap() {
        ProxyName::Host(_) => DnsName(name.try_into().unwrap()),
        ProxyName::Address(address) => IpAddress(address),
        ProxyName::Uri(uri) => URI(uri.as_str().try_into().unwrap()),
    };
    signed(authority, &client(name))
}

#[test]
fn a_proxy_is_known_by_each_kind_of_name() {
    let proxies = authority();
    let names = ["Proxy.example.com", "192.0.2.1", "2001:db8::1", "spiffe://cluster/ns/edge/sa/envoy"];
    let judge = judge(&proxies, &names);
    for name in names {
        judge.judge(&[named(&proxies, name)], now()).unwrap();
    }
    for name in ["example.com", "a.proxy.example.com", "192.0.2.2", "2001:db8::2", "spiffe://cluster/ns/edge/sa/envoy2"]
    {
        let refusal = judge.judge(&[named(&proxies, name)], now()).unwrap_err();
        assert!(refusal.contains("names"), "{name}: {refusal}");
    }
}

#[test]
fn a_name_without_the_authority_the_usage_or_the_time_is_worth_nothing() {
    let (proxies, others) = (authority(), authority());
    let judge = judge(&proxies, &["proxy.example.com"]);
    let good = named(&proxies, "proxy.example.com");
    judge.judge(std::slice::from_ref(&good), now()).unwrap();
    judge.judge(&[named(&others, "proxy.example.com")], now()).unwrap_err();
    judge.judge(&[], now()).unwrap_err();
    judge.judge(&[vec![1, 2, 3].into()], now()).unwrap_err();
    let server = proxies.server_certificate(&["proxy.example.com".to_owned()], &p256(), [1; 16], now(), WEEK).unwrap();
    judge.judge(&[server.certificate], now()).unwrap_err();
    for time in [now() - TimeDelta::days(1), now() + TimeDelta::days(8)] {
        judge.judge(std::slice::from_ref(&good), time).unwrap_err();
    }
    // The subject is no name.
    let mut nameless = client(rcgen::SanType::DnsName("x".try_into().unwrap()));
    nameless.subject_alt_names.clear();
    nameless.distinguished_name.push(rcgen::DnType::CommonName, "proxy.example.com");
    judge.judge(&[signed(&proxies, &nameless)], now()).unwrap_err();
}

#[test]
fn the_authority_of_the_devices_is_never_that_of_proxies() {
    let devices = authority();
    let judged = ProxyJudge::new(
        &[authority().certificate().clone(), devices.certificate().clone()],
        vec!["proxy".parse().unwrap()],
        devices.public_key(),
    );
    assert_eq!(judged.unwrap_err(), ProxyJudgeError::OwnAuthority);
    let nothing = ProxyJudge::new(&[vec![1].into()], Vec::new(), devices.public_key());
    assert_eq!(nothing.unwrap_err(), ProxyJudgeError::NotAuthority);
    assert_eq!(ProxyJudge::new(&[], Vec::new(), &[]).unwrap_err(), ProxyJudgeError::NotAuthority);
}

#[test]
fn what_is_no_name_is_refused() {
    for text in ["", "*.example.com", "a b", "1.2.3.4.5 ", ":", "no scheme://x", "ö"] {
        assert_eq!(text.parse::<ProxyName>(), Err(ParseProxyNameError), "{text}");
    }
}
