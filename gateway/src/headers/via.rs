//! The `Via` field (RFC 9110, section 7.6.3): who passed a message on.

use gray_propagation::{Lines, lines, visible};
use http::Version;

use crate::field::VIA;
use crate::head::HeadFields;

/// The name under which this gateway signs.
const PSEUDONYM: &str = "graylane";

/// Returns how often a message has been through a gateway of this name.
pub(crate) fn passes(headers: &impl Lines) -> usize {
    let hops = lines(headers, &VIA).filter_map(visible).flat_map(|line| line.split(','));
    hops.filter(|hop| hop.split_ascii_whitespace().nth(1) == Some(PSEUDONYM)).count()
}

/// Signs a message that came in this version.
pub(crate) fn sign(headers: &mut HeadFields, version: Version) {
    let value = match version {
        Version::HTTP_2 => "2 graylane",
        Version::HTTP_10 => "1.0 graylane",
        _ => "1.1 graylane",
    };
    headers.append(&VIA, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_its_own_signature_only() {
        let mut headers = HeadFields::default();
        headers.append(&VIA, b"1.1 nginx, 2 graylane");
        sign(&mut headers, Version::HTTP_11);
        assert_eq!(passes(&headers), 2);
    }
}
