use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use gray_propagation::Lines as _;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE};
use http::{StatusCode, Version};

use super::framing::Framing;
use crate::head::{AnswerHead, RequestHead};

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
) -> Result<Option<AnswerHead>, &'static str> {
    let Some(end) = scan.end(read)? else {
        return if read.len() > MAX_HEAD {
            Err("an answer whose head does not end")
        } else {
            Ok(None)
        };
    };
    *scan = Scan::default();
    let head = parse_answer(read.get(..end).unwrap_or_default())?;
    read.advance(end);
    Ok(Some(head))
}

fn parse_answer(text: &[u8]) -> Result<AnswerHead, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, text, &mut fields);
    match status {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::Version) if is_later(text) => {
            return parse_answer(&as_if_known(text, b"HTTP/1.".len()));
        }
        Ok(httparse::Status::Partial) => return Err("an answer whose head is no head"),
        Err(error) => return Err(reason(error)),
    }
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut head = AnswerHead {
        status: code.ok_or("an answer without a status")?,
        version: if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
        ..AnswerHead::default()
    };
    head.fields.read(text, found(parsed.headers)?);
    Ok(head)
}

/// The fields that were found in a text, as parts of it.
///
/// # Errors
///
/// A name that is longer than any library takes, so that it would be lost over HTTP/2.
pub(super) fn found<'a>(
    parsed: &[httparse::Header<'a>],
) -> Result<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>, &'static str> {
    if parsed.iter().any(|field| field.name.len() > usize::from(u16::MAX)) {
        return Err("a field's name");
    }
    Ok(parsed.iter().map(|field| (field.name.as_bytes(), field.value)))
}

/// Tells whether an answer names a later minor version.
fn is_later(head: &[u8]) -> bool {
    matches!(head, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b' ', ..])
}

/// A head of a later minor version, whose digit is at this place: it is read as if it were of the highest one
/// that is known (RFC 9110, section 2.5).
pub(super) fn as_if_known(head: &[u8], place: usize) -> Vec<u8> {
    let mut head = head.to_vec();
    if let Some(digit) = head.get_mut(place) {
        *digit = b'1';
    }
    head
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
fn map_of(text: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "a field's name")?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(field.value));
        headers.append(name, value.map_err(|_| "a field's value")?);
    }
    Ok(headers)
}

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

/// Writes the head of a request; `framing` is said where its fields do not say it.
pub(super) fn write_request(head: &RequestHead, framing: Framing) -> BytesMut {
    let RequestHead { method, target, fields, .. } = head;
    let target = if target.as_str().is_empty() { "/" } else { target.as_str() };
    let length = method.as_str().len() + target.len() + 64 + fields.size();
    let mut to = BytesMut::with_capacity(length);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        to.extend_from_slice(part.as_bytes());
    }
    for piece in fields.pieces(|_| true) {
        to.extend_from_slice(piece);
    }
    match framing {
        Framing::Length(length) if !fields.has(&http::header::CONTENT_LENGTH) => {
            let line = format!("content-length: {length}\r\n");
            to.extend_from_slice(line.as_bytes());
        }
        Framing::Chunked => to.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if fields.has(&TE) && !fields.has(&CONNECTION) {
        // It concerns this connection only (RFC 9110, section 10.1.4).
        to.extend_from_slice(b"connection: te\r\n");
    }
    to.extend_from_slice(b"\r\n");
    to
}
