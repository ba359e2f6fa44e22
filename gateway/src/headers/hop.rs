//! Fields that concern one connection only (RFC 9110, section 7.6.1).

use gray_propagation::{Fields, Lines, lines, visible};
use http::header::{CONNECTION, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what was meant for the gateway from a request; an upgrade stays asked for.
///
/// `TE: trailers` is said anew where the client said it, since the gateway passes trailers on.
pub(crate) fn strip_request(headers: &mut impl Fields) {
    if !has_some(headers) {
        return;
    }
    let upgrade = if is_upgrade(headers) { value(headers, &UPGRADE) } else { None };
    let trailers = list(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    strip(headers);
    if trailers {
        headers.set(&TE, HeaderValue::from_static("trailers"));
    }
    restore_upgrade(headers, upgrade);
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

static OWN: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// Most messages have none of them, and looking at their names costs less than looking for each.
fn has_some(headers: &impl Fields) -> bool {
    headers.may_have_any(&OWN)
}

fn strip(headers: &mut impl Fields) {
    let named: Vec<String> = list(headers, &CONNECTION).map(str::to_ascii_lowercase).collect();
    headers.keep(|name| {
        !OWN.iter().any(|own| name == own.as_str().as_bytes())
            && !named.iter().any(|named| name == named.as_bytes())
    });
}

fn value(headers: &impl Lines, name: &HeaderName) -> Option<HeaderValue> {
    HeaderValue::from_bytes(headers.first(name)?).ok()
}

fn restore_upgrade(headers: &mut impl Fields, upgrade: Option<HeaderValue>) {
    if let Some(protocol) = upgrade {
        headers.set(&UPGRADE, protocol);
        headers.set(&CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Returns the words of a list field over all its lines.
fn list<'a, L: Lines>(
    headers: &'a L,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a, L> {
    let words = lines(headers, name).filter_map(visible).flat_map(|line| line.split(','));
    words.map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

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
