//! Fields that concern one connection only (RFC 9110, section 7.6.1).

use gray_propagation::{FieldName, Fields, Lines, lines, visible};
use http::header::HeaderValue;

use crate::field::{
    CONNECTION, HOST, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE,
};

/// Removes what was meant for the gateway from a request; an upgrade stays asked for where the connection
/// can be given away.
///
/// `TE: trailers` is said anew where the client said it, since the gateway passes trailers on.
pub(crate) fn strip_request(headers: &mut impl Fields, can_upgrade: bool) {
    if !has_some(headers) {
        return;
    }
    let upgrade = if can_upgrade && is_upgrade(headers) { protocols(headers) } else { None };
    let trailers = list(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    strip(headers);
    if trailers {
        headers.set(&TE, HeaderValue::from_static("trailers"));
    }
    restore_upgrade(headers, upgrade);
}

/// Returns the protocols that a request asks for. Those of HTTP itself are none: over a connection that has been
/// given away to them, requests would follow in lanes that nobody has chosen for them, and that nobody sees.
fn protocols(headers: &impl Lines) -> Option<HeaderValue> {
    const OF_HTTP: [&str; 4] = ["h2", "h2c", "http", "tls"];
    let is_other = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or_default().trim();
        !OF_HTTP.iter().any(|of_http| name.eq_ignore_ascii_case(of_http))
    };
    let others: Vec<&str> = list(headers, &UPGRADE).filter(is_other).collect();
    if others.is_empty() { None } else { HeaderValue::try_from(others.join(", ")).ok() }
}

/// Removes what was meant for the gateway from an answer; `upgraded` keeps the upgrade it grants.
pub(crate) fn strip_response(headers: &mut impl Fields, upgraded: bool) {
    if !has_some(headers) {
        return;
    }
    let upgrade = if upgraded { value(headers, &UPGRADE) } else { None };
    strip(headers);
    restore_upgrade(headers, upgrade);
}

/// Tells whether a message asks for, or grants, another protocol.
pub(crate) fn is_upgrade(headers: &impl Lines) -> bool {
    headers.has(&UPGRADE)
        && list(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

/// `HTTP2-Settings` goes with an upgrade to HTTP/2 (RFC 7540, section 3.2.1), which is obsolete.
pub(super) static OWN: [&FieldName; 7] = [
    &CONNECTION,
    &HTTP2_SETTINGS,
    &KEEP_ALIVE,
    &PROXY_CONNECTION,
    &TE,
    &TRANSFER_ENCODING,
    &UPGRADE,
];

/// Most messages have none of them, and looking at their names costs less than looking for each.
fn has_some(headers: &impl Fields) -> bool {
    headers.may_have_any(OWN)
}

fn strip(headers: &mut impl Fields) {
    let words = lines(headers, &CONNECTION).flat_map(|line| line.split(|byte| *byte == b','));
    let mut named: Vec<Vec<u8>> =
        words.map(|word| word.trim_ascii().to_ascii_lowercase()).collect();
    // There may be thousands of them.
    named.sort_unstable();
    let host = HOST.as_bytes();
    headers.keep(|name| {
        !OWN.iter().any(|own| name == own.as_bytes())
            // Whom a request is for concerns everybody (RFC 9110, section 7.6.1).
            && (name == host || named.binary_search_by(|named| (**named).cmp(name)).is_err())
    });
}

fn value(headers: &impl Lines, name: &FieldName) -> Option<HeaderValue> {
    HeaderValue::from_bytes(headers.first(name)?).ok()
}

fn restore_upgrade(headers: &mut impl Fields, upgrade: Option<HeaderValue>) {
    if let Some(protocol) = upgrade {
        headers.set(&UPGRADE, protocol);
        let both = headers.has(&TE);
        let named = HeaderValue::from_static(if both { "upgrade, te" } else { "upgrade" });
        headers.set(&CONNECTION, named);
    }
}

/// Returns the words of a list field over all its lines.
fn list<'a, L: Lines>(
    headers: &'a L,
    name: &FieldName,
) -> impl Iterator<Item = &'a str> + use<'a, L> {
    let words = lines(headers, name).filter_map(visible).flat_map(|line| line.split(','));
    words.map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[track_caller]
    fn check(before: &[(&'static str, &'static str)], after: &[(&'static str, &'static str)]) {
        let mut stripped = headers(before);
        strip_request(&mut stripped, true);
        assert_eq!(stripped, headers(after));
    }

    #[test]
    fn removes_what_concerns_one_connection() {
        check(
            &[
                ("connection", "close, x-one"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("keep-alive", "5"),
                ("proxy-connection", "close"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
            ],
            &[("x-two", "2")],
        );
    }

    #[test]
    fn passes_trailers_and_upgrades_on() {
        check(&[("te", "trailers, gzip;q=0.5"), ("connection", "te")], &[("te", "trailers")]);
        check(
            &[("connection", "Upgrade, x"), ("upgrade", "websocket"), ("x", "1")],
            &[("upgrade", "websocket"), ("connection", "upgrade")],
        );
        check(&[("upgrade", "h2c")], &[]);
        check(
            &[("connection", "upgrade, te"), ("upgrade", "a, b/1"), ("te", "trailers")],
            &[("upgrade", "a, b/1"), ("connection", "upgrade, te"), ("te", "trailers")],
        );
    }

    #[test]
    fn no_connection_is_given_away_to_http_itself() {
        for protocol in ["h2c", "H2C", "HTTP/2.0", "h2, http/1.1", "TLS/1.2"] {
            let settings = ("http2-settings", "AAMAAABkAAQAAP__");
            check(&[("connection", "upgrade"), ("upgrade", protocol), settings], &[]);
        }
        check(
            &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c, websocket")],
            &[("upgrade", "websocket"), ("connection", "upgrade")],
        );
        let mut elsewhere = headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        strip_request(&mut elsewhere, false);
        assert!(elsewhere.is_empty());
    }

    #[test]
    fn a_request_keeps_its_host_whatever_is_named() {
        check(&[("connection", "host, x"), ("host", "a"), ("x", "1")], &[("host", "a")]);
        let mut odd = headers(&[("x-one", "1")]);
        odd.insert(&*CONNECTION, HeaderValue::from_bytes(b"\xff, x-one").unwrap());
        strip_request(&mut odd, true);
        assert!(odd.is_empty());
    }
}
