//! What an instance is told about the client.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};

use super::alias::is_alias;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How a request came to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The address that the connection came from.
    pub(crate) peer: Address,
    /// The client, as far as trusted proxies vouch for it.
    pub(crate) client: Address,
    /// Whether the peer is a trusted proxy.
    pub(crate) trusted: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
}

/// An address, and how it is written: a connection's is written once.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    text: HeaderValue,
}

impl Address {
    pub(crate) fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let text = HeaderValue::try_from(ip.to_string());
        // An address is written in digits, letters, dots and colons.
        Self { ip, text: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")) }
    }

    /// This address, or another one.
    pub(crate) fn or(&self, other: IpAddr) -> Self {
        if other == self.ip { self.clone() } else { Self::new(other) }
    }
}

/// Says who the client is. What an untrusted peer said about that is thrown away first, in every
/// spelling.
pub(crate) fn forward(headers: &mut HeaderMap, arrival: &Arrival) {
    static OURS: [HeaderName; 7] = [
        FORWARDED,
        FORWARDED_FOR,
        FORWARDED_HOST,
        FORWARDED_PORT,
        FORWARDED_PREFIX,
        FORWARDED_PROTO,
        REAL_IP,
    ];
    // Looking at each name costs less than looking for each of ours.
    let said = |name: &HeaderName| is_alias(name, &OURS) || OURS.contains(name);
    if headers.keys().any(said) {
        let aliases: Vec<HeaderName> =
            headers.keys().filter(|name| is_alias(name, &OURS)).cloned().collect();
        let untrusted = OURS.iter().filter(|_| !arrival.trusted);
        for name in aliases.iter().chain(untrusted) {
            headers.remove(name);
        }
        append_for(headers, &arrival.peer);
        append_forwarded(headers, arrival.peer.ip);
    } else {
        headers.insert(FORWARDED_FOR, arrival.peer.text.clone());
    }
    headers.insert(REAL_IP, arrival.client.text.clone());
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(arrival.scheme));
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Adds the peer behind whatever stands there already, as one line.
fn append_for(headers: &mut HeaderMap, peer: &Address) {
    let lines = headers.get_all(FORWARDED_FOR).iter().chain([&peer.text]);
    let joined = lines.filter_map(|line| line.to_str().ok()).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(joined) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Adds the peer to what trusted proxies say in the standard's own header (RFC 7239), where they do.
fn append_forwarded(headers: &mut HeaderMap, peer: IpAddr) {
    let lines = headers.get_all(FORWARDED).iter().filter_map(|line| line.to_str().ok());
    let mut parts: Vec<String> = lines.map(str::to_owned).collect();
    if parts.is_empty() {
        return;
    }
    parts.push(match peer {
        IpAddr::V4(peer) => format!("for={peer}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
    });
    if let Ok(value) = HeaderValue::try_from(parts.join(", ")) {
        headers.insert(FORWARDED, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(trusted: bool) -> Arrival {
        let [peer, client] = ["10.0.0.1", "1.1.1.1"].map(|it| Address::new(it.parse().unwrap()));
        Arrival { peer, client, trusted, scheme: "https" }
    }

    fn forged() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-for", "x_forwarded_for", "x-real-ip", "forwarded"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("6.6.6.6"));
        }
        headers.insert("x-forwarded-proto", HeaderValue::from_static("ftp"));
        headers.insert(HOST, HeaderValue::from_static("shop.example"));
        headers
    }

    #[test]
    fn an_untrusted_peer_is_not_believed_in_any_spelling() {
        let mut headers = forged();
        forward(&mut headers, &arrival(false));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(headers["x-real-ip"], "1.1.1.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("forwarded"));
    }

    #[test]
    fn a_trusted_peer_is_added_to_the_chain() {
        let mut headers = forged();
        forward(&mut headers, &arrival(true));
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
        assert_eq!(headers["forwarded"], "6.6.6.6, for=10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "ftp");
        assert!(!headers.contains_key("x_forwarded_for"));
    }
}
