use http::HeaderName;

/// Header fields that say something else, which would be overwritten by the name of a lane: by which messages are
/// framed, routed, understood and trusted (RFC 9110, 9111, 9112), by which proxies say who asked, and those that
/// carry contexts of their own.
const RESERVED: [&str; 64] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "baggage",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "grpc-timeout",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "retry-after",
    "server",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-graylane-decision",
    "x-graylane-explain",
    "x-graylane-hop",
    "x-graylane-path",
    "x-graylane-tag",
    "x-real-ip",
    "x-request-id",
    "x-http-method-override",
];

/// Tells whether a header field may carry the name of a lane beside `gray`, and says nothing else already.
pub fn may_carry(name: &HeaderName) -> bool {
    // Servers like those of CGI take an underscore for a dash.
    let name = name.as_str().replace('_', "-");
    let prefixes = ["x-forwarded-", "sec-", "access-control-"];
    !RESERVED.contains(&name.as_str()) && !prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_something_else_carries_no_lane() {
        for name in [
            "host",
            "Content-Length",
            "content_length",
            "x-forwarded-for",
            "x_forwarded_user",
            "X-Real_IP",
            "authorization",
            "transfer-encoding",
        ] {
            assert!(!may_carry(&name.parse().unwrap()), "{name}");
        }
        for name in ["x-mse-tag", "x-lane", "gray"] {
            assert!(may_carry(&name.parse().unwrap()), "{name}");
        }
    }
}
