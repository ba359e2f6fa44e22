use memchr::memrchr;

/// Tells whether this names a host, and maybe a port, without anybody's name before it (RFC 9110, section 7.2;
/// RFC 3986, section 3.2.2). A host without a name is none (RFC 9110, section 4.2.1).
pub(crate) fn is_host(value: &[u8]) -> bool {
    const NAME: [bool; 256] = of_names();
    let host = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (inside, behind) = (rest.get(..end), rest.get(end + 1..));
            let inside = inside.and_then(|inside| std::str::from_utf8(inside).ok());
            return is_port(behind.unwrap_or_default()) && inside.is_some_and(is_literal);
        }
        _ => memrchr(b':', value).map_or(value, |colon| {
            let (host, port) = value.split_at(colon);
            if is_port(port) { host } else { value }
        }),
    };
    !host.is_empty()
        && host.iter().all(|byte| NAME.get(usize::from(*byte)).copied().unwrap_or_default())
}

/// Nothing, or a colon and digits, of which there may be none.
fn is_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// An address of version 6, or of one that is still to come.
fn is_literal(inside: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte);
    let later = inside.strip_prefix(['v', 'V']).and_then(|later| later.split_once('.'));
    inside.parse::<std::net::Ipv6Addr>().is_ok()
        || later.is_some_and(|(version, text)| {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !text.is_empty()
                && text.bytes().all(legal)
        })
}

/// What names are made of: unreserved characters, those that delimit parts of them, and the beginning of those
/// that are said by their number.
#[allow(clippy::indexing_slicing, reason = "it runs at compile time")]
const fn of_names() -> [bool; 256] {
    let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=%";
    let (mut legal, mut place) = ([false; 256], 0);
    while place < all.len() {
        legal[all[place] as usize] = true;
        place += 1;
    }
    legal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for right in [
            "a",
            "a.example",
            "a:80",
            "a:",
            "1.2.3.4:8080",
            "[::1]",
            "[::1]:80",
            "a_b",
            "%e4.example",
            "[v1.a:b]",
            "xn--a",
        ] {
            assert!(is_host(right.as_bytes()), "{right:?}");
        }
        for wrong in [
            "", ":80", "a b", "a/b", "x@y", "a?", "a#b", "a:80:80", "a:b", "::1", "[::1", "[::1]a",
            "[::1]:x", "[g]", "a\\b", "\"a\"", "a\t", "[v.a]", "ä",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
