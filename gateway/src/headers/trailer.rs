//! Fields behind a body (RFC 9110, section 6.5.1): what only a head may say is taken off.

use crate::field::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, HOST, MAX_FORWARDS, PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
    REQUEST_ID, SET_COOKIE, TRAILER, VIA, WWW_AUTHENTICATE,
};
use gray_propagation::{FieldName, Fields};

use super::alias::is_alias;
use super::forwarded::{is_other_spelling, is_ours};
use super::hop::strip_response;

/// How a message is framed, whom it is for, what is in it, and who sent it: whoever has begun with it knows that
/// already, and one who joins both parts would take the later word.
static OF_HEADS: [&FieldName; 19] = [
    &AUTHORIZATION,
    &CACHE_CONTROL,
    &CONTENT_ENCODING,
    &CONTENT_LENGTH,
    &CONTENT_RANGE,
    &CONTENT_TYPE,
    &COOKIE,
    &EXPECT,
    &HOST,
    &MAX_FORWARDS,
    &PRAGMA,
    &PROXY_AUTHENTICATE,
    &PROXY_AUTHORIZATION,
    &RANGE,
    &REQUEST_ID,
    &SET_COOKIE,
    &TRAILER,
    &VIA,
    &WWW_AUTHENTICATE,
];

/// Removes what is none of a trailer's, in every spelling, and what concerns one connection.
pub(crate) fn strip_trailers(trailers: &mut impl Fields) {
    strip_response(trailers, false);
    trailers.keep(|name| {
        let known = is_ours(name) || OF_HEADS.iter().any(|own| name == own.as_bytes());
        !known
            && !name.starts_with(b"if-")
            && !is_alias(name, &OF_HEADS)
            && !is_other_spelling(name)
    });
}

#[cfg(test)]
mod tests {
    use gray_propagation::may_carry;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    /// `host` and `content-length` once were overwritten by the name of a lane.
    #[test]
    fn what_says_something_else_carries_no_lane() {
        for own in OF_HEADS.iter().chain(&super::super::hop::OWN) {
            let name = HeaderName::from_bytes(own.as_bytes()).unwrap();
            assert!(!may_carry(&name), "{name}");
        }
    }

    #[test]
    fn what_only_a_head_may_say_is_taken_off() {
        let mut trailers = HeaderMap::new();
        for name in [
            "grpc-status",
            "x-checksum",
            "host",
            "content-length",
            "transfer-encoding",
            "x-forwarded-for",
            "x_real_ip",
            "x-request-id",
            "authorization",
            "set-cookie",
            "content_length",
            "x-forwarded-user",
            "x_forwarded-ssl",
            "if-match",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("0"));
        }
        strip_trailers(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }
}
