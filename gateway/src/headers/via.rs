//! The `Via` field (RFC 9110, section 7.6.3): who passed a message on.

use std::sync::LazyLock;

use gray_propagation::{Lines, lines};
use http::Version;

use crate::field::VIA;
use crate::head::HeadFields;

/// The name under which this gateway signs.
const PSEUDONYM: &[u8] = b"graylane";

/// Returns how often a message has been through a gateway of this name.
pub(crate) fn passes(headers: &impl Lines) -> usize {
    if !headers.has(&VIA) {
        return 0;
    }
    let hops = lines(headers, &VIA).flat_map(|line| line.split(|byte| *byte == b','));
    let signed = |hop: &&[u8]| {
        let mut words = hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1) == Some(PSEUDONYM)
    };
    hops.filter(signed).count()
}

/// Signs a message that came in this version.
pub(crate) fn sign(headers: &mut HeadFields, version: Version) {
    /// Each is written once.
    static SIGNATURES: LazyLock<[HeadFields; 3]> = LazyLock::new(|| {
        [&b"1.0 graylane"[..], b"1.1 graylane", b"2 graylane"].map(|value| {
            let mut fields = HeadFields::default();
            fields.append(&VIA, value);
            fields
        })
    });
    let [one_zero, one_one, two] = &*SIGNATURES;
    headers.append_all(match version {
        Version::HTTP_2 => two,
        Version::HTTP_10 => one_zero,
        _ => one_one,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_its_own_signature_only() {
        let mut headers = HeadFields::default();
        headers.append(&VIA, b"1.1 nginx, 2 graylane");
        headers.append(&VIA, b"\xff,1.1  graylane (x), 1.1 graylanes");
        sign(&mut headers, Version::HTTP_11);
        assert_eq!(passes(&headers), 3);
    }
}
