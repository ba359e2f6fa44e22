use std::mem::MaybeUninit;

use bytes::Bytes;
use gray_propagation::Lines as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};

use super::framing::Framing;
use super::text::Text;
use crate::field::{CONNECTION, CONTENT_LENGTH, TE};
use crate::head::{AnswerHead, HeadFields, RequestHead};

/// How long the head of an answer may be, and how many fields it may have.
const MAX_HEAD: usize = 256 << 10;
const MAX_FIELDS: usize = 256;

/// Finds the end of a head while it comes, and looks at each line once.
///
/// Most heads come whole: that is tried first, and only where it fails is their end looked for, since who sends
/// one byte after the other would have all of them read anew each time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Where the line begins whose end has not come.
    line: usize,
    /// Whether it has been tried to read it as it came.
    tried: bool,
}

impl Scan {
    /// Tells, once, that what has come may be tried.
    pub(super) fn first(&mut self) -> bool {
        !std::mem::replace(&mut self.tried, true)
    }

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
    read: &[u8],
    scan: &mut Scan,
) -> Result<Option<(AnswerHead, usize)>, &'static str> {
    // An empty line before it would be read over.
    let begins = !matches!(read.first(), None | Some(b'\r' | b'\n'));
    let tried = if begins && scan.first() { parse_answer(read)? } else { None };
    let read = match tried {
        Some(_) => tried,
        None => match scan.end(read)? {
            Some(end) => parse_answer(read.get(..end).unwrap_or_default())?,
            None if read.len() > MAX_HEAD => return Err("an answer whose head does not end"),
            None => return Ok(None),
        },
    };
    *scan = Scan::default();
    match read {
        Some((_, end)) if end > MAX_HEAD => Err("an answer whose head does not end"),
        Some(read) => Ok(Some(read)),
        None => Err("an answer whose head is no head"),
    }
}

/// Reads a head at the beginning of what has come; `None` where that is not all of it.
fn parse_answer(text: &[u8]) -> Result<Option<(AnswerHead, usize)>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, text, &mut fields);
    let end = match status {
        Ok(httparse::Status::Complete(end)) => end,
        Err(httparse::Error::Version) if is_later(text) => {
            return parse_answer(&as_if_known(text, b"HTTP/1.".len()));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(reason(error)),
    };
    let text = text.get(..end).unwrap_or_default();
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let head = AnswerHead {
        status: code.ok_or("an answer without a status")?,
        version: if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
        fields: fields_of(text, parsed.headers)?,
    };
    Ok(Some((head, end)))
}

/// The fields that were found in the text of a whole head, as parts of it.
///
/// # Errors
///
/// A line that does not end with CR LF: some take LF alone for an end, others do not. A name that is longer than
/// any library takes, so that it would be lost over HTTP/2.
pub(super) fn fields_of(
    text: &[u8],
    parsed: &[httparse::Header<'_>],
) -> Result<HeadFields, &'static str> {
    const END: &[u8] = b"\r\n";
    if parsed.iter().any(|field| field.name.len() > usize::from(u16::MAX)) {
        return Err("a field's name");
    }
    // The line before all fields, and the empty one behind them.
    let first = parsed.first().map(|field| field.name.as_ptr().addr() - text.as_ptr().addr());
    let first = first.unwrap_or(text.len() - text.len().min(END.len()));
    let found = parsed.iter().map(|field| (field.name.as_bytes(), field.value));
    let fields = HeadFields::read(text, found);
    let ends = text.get(..first).is_some_and(|line| line.ends_with(END)) && text.ends_with(END);
    fields.filter(|_| ends).ok_or("a line that does not end with CR LF")
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
pub(super) fn write_request(head: &RequestHead, framing: Framing) -> Text {
    let RequestHead { method, target, fields, .. } = head;
    let target = if target.as_str().is_empty() { "/" } else { target.as_str() };
    let length = method.as_str().len() + target.len() + 64 + fields.room();
    let mut to = Text::with_capacity(length);
    to.push(method.as_str().as_bytes());
    to.push(b" ");
    to.push(target.as_bytes());
    to.push(b" HTTP/1.1\r\n");
    for piece in fields.pieces(|_| true) {
        to.push(piece);
    }
    match framing {
        Framing::Length(length) if !fields.has(&CONTENT_LENGTH) => {
            let line = format!("content-length: {length}\r\n");
            to.push(line.as_bytes());
        }
        Framing::Chunked => to.push(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if fields.has(&TE) && !fields.has(&CONNECTION) {
        // It concerns this connection only (RFC 9110, section 10.1.4).
        to.push(b"connection: te\r\n");
    }
    to.push(b"\r\n");
    to
}
