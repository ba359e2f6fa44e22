//! Fields that concern one connection only (RFC 9110, section 7.6.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what was meant for the gateway from a request; an upgrade stays asked for.
///
/// `TE: trailers` is said anew where the client said it, since the gateway passes trailers on.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    let upgrade = is_upgrade(headers).then(|| headers.get(UPGRADE).cloned()).flatten();
    let trailers = list(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    strip(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    restore_upgrade(headers, upgrade);
}

/// Removes what was meant for the gateway from an answer; `upgraded` keeps the upgrade it grants.
pub(crate) fn strip_response(headers: &mut HeaderMap, upgraded: bool) {
    let upgrade = if upgraded { headers.get(UPGRADE).cloned() } else { None };
    strip(headers);
    restore_upgrade(headers, upgrade);
}

/// Tells whether a message asks for, or grants, another protocol.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && list(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

fn strip(headers: &mut HeaderMap) {
    static OWN: [HeaderName; 6] =
        [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];
    // Most messages have none of them, and looking at their names costs less than looking for each.
    if !headers.keys().any(|name| OWN.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> =
        list(headers, &CONNECTION).filter_map(|word| word.parse().ok()).collect();
    for name in named.iter().chain(&OWN) {
        headers.remove(name);
    }
}

fn restore_upgrade(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Returns the words of a list field over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
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
        strip_request(&mut stripped);
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
    }
}
