use gray_propagation::{Lines as _, lines};
use http::{Method, Version};

use super::framing::{Framing, stays};
use super::head::Scan;
use crate::Error;
use crate::field::{EXPECT, HOST, TE};
use crate::head::{HeadFields, RequestHead, RequestTarget, Wrong, is_host, is_token};

/// How many empty lines a client may send before a request (RFC 9112, section 2.2, asks for one at least).
const EMPTY_LINES: usize = 4;

/// How much of a head is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    /// Its bytes.
    pub(super) size: usize,
    /// Its fields.
    pub(super) fields: usize,
    /// The bytes of its target.
    pub(super) target: usize,
}

/// Reads the heads of requests, one after the other.
#[derive(Debug)]
pub(super) struct HeadReader {
    limits: HeadLimits,
    scan: Scan,
    empty_lines: usize,
}

/// The head of a request, and what it says about how it is spoken.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) head: Box<RequestHead>,
    pub(super) framing: Framing,
    /// Whether another request may follow.
    pub(super) stays: bool,
    /// Whether the client waits to be asked for the body.
    pub(super) expects: bool,
    /// Whether it understands fields behind a body (RFC 9110, section 6.5.1).
    pub(super) trailers: bool,
}

impl HeadReader {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, scan: Scan::default(), empty_lines: 0 }
    }

    /// Takes the head of a request from what has come, and says how much of that is of no use any more; `None`
    /// where it is not all of it.
    ///
    /// # Errors
    ///
    /// Why the request is refused. Where the next one begins is unknown then.
    pub(super) fn next(&mut self, read: &[u8]) -> (Result<Option<Asking>, Error>, usize) {
        let mut empty = 0;
        while self.empty_lines < EMPTY_LINES
            && read.get(empty..).is_some_and(|read| read.starts_with(b"\r\n"))
        {
            empty += 2;
            self.empty_lines += 1;
        }
        match self.take(read.get(empty..).unwrap_or_default()) {
            Ok(Some((asking, end))) => {
                (self.scan, self.empty_lines) = (Scan::default(), 0);
                (Ok(Some(asking)), empty + end)
            }
            Ok(None) => (Ok(None), empty),
            Err(error) => (Err(error), empty),
        }
    }

    fn take(&mut self, read: &[u8]) -> Result<Option<(Asking, usize)>, Error> {
        if read.is_empty() {
            return Ok(None);
        }
        let limit = self.limits.size;
        if read.len() <= limit
            && !matches!(read.first(), Some(b'\r' | b'\n'))
            && self.scan.first()
            && let Some(taken) = self.parse(read)?
        {
            return Ok(Some(taken));
        }
        let end = self.scan.end(read).map_err(Error::BadRequest)?;
        if end.unwrap_or(read.len()) > limit {
            let line = memchr::memchr(b'\n', read).unwrap_or(read.len());
            // Its target alone is longer than that, or its fields are.
            return Err(if line > limit { Error::TargetTooLong } else { Error::HeadTooLarge });
        }
        let Some(end) = end else { return Ok(None) };
        let taken = self.parse(read.get(..end).unwrap_or_default())?;
        taken.map(Some).ok_or(Error::BadRequest("no request line"))
    }

    /// Reads a head at the beginning of what has come; `None` where that is not all of it.
    fn parse(&self, text: &[u8]) -> Result<Option<(Asking, usize)>, Error> {
        let Some(RequestLine { method, target, version, end }) = RequestLine::read(text)? else {
            return Ok(None);
        };
        if target.len() > self.limits.target {
            return Err(Error::TargetTooLong);
        }
        let (fields, end) = match HeadFields::read(text, end, self.limits.fields) {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(Wrong::TooMany) => return Err(Error::HeadTooLarge),
            Err(Wrong::Line(what)) => return Err(Error::BadRequest(what)),
        };
        let target = RequestTarget::read(target, &method).map_err(Error::BadRequest)?;
        check_host(version, &fields)?;
        let framing = Framing::of_request(version, &fields).map_err(Error::BadRequest)?;
        // What follows upon CONNECT is another protocol, which this gateway does not speak.
        let stays = stays(version, &fields) && method != Method::CONNECT;
        let expects = version == Version::HTTP_11 && expects_invitation(&fields);
        let trailers = version == Version::HTTP_11 && takes_trailers(&fields);
        let head = Box::new(RequestHead { method, target, version, fields });
        Ok(Some((Asking { head, framing, stays, expects, trailers }, end)))
    }
}

/// The first line of a request (RFC 9112, section 3), and where it ends.
struct RequestLine<'a> {
    method: Method,
    target: &'a str,
    version: Version,
    end: usize,
}

impl<'a> RequestLine<'a> {
    /// Reads the line that a text begins with; `None` where it has not come.
    fn read(text: &'a [u8]) -> Result<Option<Self>, Error> {
        const END: usize = " HTTP/1.1\r\n".len();
        let Some(first) = text.iter().position(|byte| !is_token(*byte)) else { return Ok(None) };
        let (method, rest) = text.split_at(first);
        let method = Method::from_bytes(method).ok().filter(|_| rest.starts_with(b" "));
        let method = method.ok_or(Error::BadRequest("a method"))?;
        let rest = rest.get(1..).unwrap_or_default();
        let Some(second) = memchr::memchr(b' ', rest) else { return Ok(None) };
        let (target, rest) = rest.split_at(second);
        let target = std::str::from_utf8(target);
        let target = target.map_err(|_| Error::BadRequest("the request's target is none"))?;
        let Some(rest) = rest.get(..END) else { return Ok(None) };
        let version = match rest {
            [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', b'\n'] => {
                version_of(*major, *minor)?
            }
            _ => return Err(Error::BadRequest("a version")),
        };
        Ok(Some(Self { method, target, version, end: first + 1 + second + END }))
    }
}

/// A later minor version is read as the highest that is known (RFC 9110, section 2.5).
fn version_of(major: u8, minor: u8) -> Result<Version, Error> {
    match (major, minor) {
        (b'1', b'0') => Ok(Version::HTTP_10),
        (b'1', b'1'..=b'9') => Ok(Version::HTTP_11),
        (b'0' | b'2'..=b'9', b'0'..=b'9') => Err(Error::Version),
        _ => Err(Error::BadRequest("a version")),
    }
}

/// Says whether it is known whom a request is for (RFC 9112, section 3.2): where it is not, others may read
/// whatever follows otherwise, too.
fn check_host(version: Version, fields: &HeadFields) -> Result<(), Error> {
    match fields.first(&HOST) {
        None if version == Version::HTTP_10 => Ok(()),
        None => Err(Error::BadRequest("the request has no Host")),
        Some(_) if fields.line(&HOST, 1).is_some() => {
            Err(Error::BadRequest("the request has more than one Host"))
        }
        Some(host) if !is_host(host) => Err(Error::BadRequest("the request's host is none")),
        Some(_) => Ok(()),
    }
}

fn expects_invitation(fields: &HeadFields) -> bool {
    fields.first(&EXPECT).is_some_and(|it| it.eq_ignore_ascii_case(b"100-continue"))
}

fn takes_trailers(fields: &HeadFields) -> bool {
    let mut words = lines(fields, &TE).flat_map(|line| line.split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, BytesMut};
    use gray_propagation::FieldName;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 512, fields: 8, target: 64 };

    /// Reads a head that comes in pieces of this length.
    fn read(text: &[u8], step: usize) -> Result<(Asking, Vec<u8>), Error> {
        let (mut reader, mut buffer) = (HeadReader::new(LIMITS), BytesMut::new());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            let (taken, count) = reader.next(&buffer);
            buffer.advance(count);
            if let Some(head) = taken? {
                return Ok((head, buffer.to_vec()));
            }
        }
        Err(Error::BadRequest("it does not end"))
    }

    #[track_caller]
    fn refused(text: &str, status: u16) {
        for step in [1, text.len()] {
            match read(text.as_bytes(), step) {
                Err(error) => assert_eq!(error.status(), status, "{text:?}: {error}"),
                Ok((head, _)) => panic!("{text:?} was read as {head:?}"),
            }
        }
    }

    #[test]
    fn a_head_is_read_in_whatever_pieces_it_comes() {
        let text = b"\r\nGET /a?b=%20c HTTP/1.1\r\nHost: x\r\nA: 1\r\na:  2 \r\n\r\nGET";
        for step in 1..text.len() - 3 {
            let (asking, _) = read(text, step).unwrap();
            let Asking { head, framing, stays, expects, trailers } = asking;
            assert_eq!((&head.method, head.target.as_str()), (&Method::GET, "/a?b=%20c"));
            let values: Vec<_> = lines(&head.fields, &FieldName::from_static("a")).collect();
            assert_eq!(values, [b"1", b"2"]);
            assert_eq!((framing, stays, expects, trailers), (Framing::Empty, true, false, false));
        }
        assert_eq!(read(text, text.len()).unwrap().1, b"GET");
    }

    #[test]
    fn what_a_head_says_about_its_connection_is_understood() {
        let of = |lines: &str, version: &str| {
            let text = format!("POST / HTTP/{version}\r\nHost: x\r\n{lines}\r\n");
            read(text.as_bytes(), text.len()).unwrap().0
        };
        assert!(!of("Connection: x, CLOSE\r\n", "1.1").stays);
        assert!(!of("", "1.0").stays);
        assert!(of("Connection: keep-alive\r\n", "1.0").stays);
        assert!(of("Expect: 100-Continue\r\n", "1.1").expects);
        assert!(!of("Expect: 100-continue\r\n", "1.0").expects);
        assert!(of("TE: gzip, trailers\r\n", "1.1").trailers);
        assert_eq!(of("Content-Length: 7\r\n", "1.0").framing, Framing::Length(7));
        assert_eq!(of("Transfer-Encoding: chunked\r\n", "1.1").framing, Framing::Chunked);
    }

    #[test]
    fn what_can_be_read_otherwise_is_refused() {
        for wrong in [
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /  HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET / HTTP/11\r\n\r\n",
            "GET / HTTP/1.10\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA : 1\r\n\r\n",
            "GET / HTTP/1.1\r\n A: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
            "GET / HTTP/1.1\r\nA: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nA: a\rb\r\n\r\n",
            "GET /#a HTTP/1.1\r\n\r\n",
            "GET a HTTP/1.1\r\n\r\n",
            "GET a:80 HTTP/1.1\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\n\r\n",
            "GET http://u:p@a/ HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "CONNECT /a HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            // None of them for want of a host.
            refused(&with_host(wrong), 400);
        }
    }

    fn with_host(text: &str) -> String {
        text.replacen(" HTTP/1.1\r\n", " HTTP/1.1\r\nHost: x\r\n", 1)
    }

    #[test]
    fn whom_a_request_is_for_is_known() {
        for wrong in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nhost: b\r\n",
            "Host:\r\n",
            "Host: :80\r\n",
            "Host: a b\r\n",
        ] {
            refused(&format!("GET / HTTP/1.1\r\n{wrong}\r\n"), 400);
        }
        assert!(read(b"GET / HTTP/1.0\r\n\r\n", 9).is_ok());
    }

    #[test]
    fn too_much_is_refused_as_what_it_is() {
        refused(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64)), 414);
        refused(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(600)), 414);
        refused(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(600)), 431);
        refused(&with_host(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(8))), 431);
        refused("GET / HTTP/2.0\r\n\r\n", 505);
        let most = with_host(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(7)));
        assert_eq!(read(most.as_bytes(), 7).unwrap().0.head.fields.len(), 8);
        assert!(read(b"GET http://a.example:80/x HTTP/1.1\r\nHost: a\r\n\r\n", 9).is_ok());
        let (later, _) = read(b"GET /a HTTP/1.7\r\nHost: a\r\n\r\n", 9).unwrap();
        assert_eq!((later.head.version, later.stays), (Version::HTTP_11, true));
        assert!(read(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 9).is_ok());
    }
}
