use std::net::IpAddr;

use gray_propagation::Lines;
use http::{HeaderName, Method};

/// What a rule may look at: the head of a request, and who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it was sent, not decoded.
    pub path: &'a str,
    /// The query as it was sent, without the question mark.
    pub query: Option<&'a str>,
    /// The host that was asked for, without a port.
    pub host: Option<&'a str>,
    /// The headers.
    pub headers: &'a dyn Lines,
    /// The client's address.
    pub client: IpAddr,
}

impl<'a> Head<'a> {
    /// Returns the first line of a header, as the Spring Cloud design reads it.
    pub fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.headers.first(name)
    }
}
