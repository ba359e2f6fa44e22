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
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut left = fastrand::u128(..);
        let id: [u8; 32] = std::array::from_fn(|_| {
            let digit = DIGITS.get((left & 15) as usize).copied().unwrap_or(b'0');
            left >>= 4;
            digit
        });
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
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
