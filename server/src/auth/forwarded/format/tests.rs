use proptest::{collection::vec, prelude::*};

use super::*;

/// A certificate's bytes as PEM, escaped as Envoy does.
fn escaped(certificate: &[u8]) -> String {
    let text = BASE64.encode(certificate);
    let lines: String = text.as_bytes().chunks(64).map(|line| format!("{}\n", line.escape_ascii())).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n");
    pem.replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

fn chain(certificates: &[Vec<u8>]) -> String {
    certificates.iter().map(|certificate| escaped(certificate)).collect()
}

fn hash(certificate: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
}

/// What Envoy writes of a client that showed `certificate`.
fn element(certificate: &[u8]) -> String {
    format!(
        "By=spiffe://ota/server;Hash={};Cert=\"{}\";Subject=\"CN=\\\"a, b\\\";O=c\";URI=urn:x",
        hash(certificate),
        escaped(certificate)
    )
}

#[test]
fn every_proxys_way_of_writing_is_read() {
    let (leaf, above) = (vec![1, 2, 3], vec![0xfb, 0xff, 0xfe]);
    let both = [leaf.clone(), above.clone()];
    for (format, value, due) in [
        (Format::Envoy, element(&leaf), &both[..1]),
        (Format::Envoy, format!("cHaIn=\"{}\"", chain(&both)), &both),
        (Format::Envoy, format!("Cert={};Chain={}", escaped(&leaf), chain(&both)), &both),
        (Format::Envoy, " ".to_owned(), &[]),
        (Format::Nginx, escaped(&leaf), &both[..1]),
        (Format::Nginx, String::new(), &[]),
        (Format::Traefik, "AQID,+//+".to_owned(), &both),
        (Format::Traefik, "AQID%2C%2B%2F%2F%2B".to_owned(), &both),
    ] {
        assert_eq!(format.read(&value).as_deref(), Ok(due), "{value}");
    }
}

#[test]
fn what_is_not_clear_is_refused_and_says_why() {
    use FormatError::{Certificate, Contradiction, Elements, Escape, NoCertificate, Repeated, Syntax, TooMany};
    let (one, other) = (escaped(&[1]), escaped(&[2]));
    let envoy = [
        (format!("{0},{0}", element(&[1])), Elements(2)),
        (format!("Cert={one},By=x,By=y"), Elements(3)),
        (format!("Subject=\"CN=device\";Hash={}", hash(&[1])), NoCertificate),
        (format!("Cert={one};cert={one}"), Repeated("Cert")),
        (format!("Cert={one};Hash=00;Hash=00"), Repeated("Hash")),
        (format!("Cert={one};Chain={other}"), Contradiction),
        (format!("Cert={one};Hash={}", hash(&[2])), Contradiction),
        (format!("Cert=\"{one}"), Syntax),
        (format!("Cert=\"{one}\\"), Syntax),
        (format!("Cert=\"{one}\"x"), Syntax),
        (format!("Cert=a\"{one}\""), Syntax),
        (format!("Cert={one};"), Syntax),
        (format!("Cert={one},"), Syntax),
        (format!("=x;Cert={one}"), Syntax),
        (format!("a b=x;Cert={one}"), Syntax),
        ("Cert=".to_owned(), Certificate),
        ("Cert=%4".to_owned(), Escape),
        ("Cert=%+1".to_owned(), Escape),
        ("Cert=%ff".to_owned(), Escape),
        (format!("Cert=x{one}"), Certificate),
        (format!("Chain={}", one.repeat(5)), TooMany),
    ];
    for (value, due) in envoy {
        assert_eq!(Format::Envoy.read(&value), Err(due), "{value}");
    }
    for value in ["%", "-----BEGIN CERTIFICATE-----", "AQID"] {
        Format::Nginx.read(value).unwrap_err();
    }
    for value in [",", "AQID,", "A", "*", "AQID,AQID,AQID,AQID,AQID"] {
        Format::Traefik.read(value).unwrap_err();
    }
}

#[test]
fn a_header_is_called_by_its_name() {
    for format in Format::ALL {
        assert_eq!(format.header().parse(), Ok(format));
        assert_eq!(format.header(), format.header().to_ascii_lowercase());
    }
    assert_eq!("x-client-cert".parse::<Format>(), Err(ParseFormatError));
}

fn certificates() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 1..200), 1..=MAX_CERTIFICATES)
}

proptest! {
    #[test]
    fn what_was_shown_comes_out_again(certificates in certificates()) {
        let written = format!("Hash={};Chain=\"{}\"", hash(&certificates[0]), chain(&certificates));
        prop_assert_eq!(Format::Envoy.read(&written), Ok(certificates.clone()));
        let written = chain(&certificates);
        prop_assert_eq!(Format::Nginx.read(&written), Ok(certificates.clone()));
        let written: Vec<String> = certificates.iter().map(|certificate| BASE64.encode(certificate)).collect();
        prop_assert_eq!(Format::Traefik.read(&written.join(",")), Ok(certificates));
    }

    #[test]
    fn nothing_in_a_certificates_names_puts_another_in_its_place(
        mine in vec(any::<u8>(), 1..40), theirs in vec(any::<u8>(), 1..40), before in "[ -~]{0,20}", cut in 0..5_usize,
    ) {
        prop_assume!(mine != theirs);
        // The names stand behind the hash, as Envoy writes them: unquoted and unescaped.
        let pieces = [";", ",", "\"", "Hash=0;", ""];
        let name = format!("{before}{}Cert=\"{}\"", pieces[cut], escaped(&theirs));
        for value in [
            format!("Hash={};URI={name}", hash(&mine)),
            format!("Hash={};Cert=\"{}\";URI={name}", hash(&mine), escaped(&mine)),
        ] {
            if let Ok(read) = Format::Envoy.read(&value) {
                prop_assert_eq!(read, [mine.clone()]);
            }
        }
    }

    #[test]
    fn what_a_caller_writes_beside_the_proxy_is_never_read(certificate in vec(any::<u8>(), 1..40), text in "[ -~]{1,60}") {
        let honest = element(&certificate);
        for value in [format!("{text},{honest}"), format!("{honest},{text}")] {
            prop_assert!(Format::Envoy.read(&value).is_err(), "{}", value);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~]{0,200}") {
        for format in Format::ALL {
            if let Ok(read) = format.read(&text) {
                prop_assert!(read.len() <= MAX_CERTIFICATES && read.iter().all(|certificate| !certificate.is_empty()));
            }
        }
    }
}
