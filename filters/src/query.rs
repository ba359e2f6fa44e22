//! Query parameters (WHATWG URL, `application/x-www-form-urlencoded`), looked up one at a time.

use std::borrow::Cow;

/// Returns the decoded value of the first parameter of that name.
pub(crate) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}

/// Decodes `%XX` and `+`; what is no valid escape stays as it is.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        (rest, plain) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (tail, push(plain, high << 4 | low)),
                _ => (rest.split_at(1).1, push(plain, b'%')),
            },
            (b'+', tail) => (tail, push(plain, b' ')),
            (byte, tail) => (tail, push(plain, *byte)),
        };
    }
    Cow::Owned(plain)
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Option<&str>) {
        assert_eq!(parameter(query, "uid").as_deref(), expected.map(str::as_bytes), "{query}");
    }

    #[test]
    fn finds_and_decodes_a_parameter() {
        check("uid=7", Some("7"));
        check("a=1&uid=7&uid=8", Some("7"));
        check("uid", Some(""));
        check("%75id=a%20b+c", Some("a b c"));
        check("uid=%zz%4", Some("%zz%4"));
        check("uids=7", None);
        check("", None);
    }
}
