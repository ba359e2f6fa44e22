use gray_propagation::{Lines, lines};
use http::{Method, StatusCode, Version};

use crate::field::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use crate::head::HeadFields;

/// How the end of a body is found (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

impl Framing {
    /// Returns how the body of a request ends (RFC 9112, section 6.3).
    ///
    /// # Errors
    ///
    /// Says what leaves room for more than one reading, by which a request could be smuggled past a gateway.
    pub(super) fn of_request(version: Version, headers: &impl Lines) -> Result<Self, &'static str> {
        Ok(match said(version, headers)? {
            (_, true) => Self::Chunked,
            (None | Some(0), false) => Self::Empty,
            (Some(length), false) => Self::Length(length),
        })
    }

    /// Returns how the body of an answer ends (RFC 9112, section 6.3).
    ///
    /// # Errors
    ///
    /// Says what leaves room for more than one reading: whoever reads it otherwise than this gateway would
    /// take the rest for another answer.
    pub(super) fn of_answer(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &impl Lines,
    ) -> Result<Self, &'static str> {
        let (length, chunked) = said(version, headers)?;
        let bodiless = *method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        Ok(match length {
            _ if bodiless => Self::Empty,
            _ if chunked => Self::Chunked,
            Some(0) => Self::Empty,
            Some(length) => Self::Length(length),
            None => Self::UntilClose,
        })
    }
}

/// What the head of a message says about its body: its length, or that it comes in chunks.
fn said(version: Version, headers: &impl Lines) -> Result<(Option<u64>, bool), &'static str> {
    let length = length(headers)?;
    if !headers.has(&TRANSFER_ENCODING) {
        return Ok((length, false));
    }
    if version < Version::HTTP_11 {
        return Err("Transfer-Encoding in HTTP/1.0");
    }
    if length.is_some() {
        return Err("both Transfer-Encoding and Content-Length");
    }
    let only = headers.line(&TRANSFER_ENCODING, 1).is_none();
    let first = headers.first(&TRANSFER_ENCODING);
    if !only || !first.is_some_and(|it| it.eq_ignore_ascii_case(b"chunked")) {
        return Err("a transfer coding other than chunked");
    }
    Ok((None, true))
}

/// Whether a connection stays after a message (RFC 9112, section 9.3).
pub(super) fn stays(version: Version, headers: &impl Lines) -> bool {
    let says = |wanted: &[u8]| {
        let mut words =
            lines(headers, &CONNECTION).flat_map(|line| line.split(|byte| *byte == b','));
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    !says(b"close") && (version != Version::HTTP_10 || says(b"keep-alive"))
}

/// Reads `Content-Length`; the same one several times is one (RFC 9110, section 8.6).
pub(super) fn length(headers: &impl Lines) -> Result<Option<u64>, &'static str> {
    let mut known = None;
    for line in lines(headers, &CONTENT_LENGTH) {
        for word in line.split(|byte| *byte == b',') {
            let length = number(word.trim_ascii()).ok_or("a Content-Length that is no number")?;
            if known.is_some_and(|known| known != length) {
                return Err("more than one Content-Length");
            }
            known = Some(length);
        }
    }
    Ok(known)
}

/// Writes `Content-Length` as one line of one number, where it was said otherwise (RFC 9110, section 8.6), and
/// returns it.
///
/// # Errors
///
/// Says what is wrong with it.
pub(crate) fn settle_length(headers: &mut HeadFields) -> Result<Option<u64>, &'static str> {
    let Some(first) = headers.first(&CONTENT_LENGTH) else { return Ok(None) };
    let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    let is_plain = is_number && (first.len() == 1 || !first.starts_with(b"0"));
    let plain = is_plain && headers.line(&CONTENT_LENGTH, 1).is_none();
    let length = length(headers)?;
    if let (false, Some(length)) = (plain, length) {
        headers.insert(&CONTENT_LENGTH, length.to_string().as_bytes());
    }
    Ok(length)
}

/// Digits only: no sign, no blank, no more than fits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn of(lines: &[(&'static str, &'static str)]) -> Result<Framing, &'static str> {
        of_status(StatusCode::OK, lines)
    }

    fn of_status(
        status: StatusCode,
        lines: &[(&'static str, &'static str)],
    ) -> Result<Framing, &'static str> {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        Framing::of_answer(&Method::GET, status, Version::HTTP_11, &headers)
    }

    #[test]
    fn a_length_is_digits_and_one_only() {
        assert_eq!(of(&[("content-length", "17")]), Ok(Framing::Length(17)));
        assert_eq!(of(&[("content-length", "0")]), Ok(Framing::Empty));
        assert_eq!(of(&[("content-length", "17, 17")]), Ok(Framing::Length(17)));
        assert_eq!(
            of(&[("content-length", "17"), ("content-length", "17")]),
            Ok(Framing::Length(17))
        );
        assert_eq!(of(&[]), Ok(Framing::UntilClose));
        for wrong in ["", "+1", "-1", "1 2", "0x1", "1,2", ",", "18446744073709551616"] {
            assert!(of(&[("content-length", wrong)]).is_err(), "{wrong}");
        }
        assert!(of(&[("content-length", "1"), ("content-length", "2")]).is_err());
    }

    #[test]
    fn chunks_are_the_only_coding_and_have_no_length_beside() {
        assert_eq!(of(&[("transfer-encoding", "chunked")]), Ok(Framing::Chunked));
        assert_eq!(of(&[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked));
        for wrong in ["gzip, chunked", "chunked, chunked", "identity", "chunked;x", ""] {
            assert!(of(&[("transfer-encoding", wrong)]).is_err(), "{wrong}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(of(&twice).is_err());
        assert!(of(&[("transfer-encoding", "chunked"), ("content-length", "1")]).is_err());
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::CONTINUE] {
            assert_eq!(of_status(status, &[("content-length", "17")]), Ok(Framing::Empty));
        }
        let headers =
            HeaderMap::from_iter([((*CONTENT_LENGTH).clone(), HeaderValue::from_static("17"))]);
        let of = |method: &Method, version| {
            Framing::of_answer(method, StatusCode::OK, version, &headers)
        };
        assert_eq!(of(&Method::HEAD, Version::HTTP_11), Ok(Framing::Empty));
        assert_eq!(of(&Method::GET, Version::HTTP_10), Ok(Framing::Length(17)));
    }
}
