use gray_propagation::Lines as _;
use http::{StatusCode, Version};
use http_body::SizeHint;

use super::date::write_date;
use super::framing::{Framing, length};
use super::outgoing::SMALL;
use super::text::Text;
use crate::field::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use crate::head::{AnswerHead, HeadFields};

/// How large the first piece of a body may be of which that is not known.
const CHUNK: usize = 512;

/// What of a request its answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    /// Whether only the head was asked for.
    pub(super) head_only: bool,
    /// Whether another request may follow.
    pub(super) stays: bool,
    /// Whether fields behind the body are understood.
    pub(super) trailers: bool,
}

/// Says how the body of an answer ends (RFC 9112, section 6.3), and whether the connection stays after it.
pub(super) fn frame(asked: Asked, head: &AnswerHead, hint: &SizeHint) -> (Framing, bool) {
    let bodiless = asked.head_only
        || head.status.is_informational()
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED;
    if bodiless {
        return (Framing::Empty, asked.stays);
    }
    let said = || length(&head.fields).ok().flatten();
    match hint.exact().or_else(said) {
        Some(length) => (Framing::Length(length), asked.stays),
        None if asked.version == Version::HTTP_11 => (Framing::Chunked, asked.stays),
        None => (Framing::UntilClose, false),
    }
}

/// Writes the head of an answer.
pub(super) fn write_answer(
    asked: Asked,
    head: &AnswerHead,
    (framing, stays): (Framing, bool),
) -> Text {
    let AnswerHead { status, fields, .. } = head;
    // A small body is put behind it.
    let body = match framing {
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX).min(SMALL),
        Framing::Chunked => CHUNK,
        _ => 0,
    };
    // The status line, and the fields that are added.
    let mut to = Text::with_capacity(160 + fields.room() + body);
    write_status(*status, &mut to);
    let upgraded = *status == StatusCode::SWITCHING_PROTOCOLS;
    let own = |name: &[u8]| {
        name == CONTENT_LENGTH.as_bytes()
            || name == TRANSFER_ENCODING.as_bytes()
            || (name == CONNECTION.as_bytes() && !upgraded)
    };
    for piece in fields.pieces(|name| !own(name)) {
        to.push(piece);
    }
    if !fields.has(&DATE) && !status.is_informational() {
        write_date(&mut to);
    }
    write_framing(asked, framing, *status, fields, &mut to);
    match (stays, asked.version) {
        _ if upgraded => {}
        (false, _) => to.push(b"connection: close\r\n"),
        (true, Version::HTTP_10) => to.push(b"connection: keep-alive\r\n"),
        (true, _) => {}
    }
    to.push(b"\r\n");
    to
}

fn write_status(status: StatusCode, to: &mut Text) {
    if status == StatusCode::OK {
        to.push(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    to.push(b"HTTP/1.1 ");
    to.push(status.as_str().as_bytes());
    to.push(b" ");
    to.push(status.canonical_reason().unwrap_or_default().as_bytes());
    to.push(b"\r\n");
}

fn write_framing(
    asked: Asked,
    framing: Framing,
    status: StatusCode,
    fields: &HeadFields,
    to: &mut Text,
) {
    let said = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked => {
            to.push(b"transfer-encoding: chunked\r\n");
            None
        }
        // How long it would have been (RFC 9110, section 8.6).
        Framing::Empty if asked.head_only || status == StatusCode::NOT_MODIFIED => {
            length(fields).ok().flatten()
        }
        Framing::Empty | Framing::UntilClose => None,
    };
    if let Some(length) = said {
        to.push(b"content-length: ");
        to.push(itoa::Buffer::new().format(length).as_bytes());
        to.push(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        asked: Asked,
        (status, lines): (u16, &[(&'static str, &'static str)]),
        hint: Option<u64>,
        expected: &str,
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let mut head = AnswerHead { status, ..AnswerHead::default() };
        head.fields.append(&DATE, b"now");
        for (name, value) in lines {
            head.fields.append(&gray_propagation::FieldName::from_static(name), value.as_bytes());
        }
        let hint = hint.map_or_else(SizeHint::new, SizeHint::with_exact);
        let framed = frame(asked, &head, &hint);
        let written = write_answer(asked, &head, framed);
        assert_eq!(String::from_utf8_lossy(written.left()).replace("date: now\r\n", ""), expected);
    }

    const GET: Asked =
        Asked { version: Version::HTTP_11, head_only: false, stays: true, trailers: false };

    #[test]
    fn an_answer_says_once_how_it_ends() {
        let ok = "HTTP/1.1 200 OK\r\n";
        check(GET, (200, &[]), Some(5), &format!("{ok}content-length: 5\r\n\r\n"));
        check(GET, (200, &[]), None, &format!("{ok}transfer-encoding: chunked\r\n\r\n"));
        let twice = [("content-length", "5"), ("content-length", "5")];
        check(GET, (200, &twice), None, &format!("{ok}content-length: 5\r\n\r\n"));
        let old = Asked { version: Version::HTTP_10, ..GET };
        check(old, (200, &[]), None, &format!("{ok}connection: close\r\n\r\n"));
        let kept = format!("{ok}content-length: 0\r\nconnection: keep-alive\r\n\r\n");
        check(old, (200, &[]), Some(0), &kept);
        let last = Asked { stays: false, ..GET };
        let closed = format!("{ok}content-length: 5\r\nconnection: close\r\n\r\n");
        check(last, (200, &[("connection", "keep-alive")]), Some(5), &closed);
    }

    #[test]
    fn some_answers_have_no_body() {
        let head = Asked { head_only: true, ..GET };
        let said = [("content-length", "17")];
        check(head, (200, &said), Some(0), "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n");
        check(head, (200, &[]), None, "HTTP/1.1 200 OK\r\n\r\n");
        check(GET, (204, &said), Some(0), "HTTP/1.1 204 No Content\r\n\r\n");
        check(
            GET,
            (304, &said),
            Some(0),
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 17\r\n\r\n",
        );
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
        let expected =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        check(GET, (101, &upgrade), Some(0), expected);
        check(GET, (299, &[]), Some(0), "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n");
    }
}
