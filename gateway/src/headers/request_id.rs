use std::fmt;

use gray_propagation::Lines;

use crate::field::REQUEST_ID;

/// By which a request is found again in all logs.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    /// Hexadecimal digits.
    Drawn([u8; 32]),
    /// What a trusted peer gave.
    Given(Box<str>),
}

impl RequestId {
    /// Takes the id that a trusted peer gave, or makes one.
    pub(crate) fn of(headers: &impl Lines, trusted: bool) -> Self {
        let given = if trusted { headers.text(&REQUEST_ID) } else { None };
        let sane = given.filter(|id| id.len() <= 128);
        sane.map_or_else(Self::draw, |id| Self::Given(id.into()))
    }

    pub(crate) fn draw() -> Self {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut left = fastrand::u128(..);
        Self::Drawn(std::array::from_fn(|_| {
            let digit = DIGITS.get((left & 15) as usize).copied().unwrap_or(b'0');
            left >>= 4;
            digit
        }))
    }

    /// Returns the id's text.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Drawn(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Self::Given(text) => text,
        }
    }

    /// Returns the same as it is written.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Drawn(digits) => digits,
            Self::Given(text) => text.as_bytes(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn only_a_trusted_peer_chooses_it() {
        let headers =
            HeaderMap::from_iter([((*REQUEST_ID).clone(), HeaderValue::from_static("abc"))]);
        assert_eq!(RequestId::of(&headers, true).as_str(), "abc");
        assert_eq!(RequestId::of(&headers, false).as_str().len(), 32);
    }
}
