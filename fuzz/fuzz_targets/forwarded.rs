//! Headers in which proxies pass on the certificate that a client showed them. Only the parser's file is compiled: the
//! server around it would take minutes to build with instrumentation.

#![no_main]

use data_encoding::{BASE64, HEXLOWER};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

#[path = "../../server/src/auth/forwarded/format.rs"]
mod format;

use format::Format;

/// What Envoy would write of these certificates.
fn written(chain: &[Vec<u8>]) -> String {
    let pem: String = chain
        .iter()
        .map(|certificate| {
            let text = BASE64.encode(certificate).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            format!("-----BEGIN%20CERTIFICATE-----%0A{text}%0A-----END%20CERTIFICATE-----%0A")
        })
        .collect();
    format!("Hash={};Chain=\"{pem}\"", HEXLOWER.encode(&Sha256::digest(&chain[0])))
}

fuzz_target!(|text: &str| {
    assert!(text.parse::<Format>().is_ok() == Format::ALL.iter().any(|format| format.header().eq_ignore_ascii_case(text)));
    for format in Format::ALL {
        let Ok(chain) = format.read(text) else { continue };
        if chain.is_empty() {
            assert!(text.trim().is_empty());
            continue;
        }
        assert!(chain.len() <= 4 && chain.iter().all(|certificate| !certificate.is_empty()));
        let honest = written(&chain);
        assert_eq!(Format::Envoy.read(&honest).as_ref(), Ok(&chain));
        // Nothing that reads by itself can stand beside what the proxy wrote.
        if format == Format::Envoy {
            assert!(format.read(&format!("{text},{honest}")).is_err());
            assert!(format.read(&format!("{honest},{text}")).is_err());
        }
    }
    // Nor can anything else.
    let honest = written(&[vec![1, 2, 3]]);
    if let Ok(read) = Format::Envoy.read(&format!("{honest};URI={text}")) {
        assert_eq!(read, [[1, 2, 3]]);
    }
    assert!(Format::Envoy.read(&format!("{text},{honest}")).is_err());
});
