use gray_propagation::FieldName;

/// Tells whether a name is another spelling of one of these: CGI-like servers read `x_real_ip` as
/// `X-Real-IP`.
pub(super) fn is_alias(name: &[u8], of: &[&FieldName]) -> bool {
    let same = |other: &&FieldName| {
        other.as_bytes().len() == name.len()
            && name
                .iter()
                .zip(other.as_bytes())
                .all(|(one, other)| one == other || (*one == b'_' && *other == b'-'))
    };
    // Names are so short that a loop is fastest.
    name.contains(&b'_') && of.iter().any(same)
}
