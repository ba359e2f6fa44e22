//! The `Via` field (RFC 9110, section 7.6.3): who passed a message on.

use http::Version;
use http::header::{HeaderMap, HeaderValue, VIA};

/// The name under which this gateway signs.
const PSEUDONYM: &str = "graylane";

/// Returns how often a message has been through a gateway of this name.
pub(crate) fn passes(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
    let hops = lines.flat_map(|line| line.split(','));
    hops.filter(|hop| hop.split_ascii_whitespace().nth(1) == Some(PSEUDONYM)).count()
}

/// Signs a message that came in this version.
pub(crate) fn sign(headers: &mut HeaderMap, version: Version) {
    let value = match version {
        Version::HTTP_2 => "2 graylane",
        Version::HTTP_10 => "1.0 graylane",
        _ => "1.1 graylane",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_its_own_signature_only() {
        let mut headers = HeaderMap::new();
        headers.append(VIA, HeaderValue::from_static("1.1 nginx, 2 graylane"));
        sign(&mut headers, Version::HTTP_11);
        assert_eq!(passes(&headers), 2);
    }
}
