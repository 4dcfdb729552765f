//! Where a request came from, for the event log and for limits by address.
//!
//! A connection's own address cannot be forged; what a header says of it can, by anybody. So headers are believed only from
//! proxies that the operator named, and only as far back as these reach.

use std::{net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName, header};

/// The address at the other end of the connection. The server puts it into every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    address: IpAddr,
    /// How many leading bits of an address decide.
    prefix: u8,
}

/// The text is no block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or a network such as 10.0.0.0/8 or 2001:db8::/32, without bits behind the prefix")]
pub struct ParseNetworkError;

impl Network {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|&prefix| prefix <= bits).ok_or(ParseNetworkError)?,
            None => bits,
        };
        let trailing = match address {
            IpAddr::V4(address) => address.to_bits().trailing_zeros(),
            IpAddr::V6(address) => address.to_bits().trailing_zeros(),
        };
        // Whoever writes 10.1.2.3/8 means another network than they get.
        if trailing >= u32::from(bits - prefix) { Ok(Self { address, prefix }) } else { Err(ParseNetworkError) }
    }
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies that are believed when they say for whom they call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Those in these networks.
    #[must_use]
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Where a request came from that `peer` sent with these headers: the last address in the chain of proxies that is
    /// none of ours. What stands before it was written by whoever is there, and is not believed.
    ///
    /// `x-forwarded-for` counts, and `forwarded` (RFC 7239) when the other is absent. A proxy that writes only `forwarded`
    /// therefore has to drop what callers send as `x-forwarded-for`.
    #[must_use]
    pub fn source(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut source = peer.to_canonical();
        if !self.contains(source) {
            return source;
        }
        let (header, forwarded) =
            if headers.contains_key(&X_FORWARDED_FOR) { (&X_FORWARDED_FOR, false) } else { (&header::FORWARDED, true) };
        for value in headers.get_all(header).into_iter().rev() {
            let Ok(value) = value.to_str() else { return source };
            for hop in value.rsplit(',') {
                let Some(address) = (if forwarded { forwarded_for(hop) } else { node(hop) }) else { return source };
                source = address;
                if !self.contains(source) {
                    return source;
                }
            }
        }
        source
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// The address in one element of `forwarded`, such as `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })?;
    node(value.trim().trim_matches('"'))
}

/// The address of a node, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse().ok()?,
        None => text.parse().ok().or_else(|| text.rsplit_once(':')?.0.parse().ok())?,
    };
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn source(proxies: &TrustedProxies, peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let headers =
            headers.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        proxies.source(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn nobody_is_believed_by_default() {
        let headers = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(source(&TrustedProxies::default(), "127.0.0.1", &headers), "127.0.0.1");
        assert_eq!(source(&proxies(&["10.0.0.0/8"]), "11.0.0.1", &headers), "11.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_says_for_whom_it_calls() {
        let ours = proxies(&["10.0.0.0/8", "2001:db8::/32"]);
        for (name, value, due) in [
            ("x-forwarded-for", "192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1:4711", "192.0.2.1"),
            ("x-forwarded-for", "[2001:db9::1]:4711", "2001:db9::1"),
            ("x-forwarded-for", "::ffff:192.0.2.1", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1;proto=https", "192.0.2.1"),
            ("forwarded", "proto=https;For=\"[2001:db9::1]:4711\"", "2001:db9::1"),
            // One of ours, all the way: then it was one of ours that called.
            ("x-forwarded-for", "10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ] {
            assert_eq!(source(&ours, "10.0.0.1", &[(name, value)]), due, "{name}: {value}");
            assert_eq!(source(&ours, "::ffff:10.0.0.1", &[(name, value)]), due, "{name}: {value}");
        }
        assert_eq!(source(&ours, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_caller_writes_before_the_proxy_is_not_believed() {
        let ours = proxies(&["10.0.0.0/8"]);
        for headers in [
            vec![("x-forwarded-for", "198.51.100.9, 192.0.2.1, 10.0.0.2")],
            vec![
                ("x-forwarded-for", "198.51.100.9"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-for", "10.0.0.2"),
            ],
            vec![("x-forwarded-for", "nonsense, 192.0.2.1")],
            vec![("forwarded", "for=198.51.100.9, for=192.0.2.1, for=10.0.0.2")],
            vec![("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=198.51.100.9")],
        ] {
            assert_eq!(source(&ours, "10.0.0.1", &headers), "192.0.2.1", "{headers:?}");
        }
        for nonsense in ["unknown", "_hidden", "", "10.0.0", "192.0.2.1 198.51.100.9"] {
            let headers = [("x-forwarded-for", nonsense)];
            assert_eq!(source(&ours, "10.0.0.1", &headers), "10.0.0.1", "{nonsense:?}");
        }
    }

    #[test]
    fn a_network_is_written_without_bits_behind_its_prefix() {
        for good in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1", "192.0.2.1/32", "::/0", "2001:db8::/32", "::1"] {
            good.parse::<Network>().unwrap();
        }
        for bad in ["", "10.0.0.0/33", "10.1.0.0/8", "10.0.0.0/-1", "10.0.0.0/", "::1/129", "localhost", "10.0.0.0/8/8"]
        {
            assert_eq!(bad.parse::<Network>(), Err(ParseNetworkError), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains([255, 0, 0, 1].into()) && !all.contains("::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn an_address_from_outside_is_its_own_source_whatever_it_sends(peer: [u8; 4], value in "[ -~]{0,60}") {
            let ours = proxies(&["10.0.0.0/8"]);
            let peer = IpAddr::from(peer);
            prop_assume!(!ours.contains(peer));
            let headers = HeaderMap::from_iter([
                (X_FORWARDED_FOR.clone(), HeaderValue::from_str(&value).unwrap()),
                (header::FORWARDED, HeaderValue::from_str(&value).unwrap()),
            ]);
            prop_assert_eq!(ours.source(peer, &headers), peer);
        }
    }
}
