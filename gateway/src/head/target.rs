use std::fmt;

use http::Method;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// The target of a request (RFC 9112, section 3.2; RFC 9113, section 8.3.1): its path and query as they came,
/// and the authority where the target named one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTarget {
    text: String,
    /// Where the question mark is, or the end.
    question: usize,
    authority: Option<Authority>,
}

impl RequestTarget {
    /// Reads a target as HTTP/1.1 has it: a path with its query, or a whole URL of `http` or `https`; with
    /// CONNECT an authority, with OPTIONS `*` too.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub(crate) fn read(text: &str, method: &Method) -> Result<Self, &'static str> {
        const NONE: &str = "the request's target is none";
        if text.starts_with('/') && *method != Method::CONNECT && is_path(text) {
            let question = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
            return Ok(Self { text: text.to_owned(), question, authority: None });
        }
        // Whoever parses a URI would lose it.
        if text.contains('#') {
            return Err("the request's target has a fragment");
        }
        let uri: Uri = text.parse().map_err(|_| NONE)?;
        let of_http = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
        let fits = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => of_http(scheme) && !authority.as_str().contains('@'),
            (None, Some(_)) => *method == Method::CONNECT,
            _ => text == "*" && *method == Method::OPTIONS,
        };
        if !fits {
            return Err(NONE);
        }
        let read = Self::from(&uri);
        // Without a path it is the whole server that is asked (RFC 9112, section 3.2.4).
        let whole =
            *method == Method::OPTIONS && matches!(uri.path(), "" | "/") && uri.query().is_none();
        if whole && uri.authority().is_some() && !text.ends_with('/') {
            return Ok(Self { text: "*".to_owned(), question: 1, ..read });
        }
        Ok(read)
    }

    /// Takes another path and query in place of its own, which the instance is to see.
    pub fn readdress(&mut self, target: &PathAndQuery) {
        self.text = target.to_string();
        self.question = memchr::memchr(b'?', self.text.as_bytes()).unwrap_or(self.text.len());
    }

    /// Forgets the authority: the path alone is what an instance is asked for.
    pub(crate) fn make_relative(&mut self) {
        self.authority = None;
    }

    /// Returns the path as it came.
    pub fn path(&self) -> &str {
        self.text.get(..self.question).unwrap_or_default()
    }

    /// Returns the query as it came, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.question + 1..)
    }

    /// Returns both.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the authority that the target names, if it does.
    pub const fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }
}

/// Whether this is a path, with a query or without, as [`PathAndQuery`] takes it; a fragment is none of it.
fn is_path(text: &str) -> bool {
    /// What that type can count.
    const LONGEST: usize = 65_534;
    const PATH: [bool; 256] = legal(true);
    const QUERY: [bool; 256] = legal(false);
    let fits = |bytes: &[u8], legal: &[bool; 256]| {
        bytes.iter().all(|byte| legal.get(usize::from(*byte)).copied().unwrap_or_default())
    };
    let question = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
    let (path, query) = text.as_bytes().split_at(question);
    text.len() <= LONGEST && fits(path, &PATH) && fits(query, &QUERY)
}

/// The bytes that may stand in a path, or in a query: more than RFC 3986 allows, since clients send them.
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "it runs at compile time"
)]
const fn legal(of_path: bool) -> [bool; 256] {
    let mut legal = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        legal[byte] = match byte as u8 {
            b'"' => of_path,
            b'?' | b'`' => !of_path,
            // The last are of characters, since the text is one.
            0x21 | 0x24..=0x3b | 0x3d | 0x40..=0x5f | 0x61..=0x7e | 0x80..=0xff => true,
            _ => false,
        };
        byte += 1;
    }
    legal
}

impl From<&Uri> for RequestTarget {
    fn from(uri: &Uri) -> Self {
        // Where the path is empty it is a slash (RFC 9110, section 4.2.3), which only this writes.
        let text = uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let question = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        Self { text, question, authority: uri.authority().cloned() }
    }
}

impl fmt::Display for RequestTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the type that everybody uses.
        #[test]
        fn a_path_is_what_http_takes_for_one(rest in "[\\x20-\\x7f?é]{0,6}") {
            let text = format!("/{rest}");
            let known = text.parse::<PathAndQuery>().ok();
            let known = known.filter(|known| known.as_str() == text);
            let read = RequestTarget::read(&text, &Method::GET);
            prop_assert_eq!(read.is_ok(), known.is_some(), "{:?}", text);
            if let (Ok(read), Some(known)) = (read, known) {
                prop_assert_eq!((read.path(), read.query()), (known.path(), known.query()));
                prop_assert_eq!(read.as_str(), known.as_str());
            }
        }
    }

    #[test]
    fn each_byte_is_taken_as_http_takes_it() {
        for byte in 0..=u8::MAX {
            for (before, after) in [("/a", ""), ("/a?", "b"), ("/", "?")] {
                let bytes = [before.as_bytes(), &[byte], after.as_bytes()].concat();
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let known = text.parse::<PathAndQuery>().is_ok_and(|it| it.as_str() == text);
                assert_eq!(RequestTarget::read(&text, &Method::GET).is_ok(), known, "{text:?}");
            }
        }
    }

    #[test]
    fn other_forms_are_for_whom_they_are_meant() {
        let read = |method: &Method, text: &str| RequestTarget::read(text, method);
        let whole = read(&Method::GET, "http://a.example:80/x?y").unwrap();
        assert_eq!((whole.as_str(), whole.query()), ("/x?y", Some("y")));
        for (text, query) in [("http://a?x=1", "x=1"), ("http://a?", "")] {
            let bare = read(&Method::GET, text).unwrap();
            assert_eq!((bare.path(), bare.query()), ("/", Some(query)));
            assert_eq!(bare.as_str(), format!("/?{query}"));
        }
        let bare = RequestTarget::from(&Uri::from("?x".parse::<PathAndQuery>().unwrap()));
        assert_eq!((bare.path(), bare.query(), bare.as_str()), ("/", Some("x"), "/?x"));
        assert_eq!(whole.authority().map(Authority::as_str), Some("a.example:80"));
        assert_eq!(read(&Method::OPTIONS, "*").unwrap().path(), "*");
        assert_eq!(read(&Method::OPTIONS, "http://a.example").unwrap().as_str(), "*");
        assert_eq!(read(&Method::OPTIONS, "http://a.example/").unwrap().as_str(), "/");
        assert_eq!(read(&Method::OPTIONS, "http://a.example?x").unwrap().as_str(), "/?x");
        assert!(read(&Method::CONNECT, "a.example:80").is_ok());
        for (method, text) in [
            (Method::GET, "*"),
            (Method::GET, "a.example:80"),
            (Method::GET, "ftp://a/"),
            (Method::GET, "http://u:p@a/"),
            (Method::GET, "http://a/#b"),
            (Method::GET, ""),
            (Method::CONNECT, "/a"),
        ] {
            assert!(read(&method, text).is_err(), "{method} {text}");
        }
    }
}
