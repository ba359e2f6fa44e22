use http::HeaderName;

/// Tells whether a name is another spelling of one of these: CGI-like servers read `x_real_ip` as
/// `X-Real-IP`.
pub(super) fn is_alias(name: &[u8], of: &[HeaderName]) -> bool {
    let same = |other: &HeaderName| {
        other.as_str().len() == name.len()
            && name
                .iter()
                .zip(other.as_str().bytes())
                .all(|(one, other)| *one == other || (*one == b'_' && other == b'-'))
    };
    // Names are so short that a loop is fastest.
    name.contains(&b'_') && of.iter().any(same)
}
