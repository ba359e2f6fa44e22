//! Who may ask a page that is on loopback: nobody whom a page of somebody else's sends here.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests that name the page by a name which is not its own: a browser is led here by such a name when its
/// owner has it lead to 127.0.0.1, and takes what it is answered for that owner's (DNS rebinding).
pub(super) async fn by_its_own_name(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    if host.is_none_or(is_own) {
        return next.run(request).await;
    }
    let said = "this page is on loopback: ask for it by 127.0.0.1 or localhost\n";
    (StatusCode::FORBIDDEN, said).into_response()
}

/// Whether a host is an address, or `localhost`: nobody else can have either lead here.
fn is_own(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_its_own() {
        for own in [
            "127.0.0.1",
            "127.0.0.1:9901",
            "localhost:9901",
            "LocalHost",
            "[::1]:9901",
            "[::1]",
            "10.0.0.9:1",
        ] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:9901",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9901",
            "a:b",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }
}
