use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries a [`RequestId`].
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// By which a request is found again in all logs.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// Takes the id that a trusted peer gave, or makes one.
    pub(crate) fn of(headers: &HeaderMap, trusted: bool) -> Self {
        let given = headers.get(REQUEST_ID).filter(|_| trusted);
        let sane = given.filter(|id| id.len() <= 128 && id.to_str().is_ok());
        Self(sane.cloned().unwrap_or_else(Self::draw))
    }

    fn draw() -> HeaderValue {
        let id = format!("{:032x}", fastrand::u128(..));
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }

    /// Returns the id as a header value.
    pub(crate) const fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// Returns the id's text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_peer_chooses_it() {
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("abc"))]);
        assert_eq!(RequestId::of(&headers, true).as_str(), "abc");
        assert_eq!(RequestId::of(&headers, false).as_str().len(), 32);
    }
}
