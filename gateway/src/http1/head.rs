use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Response, StatusCode, Version};

use super::framing::Framing;

/// How long the head of an answer may be, and how many fields it may have.
const MAX_HEAD: usize = 256 << 10;
const MAX_FIELDS: usize = 256;

/// Finds the end of a head while it comes, and looks at each line once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Where the line begins whose end has not come.
    line: usize,
}

impl Scan {
    /// Returns where the head ends: behind its empty line.
    ///
    /// # Errors
    ///
    /// A line that does not end with CR LF: some take LF alone for an end, others do not.
    pub(super) fn end(&mut self, read: &[u8]) -> Result<Option<usize>, &'static str> {
        loop {
            let rest = read.get(self.line..).unwrap_or_default();
            let Some(feed) = memchr::memchr(b'\n', rest) else { return Ok(None) };
            let line = rest.get(..feed).unwrap_or_default();
            if line.last() != Some(&b'\r') {
                return Err("a line that does not end with CR LF");
            }
            self.line += feed + 1;
            if line.len() == 1 {
                return Ok(Some(self.line));
            }
        }
    }
}

/// Takes the head of an answer from what has come; `None` where that is not all of it.
///
/// # Errors
///
/// Says what is wrong with it.
pub(super) fn read_answer(
    read: &mut BytesMut,
    scan: &mut Scan,
) -> Result<Option<Response<()>>, &'static str> {
    let Some(end) = scan.end(read)? else {
        return if read.len() > MAX_HEAD {
            Err("an answer whose head does not end")
        } else {
            Ok(None)
        };
    };
    *scan = Scan::default();
    parse_answer(&read.split_to(end).freeze()).map(Some)
}

fn parse_answer(head: &Bytes) -> Result<Response<()>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, head, &mut fields);
    match status {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::Version) if is_later(head) => {
            return parse_answer(&as_if_known(head, b"HTTP/1.".len()));
        }
        Ok(httparse::Status::Partial) => return Err("an answer whose head is no head"),
        Err(error) => return Err(reason(error)),
    }
    let mut response = Response::new(());
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *response.status_mut() = code.ok_or("an answer without a status")?;
    *response.version_mut() =
        if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = map_of(head, parsed.headers)?;
    Ok(response)
}

/// Tells whether an answer names a later minor version.
fn is_later(head: &[u8]) -> bool {
    matches!(head, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b' ', ..])
}

/// A head of a later minor version, whose digit is at this place: it is read as if it were of the highest one
/// that is known (RFC 9110, section 2.5).
pub(super) fn as_if_known(head: &[u8], place: usize) -> Bytes {
    let mut head = head.to_vec();
    if let Some(digit) = head.get_mut(place) {
        *digit = b'1';
    }
    head.into()
}

/// Reads fields up to their empty line, such as trailers.
pub(super) fn read_fields(fields: &Bytes) -> Result<HeaderMap, &'static str> {
    let mut parsed = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(fields, &mut parsed) {
        Ok(httparse::Status::Complete((_, parsed))) => map_of(fields, parsed),
        Ok(httparse::Status::Partial) => Err("fields that do not end"),
        Err(error) => Err(reason(error)),
    }
}

/// The values are parts of the text, which is not copied.
pub(super) fn map_of(
    text: &Bytes,
    parsed: &[httparse::Header<'_>],
) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + MORE);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "a field's name")?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(field.value));
        headers.append(name, value.map_err(|_| "a field's value")?);
    }
    Ok(headers)
}

/// How many fields a gateway adds, for which there is room from the beginning.
const MORE: usize = 12;

pub(super) const fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field's name",
        httparse::Error::HeaderValue => "a field's value",
        httparse::Error::NewLine => "a line's end",
        httparse::Error::Status => "a status",
        httparse::Error::Token => "a token",
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::Version => "a version that is not HTTP/1",
    }
}

/// Writes the head of a request; `framing` is said where its headers do not say it.
pub(super) fn write_request(
    (method, target, headers): (&Method, &str, &HeaderMap),
    framing: Framing,
) -> BytesMut {
    let lengths = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let length = method.as_str().len() + target.len() + 64 + lengths.sum::<usize>();
    let mut to = BytesMut::with_capacity(length);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        to.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            to.extend_from_slice(part);
        }
    }
    match framing {
        Framing::Length(length) if !headers.contains_key(http::header::CONTENT_LENGTH) => {
            let line = format!("content-length: {length}\r\n");
            to.extend_from_slice(line.as_bytes());
        }
        Framing::Chunked => to.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if headers.contains_key(TE) && !headers.contains_key(CONNECTION) {
        // It concerns this connection only (RFC 9110, section 10.1.4).
        to.extend_from_slice(b"connection: te\r\n");
    }
    to.extend_from_slice(b"\r\n");
    to
}
