//! Texts that what they are compared with is never written like.

use gray_config::{Faults, KeyPath};

use super::test::TestProperties;

const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Warns of methods in small letters: their names mind case (RFC 9110, section 9.1).
pub(super) fn warn_of_method(test: &TestProperties, at: &KeyPath, faults: &mut Faults) {
    let meant = |text: &str| {
        let upper = text.to_ascii_uppercase();
        (upper != text && METHODS.contains(&upper.as_str())).then_some(upper)
    };
    for (at, text) in texts(test, at) {
        if let Some(meant) = meant(text).filter(|_| !test.ignore_case) {
            faults.warning(
                &at,
                format!("methods mind case: nobody asks for `{text}`, write `{meant}`"),
            );
        }
    }
}

/// Warns of hosts with a port: what is compared is the host without it.
pub(super) fn warn_of_host(test: &TestProperties, at: &KeyPath, faults: &mut Faults) {
    let has_port = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            digits && (!host.contains(':') || host.ends_with(']'))
        }
        None => false,
    };
    for (at, text) in texts(test, at) {
        if has_port(text) {
            faults.warning(
                &at,
                format!("the host is compared without its port, and is never `{text}`"),
            );
        }
    }
}

/// The texts that a whole value is compared with.
fn texts<'a>(test: &'a TestProperties, at: &KeyPath) -> impl Iterator<Item = (KeyPath, &'a str)> {
    let single = [("equal", &test.equal), ("notEqual", &test.not_equal)];
    let single = single.map(|(word, text)| (at.key(word), text.as_deref()));
    let many =
        [("in", &test.one_of), ("notIn", &test.none_of)].map(|(word, texts)| (at.key(word), texts));
    let many = many.into_iter().flat_map(|(at, texts)| {
        let texts = texts.iter().flatten().enumerate();
        texts.map(move |(index, text)| (at.index(index), Some(text.as_str())))
    });
    single.into_iter().chain(many).filter_map(|(at, text)| Some((at, text?)))
}

#[cfg(test)]
mod tests {
    use super::super::odd::tests::check_odd;

    #[test]
    fn warns_of_what_is_never_written_so() {
        check_odd("{name: a, lane: gray, when: {method: {equal: get}}}", "write `GET`");
        check_odd("{name: a, lane: gray, when: {method: {in: [GET, post]}}}", "write `POST`");
        check_odd("{name: a, lane: gray, when: {host: {equal: 'a.test:80'}}}", "never `a.test:80`");
        check_odd("{name: a, lane: gray, when: {host: {notIn: ['[::1]:80']}}}", "never `[::1]:80`");
    }
}
