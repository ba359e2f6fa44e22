//! Cookies of a request (RFC 6265, section 4.2.1), looked up without collecting them.

use gray_propagation::{FieldName, Lines, lines};

static COOKIE: FieldName = FieldName::from_static("cookie");

/// Returns the value of the first cookie of that name; names are case-sensitive.
pub(crate) fn cookie<'a>(headers: &'a dyn Lines, name: &str) -> Option<&'a [u8]> {
    let pairs = lines(headers, &COOKIE).flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(unquoted(value))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&'static str], expected: Option<&str>) {
        let mut headers = http::HeaderMap::new();
        for line in lines {
            headers.append(&*COOKIE, http::HeaderValue::from_static(line));
        }
        assert_eq!(cookie(&headers, "uid"), expected.map(str::as_bytes));
    }

    #[test]
    fn finds_the_first_of_its_name() {
        check(&["uid=7"], Some("7"));
        check(&["a=1; uid=7; uid=8"], Some("7"));
        check(&["a=1", "uid=\"7\""], Some("7"));
        check(&["xuid=7; uidx=8; UID=9; uid"], None);
        check(&["uid="], Some(""));
    }
}
