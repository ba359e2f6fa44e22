use std::net::{IpAddr, SocketAddr};

use gray_propagation::{FieldName, Lines, lines, visible};

use crate::CidrSet;

static FORWARDED_FOR: FieldName = FieldName::from_static("x-forwarded-for");
static REAL_IP: FieldName = FieldName::from_static("x-real-ip");

/// Who sent a request, and whether the peer's own word about it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr {
    /// The client's address.
    pub address: IpAddr,
    /// Whether the request came through a trusted proxy.
    pub through_proxy: bool,
}

/// The proxies whose word about the client is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(CidrSet);

impl TrustedProxies {
    /// Trusts the peers in these networks.
    pub const fn new(networks: CidrSet) -> Self {
        Self(networks)
    }

    /// Tells whether a peer is trusted.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.contains(peer)
    }

    /// Finds the client of a request.
    ///
    /// It is the peer, unless the peer is trusted. Then it is the right-most address of
    /// `X-Forwarded-For` that is not itself trusted; what stands left of it was written by that
    /// client and proves nothing. An entry that is no address ends the search at the proxy that
    /// wrote it. Without `X-Forwarded-For`, a trusted peer's single `X-Real-IP` counts.
    pub fn client(&self, peer: IpAddr, headers: &impl Lines) -> ClientAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return ClientAddr { address: peer, through_proxy: false };
        }
        let address = if headers.has(&FORWARDED_FOR) {
            self.rightmost_untrusted(peer, headers)
        } else {
            real_ip(headers).unwrap_or(peer)
        };
        ClientAddr { address, through_proxy: true }
    }

    fn rightmost_untrusted(&self, peer: IpAddr, headers: &impl Lines) -> IpAddr {
        let mut nearest = peer;
        let lines: Vec<&[u8]> = lines(headers, &FORWARDED_FOR).collect();
        // The last line was written by the nearest proxy.
        for line in lines.into_iter().rev() {
            // Entry by entry: one that is no text hides none of those that stand behind it.
            let hops = line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            for hop in hops.filter(|hop| !hop.is_empty()) {
                let Some(address) = visible(hop).and_then(parse_hop) else { return nearest };
                nearest = address;
                if !self.trusts(address) {
                    return address;
                }
            }
        }
        nearest
    }
}

fn real_ip(headers: &impl Lines) -> Option<IpAddr> {
    if headers.line(&REAL_IP, 1).is_some() {
        return None;
    }
    parse_hop(headers.text(&REAL_IP)?.trim())
}

/// Reads an address as proxies write it: bare, with a port, in brackets, with a zone.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    if let Ok(address) = hop.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = hop.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let bare = bare.split_once('%').map_or(bare, |(address, _zone)| address);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(peer: &str, lines: &[(&FieldName, &str)], expected: &str) {
        let proxies = CidrSet::parse(["10.0.0.0/8", "fd00::/8"]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(&***name, HeaderValue::from_str(value).unwrap());
        }
        let client = TrustedProxies::new(proxies).client(peer.parse().unwrap(), &headers);
        assert_eq!(client.address, expected.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        check("9.9.9.9", &[(&FORWARDED_FOR, "1.1.1.1"), (&REAL_IP, "1.1.1.1")], "9.9.9.9");
        check("::ffff:9.9.9.9", &[], "9.9.9.9");
    }

    #[test]
    fn a_trusted_peer_is_believed_up_to_the_first_stranger() {
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[(&FORWARDED_FOR, "1.1.1.1, 2.2.2.2, 10.0.0.2")], "2.2.2.2");
        check("10.0.0.1", &[(&FORWARDED_FOR, "1.1.1.1"), (&FORWARDED_FOR, "2.2.2.2")], "2.2.2.2");
        check("10.0.0.1", &[(&FORWARDED_FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check("10.0.0.1", &[(&REAL_IP, "3.3.3.3")], "3.3.3.3");
        check("10.0.0.1", &[(&REAL_IP, "3.3.3.3"), (&REAL_IP, "4.4.4.4")], "10.0.0.1");
        check("::ffff:10.0.0.1", &[(&REAL_IP, "3.3.3.3")], "3.3.3.3");
    }

    /// One byte that is no text once hid the whole line, so that the client was taken for the proxy.
    #[test]
    fn a_byte_that_is_no_text_hides_nothing_behind_it() {
        let proxies = TrustedProxies::new(CidrSet::parse(["10.0.0.0/8"]).unwrap());
        for (line, expected) in [
            (&b"\xff, 203.0.113.9"[..], "203.0.113.9"),
            (b"203.0.113.9, \xff", "10.0.0.1"),
            (b"203.0.113.9, \xff, 10.0.0.7", "10.0.0.7"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&*FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
            let client = proxies.client("10.0.0.1".parse().unwrap(), &headers);
            assert_eq!(client.address, expected.parse::<IpAddr>().unwrap(), "{line:?}");
        }
    }

    #[test]
    fn reads_every_spelling_and_stops_at_garbage() {
        check("10.0.0.1", &[(&FORWARDED_FOR, "1.1.1.1:4711")], "1.1.1.1");
        check("10.0.0.1", &[(&FORWARDED_FOR, "[2001:db8::1]:80")], "2001:db8::1");
        check("10.0.0.1", &[(&FORWARDED_FOR, "\"[2001:db8::1]\"")], "2001:db8::1");
        check("10.0.0.1", &[(&FORWARDED_FOR, "fe80::1%eth0")], "fe80::1");
        check("10.0.0.1", &[(&FORWARDED_FOR, "::ffff:1.1.1.1")], "1.1.1.1");
        check("10.0.0.1", &[(&FORWARDED_FOR, "1.1.1.1, unknown, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[(&FORWARDED_FOR, "unknown")], "10.0.0.1");
    }

    /// A second reading of the rule: every hop from the right, until one is not trusted.
    fn reference(peer: &str, hops: &[&str]) -> IpAddr {
        let trusted = |address: &IpAddr| address.to_string().starts_with("10.");
        let mut way: Vec<IpAddr> = vec![peer.parse().unwrap()];
        way.extend(hops.iter().rev().map_while(|hop| hop.parse::<IpAddr>().ok()));
        let stranger = way.iter().find(|address| !trusted(address));
        *stranger.or(way.last()).unwrap()
    }

    proptest! {
        #[test]
        fn the_right_most_stranger_is_the_client(
            hops in prop::collection::vec(
                prop::sample::select(vec!["10.0.0.1", "10.9.9.9", "1.1.1.1", "2001:db8::1", "x"]),
                0..8,
            ),
            peer in prop::sample::select(vec!["10.0.0.7", "9.9.9.9"]),
        ) {
            let proxies = TrustedProxies::new(CidrSet::parse(["10.0.0.0/8"]).unwrap());
            let mut headers = HeaderMap::new();
            headers.insert(&*FORWARDED_FOR, HeaderValue::try_from(hops.join(", ")).unwrap());
            let client = proxies.client(peer.parse().unwrap(), &headers);
            prop_assert_eq!(client.address, reference(peer, &hops));
        }
    }

    #[test]
    fn ten_thousand_hops_are_read_to_their_end() {
        let mut hops = vec!["10.0.0.1"; 10_000];
        hops[0] = "1.1.1.1";
        check("10.0.0.2", &[(&FORWARDED_FOR, &hops.join(","))], "1.1.1.1");
    }
}
