//! Certificate requests as they come with an enrolment, and the certificates that a client shows in its handshake: as bytes,
//! or as a body that the right key signed.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;

// What is fuzzed stands on little of the server's; the server as a whole takes very long to build.
#[expect(dead_code, reason = "a part of the server")]
#[path = "../../server/src/ca/key.rs"]
mod key;
#[expect(dead_code, reason = "a part of the server")]
#[path = "../../server/src/ca/peer.rs"]
mod peer;
#[path = "../../server/src/ca/request.rs"]
mod request;

use key::{DeviceKey, KeyError};
use peer::{PeerIdentity, PeerJudge};

/// As the server has it: the seeds hold a certificate that is judged to be a device's.
const DEVICE_URN: &str = "urn:ota:device:";

#[derive(Debug)]
enum CaError {
    Certificate,
}

/// The authority, and a certificate that it gave a device.
const AUTHORITY: &[u8] = include_bytes!("certificates/authority.der");
const DEVICE: &[u8] = include_bytes!("certificates/device.der");
/// The key of both: a number that is no secret, and its point.
const NUMBER: [u8; 32] = [7; 32];
const POINT: &[u8] = include_bytes!("certificates/point");

static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let key = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, &NUMBER, POINT);
    key.expect("they belong together")
});
static JUDGE: LazyLock<PeerJudge> = LazyLock::new(|| {
    let judge = PeerJudge::new(&CertificateDer::from(AUTHORITY)).expect("it is an authority");
    assert!(matches!(judge.judge(&[DEVICE.into()]), PeerIdentity::Device(_)));
    judge
});

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 4 {
        0 => read(bytes),
        1 => read(&signed(bytes)),
        2 => {
            let mut rest = bytes;
            let mut chain = Vec::new();
            while let [high, low, after @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
                chain.push(CertificateDer::from(&after[..length]));
                rest = &after[length..];
            }
            judge(&chain);
        }
        _ => judge(&[CertificateDer::from(signed(bytes))]),
    }
});

fn read(der: &[u8]) {
    if let Ok(key) = request::parse(der) {
        assert!(der.windows(key.as_spki().len()).any(|part| part == key.as_spki()));
        assert_eq!(DeviceKey::from_spki(key.as_spki()), Ok(key));
    }
}

fn judge(chain: &[CertificateDer<'_>]) {
    let identity = JUDGE.judge(chain);
    assert_eq!(identity == PeerIdentity::None, chain.is_empty());
    if let PeerIdentity::Device(device) = identity {
        let named = device.device.to_string();
        assert!(chain[0].windows(named.len()).any(|part| part == named.as_bytes()));
    }
}

/// A body with the signature of the known key: SEQUENCE { body, ecdsa-with-SHA256, BIT STRING }.
fn signed(body: &[u8]) -> Vec<u8> {
    let signature = KEY.sign(&SystemRandom::new(), body).expect("it signs");
    let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let bits = element(3, &[&[0], signature.as_ref()].concat());
    element(0x30, &[body, &algorithm, &bits].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ ..0x80 => vec![short as u8],
        long => [&[0x82], &(long as u16).to_be_bytes()[..]].concat(),
    };
    [&[tag][..], &length, content].concat()
}
