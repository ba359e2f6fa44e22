use bytes::Bytes;
use gray_propagation::Lines as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};

use super::framing::Framing;
use super::text::Text;
use crate::field::{CONNECTION, CONTENT_LENGTH, TE};
use crate::head::{AnswerHead, HeadFields, RequestHead, Wrong, text_end};

/// How long the head of an answer may be, and how many fields it may have.
const MAX_HEAD: usize = 256 << 10;
const MAX_FIELDS: usize = 256;

/// How long the version and the code at the beginning of an answer are.
const STATUS_LINE: usize = "HTTP/1.1 200".len();

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
    const VERSION: Result<Option<(AnswerHead, usize)>, &str> = Err("a version that is not HTTP/1");
    let Some((line, rest)) = text.split_at_checked(STATUS_LINE) else {
        return if b"HTTP/1.".starts_with(text.get(..7).unwrap_or(text)) {
            Ok(None)
        } else {
            VERSION
        };
    };
    // A later minor version is read as the highest that is known (RFC 9110, section 2.5).
    let (version, code) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', code @ ..] => {
            (Version::HTTP_10, code)
        }
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9', b' ', code @ ..] => {
            (Version::HTTP_11, code)
        }
        _ => return VERSION,
    };
    let status = StatusCode::from_bytes(code).map_err(|_| "a status")?;
    let Some(end) = text_end(text, STATUS_LINE) else { return Ok(None) };
    // Nobody reads the reason, but it stands behind a blank.
    let begins = matches!(rest.first(), Some(b' ' | b'\r'));
    let start = match text.get(end..) {
        Some([b'\r', b'\n', ..]) if begins => end + 2,
        Some([b'\r']) if begins => return Ok(None),
        _ => return Err("a line's end"),
    };
    match HeadFields::read(text, start, MAX_FIELDS) {
        Ok(Some((fields, end))) => Ok(Some((AnswerHead { status, version, fields }, end))),
        Ok(None) => Ok(None),
        Err(Wrong::TooMany) => Err("too many fields"),
        Err(Wrong::Line(what)) => Err(what),
    }
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

const fn reason(error: httparse::Error) -> &'static str {
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
