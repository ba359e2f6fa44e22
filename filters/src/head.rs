use std::net::IpAddr;

use gray_propagation::{FieldName, Lines};
use http::Method;

static HOST: FieldName = FieldName::from_static("host");

/// What a rule may look at: the head of a request, and who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it was sent, not decoded.
    pub path: &'a str,
    /// The query as it was sent, without the question mark.
    pub query: Option<&'a str>,
    /// The host that the target names, without a port, where it names one.
    pub target_host: Option<&'a str>,
    /// The headers.
    pub headers: &'a dyn Lines,
    /// The client's address.
    pub client: IpAddr,
}

impl<'a> Head<'a> {
    /// Returns the host that was asked for, without a port.
    pub fn host(&self) -> Option<&'a str> {
        self.target_host.or_else(|| self.headers.text(&HOST).map(without_port))
    }

    /// Returns the first line of a header, as the Spring Cloud design reads it.
    pub fn header(&self, name: &FieldName) -> Option<&'a [u8]> {
        self.headers.first(name)
    }
}

/// Returns a host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_without_its_port() {
        for (host, expected) in
            [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(host), expected);
        }
    }
}
