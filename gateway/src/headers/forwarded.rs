//! What an instance is told about the client.

use std::net::IpAddr;
use std::sync::Arc;

use gray_propagation::{FieldName, Fields as _, Lines as _, lines};

use super::alias::is_alias;
use crate::field::{
    CONTENT_LENGTH, FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HOST, REAL_IP,
    REQUEST_ID, TRANSFER_ENCODING,
};
use crate::head::HeadFields;

/// What else says who the client is, and by which name its request is known.
pub(super) static OURS: [&FieldName; 3] = [&FORWARDED, &REAL_IP, &REQUEST_ID];

/// What says how a message is framed, and whom it is for: servers that take underscores for dashes must not find
/// a second word about that.
static FRAMING: [&FieldName; 3] = [&CONTENT_LENGTH, &HOST, &TRANSFER_ENCODING];

/// How all other names begin that say something of the client: `X-Forwarded-For`, `X-Forwarded-User`, …
const PREFIX: &[u8] = b"x-forwarded-";

/// Whether a name is one that says who the client is.
pub(super) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(PREFIX) || OURS.iter().any(|own| name == own.as_bytes())
}

/// Whether a name is another spelling of one that is the gateway's own, or of one by which messages are framed.
pub(super) fn is_other_spelling(name: &[u8]) -> bool {
    let begins = || {
        let begin = name.get(..PREFIX.len()).unwrap_or_default();
        begin.len() == PREFIX.len()
            && begin
                .iter()
                .zip(PREFIX)
                .all(|(one, other)| one == other || (*one, *other) == (b'_', b'-'))
    };
    name.contains(&b'_')
        && (begins() && !name.starts_with(PREFIX)
            || is_alias(name, &OURS)
            || is_alias(name, &FRAMING))
}

/// How a request came to the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    /// The address that the connection came from.
    pub(crate) peer: &'a Address,
    /// The client, as far as trusted proxies vouch for it.
    pub(crate) client: &'a Address,
    /// Whether the peer is a trusted proxy.
    pub(crate) trusted: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// What is said of the peer where it is the client.
    pub(crate) said: &'a HeadFields,
}

/// Writes what is said of a peer that is the client, once for each connection.
pub(crate) fn said_of(peer: &Address, scheme: &str) -> HeadFields {
    let mut fields = HeadFields::default();
    fields.append(&FORWARDED_FOR, peer.text.as_bytes());
    fields.append(&REAL_IP, peer.text.as_bytes());
    fields.append(&FORWARDED_PROTO, scheme.as_bytes());
    fields
}

/// An address, and how it is written: a connection's is written once.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    text: Arc<str>,
}

impl Address {
    pub(crate) fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self { ip, text: ip.to_string().into() }
    }

    /// This address, or another one.
    pub(crate) fn or(&self, other: IpAddr) -> Self {
        if other == self.ip { self.clone() } else { Self::new(other) }
    }
}

/// Says who the client is. What an untrusted peer said about that is thrown away first, in every
/// spelling.
pub(crate) fn forward(headers: &mut HeadFields, arrival: &Arrival<'_>) {
    let some = headers.may_have_underscores() || headers.may_have_any(OURS);
    let is_peer = arrival.client.ip == arrival.peer.ip;
    if is_peer && !some && !headers.names().any(|name| name.starts_with(PREFIX)) {
        headers.append_all(arrival.said);
        headers.append_copy(&FORWARDED_HOST, &HOST);
        return;
    }
    headers.keep(|name| !is_other_spelling(name) && (arrival.trusted || !is_ours(name)));
    append_for(headers, arrival.peer);
    append_forwarded(headers, arrival.peer.ip);
    headers.insert(&REAL_IP, arrival.client.text.as_bytes());
    if !headers.has(&FORWARDED_PROTO) {
        headers.append(&FORWARDED_PROTO, arrival.scheme.as_bytes());
    }
    if !headers.has(&FORWARDED_HOST) {
        headers.append_copy(&FORWARDED_HOST, &HOST);
    }
}

/// Adds the peer behind whatever stands there already, as one line.
fn append_for(headers: &mut HeadFields, peer: &Address) {
    let said = lines(headers, &FORWARDED_FOR);
    let joined = said.chain([peer.text.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
    headers.insert(&FORWARDED_FOR, &joined);
}

/// Adds the peer to what trusted proxies say in the standard's own header (RFC 7239), where they do.
fn append_forwarded(headers: &mut HeadFields, peer: IpAddr) {
    if !headers.has(&FORWARDED) {
        return;
    }
    let own = match peer {
        IpAddr::V4(peer) => format!("for={peer}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
    };
    let said = lines(headers, &FORWARDED);
    let joined = said.chain([own.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
    headers.insert(&FORWARDED, &joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged() -> HeadFields {
        let mut headers = HeadFields::default();
        for name in ["x-forwarded-for", "x_forwarded_for", "x-real-ip", "forwarded"] {
            headers.append(&FieldName::from_static(name), b"6.6.6.6");
        }
        headers.append(&FORWARDED_PROTO, b"ftp");
        headers.append(&HOST, b"shop.example");
        headers
    }

    /// What an instance would make of it.
    fn forwarded(trusted: bool) -> http::HeaderMap {
        let mut headers = forged();
        let [peer, client] = ["10.0.0.1", "1.1.1.1"].map(|it| Address::new(it.parse().unwrap()));
        let (peer, client) = (&peer, &client);
        let said = &said_of(peer, "https");
        forward(&mut headers, &Arrival { peer, client, trusted, scheme: "https", said });
        http::HeaderMap::from(&headers)
    }

    #[test]
    fn an_untrusted_peer_is_not_believed_in_any_spelling() {
        let headers = forwarded(false);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(headers["x-real-ip"], "1.1.1.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("forwarded"));
    }

    #[test]
    fn a_trusted_peer_is_added_to_the_chain() {
        let headers = forwarded(true);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
        assert_eq!(headers["forwarded"], "6.6.6.6, for=10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "ftp");
        assert!(!headers.contains_key("x_forwarded_for"));
    }
}
