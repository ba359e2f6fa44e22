use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::head::{Scan, read_fields};
use crate::head::is_token;

/// How many bytes the lines of a body's chunks may have beside their sizes, more than [`ALLOWED`] for each chunk and
/// byte in it: extensions, which nobody reads.
const MAX_EXTENSIONS: usize = 16 << 10;

/// What is allowed for each chunk, and for each byte in it: whoever signs chunks is not refused.
const ALLOWED: (usize, usize) = (16, 2);

/// How many bytes trailers may have.
const MAX_TRAILERS: usize = 64 << 10;

/// Reads a body that comes in chunks (RFC 9112, section 7.1), to the letter: what another reader could
/// take for something else is an error.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    extensions: usize,
    trailers: Scan,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The size of a chunk, of which so many digits have come.
    Size {
        size: u64,
        digits: u8,
    },
    /// Blanks before an extension.
    Blank {
        size: u64,
    },
    /// The name of an extension, which there must be.
    Name {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// The line feed after a size.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// The line end after a chunk, of which so many bytes are missing.
    DataEnd {
        missing: u8,
    },
    Trailers,
    Nothing,
}

/// What a body brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Some of it.
    Data(Bytes),
    /// The fields after it; it has ended.
    Trailers(HeaderMap),
    /// It has ended.
    End,
    /// More has to come.
    More,
}

impl Chunks {
    pub(super) fn new() -> Self {
        let state = State::Size { size: 0, digits: 0 };
        Self { state, extensions: 0, trailers: Scan::default() }
    }

    /// Takes the next piece of what has come.
    ///
    /// # Errors
    ///
    /// Says what is wrong; nothing behind it may be read.
    pub(super) fn next(&mut self, read: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self.state {
                State::Data { left } => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(read.len());
                    if length == 0 {
                        return Ok(Piece::More);
                    }
                    let left = left - length as u64;
                    self.state = if left == 0 {
                        State::DataEnd { missing: 2 }
                    } else {
                        State::Data { left }
                    };
                    return Ok(Piece::Data(read.split_to(length).freeze()));
                }
                State::Trailers => return self.read_trailers(read),
                State::Nothing => return Ok(Piece::End),
                between => {
                    let Some(byte) = read.first().copied() else { return Ok(Piece::More) };
                    read.advance(1);
                    self.state = self.step(between, byte)?;
                }
            }
        }
    }

    /// Reads a byte between two chunks.
    fn step(&mut self, state: State, byte: u8) -> Result<State, &'static str> {
        Ok(match (state, byte) {
            (State::Size { digits: 16, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                return Err("a chunk that is larger than anything");
            }
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err("a chunk without a size"),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => {
                State::SizeEnd { size }
            }
            (State::Size { size, .. } | State::Blank { size }, b' ' | b'\t') => {
                self.count_extension()?;
                State::Blank { size }
            }
            (State::Size { size, .. } | State::Blank { size }, b';') => State::Name { size },
            (State::Name { size }, b' ' | b'\t') => {
                self.count_extension()?;
                State::Name { size }
            }
            (State::Name { size }, byte) if is_token(byte) => {
                self.count_extension()?;
                State::Extension { size }
            }
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension()?;
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers,
            (State::SizeEnd { size }, b'\n') => {
                let bytes = usize::try_from(size).unwrap_or(usize::MAX);
                let allowed = bytes.saturating_mul(ALLOWED.1).saturating_add(ALLOWED.0);
                self.extensions = self.extensions.saturating_sub(allowed);
                State::Data { left: size }
            }
            (State::DataEnd { missing: 2 }, b'\r') => State::DataEnd { missing: 1 },
            (State::DataEnd { missing: 1 }, b'\n') => State::Size { size: 0, digits: 0 },
            (State::DataEnd { .. }, _) => return Err("a chunk that is longer than its size"),
            _ => return Err("a chunk's line that is none"),
        })
    }

    fn count_extension(&mut self) -> Result<(), &'static str> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err("chunk extensions without end") } else { Ok(()) }
    }

    fn read_trailers(&mut self, read: &mut BytesMut) -> Result<Piece, &'static str> {
        if read.starts_with(b"\r\n") {
            read.advance(2);
            self.state = State::Nothing;
            return Ok(Piece::End);
        }
        let Some(end) = self.trailers.end(read)? else {
            return if read.len() > MAX_TRAILERS {
                Err("trailers without end")
            } else {
                Ok(Piece::More)
            };
        };
        self.state = State::Nothing;
        Ok(Piece::Trailers(read_fields(&read.split_to(end).freeze())?))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Reads a body that comes in pieces of this length; returns what it says, and what is left over.
    fn read(body: &[u8], step: usize) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), &'static str> {
        let (mut chunks, mut buffer) = (Chunks::new(), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        let mut pieces = body.chunks(step.max(1));
        loop {
            match chunks.next(&mut buffer)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailers(fields) => trailers = fields,
                Piece::End => break,
                Piece::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Err("it does not end"),
                },
            }
        }
        let rest = pieces.flatten().copied();
        Ok((data, trailers, buffer.iter().copied().chain(rest).collect()))
    }

    #[test]
    fn a_body_is_read_in_whatever_pieces_it_comes() {
        let body = b"5\r\nhello\r\n0A;name=\"value\"\r\n, world!!!\r\n1 ;x\r\n \r\n00\r\nx-sum: 1\r\n\r\nGET";
        for step in 1..body.len() {
            let (data, trailers, rest) = read(body, step).unwrap();
            assert_eq!((&*data, &*rest), (&b"hello, world!!! "[..], &b"GET"[..]), "{step}");
            assert_eq!(trailers["x-sum"], HeaderValue::from_static("1"));
        }
        assert_eq!(read(b"0\r\n\r\n", 5), Ok((Vec::new(), HeaderMap::new(), Vec::new())));
    }

    #[test]
    fn what_can_be_read_otherwise_is_refused() {
        for wrong in [
            "\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\r\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;\r\nhello\r\n0\r\n\r\n",
            "5; \r\nhello\r\n0\r\n\r\n",
            "5;=\"a\"\r\nhello\r\n0\r\n\r\n",
            "5;a\0b\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "0\r\nx-sum : 1\r\n\r\n",
            "0\r\nx-sum: 1\n\r\n",
            "0\r\n x-sum: 1\r\n\r\n",
            "0\r\nx: a\r\n b\r\n\r\n",
            "0\n\r\n",
            "0\r\n\n",
        ] {
            for step in [1, wrong.len()] {
                assert!(read(wrong.as_bytes(), step).is_err(), "{wrong:?}");
            }
        }
    }

    #[test]
    fn nothing_goes_on_without_end() {
        let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_EXTENSIONS + 1));
        assert_eq!(read(extension.as_bytes(), 1000), Err("chunk extensions without end"));
        let signed = format!("400;chunk-signature={}\r\n{}\r\n", "0".repeat(64), "x".repeat(1024));
        let signed = signed.repeat(1_000) + "0\r\n\r\n";
        assert_eq!(read(signed.as_bytes(), 1000).unwrap().0.len(), 1_024_000);
        let many = format!("1;{}\r\nx\r\n", "x".repeat(26)).repeat(MAX_EXTENSIONS / 8);
        assert_eq!(read(many.as_bytes(), 1000), Err("chunk extensions without end"));
        let trailers = format!("0\r\n{}", "x: y\r\n".repeat(MAX_TRAILERS));
        assert_eq!(read(trailers.as_bytes(), 1000), Err("trailers without end"));
    }

    proptest! {
        /// What is written in chunks of any sizes is read as it was.
        #[test]
        fn what_was_written_is_read(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            step in 1_usize..50,
        ) {
            let mut body = Vec::new();
            for piece in &pieces {
                body.extend(format!("{:x}\r\n", piece.len()).bytes());
                body.extend(piece);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\nrest");
            let (data, _, rest) = read(&body, step).unwrap();
            prop_assert_eq!(data, pieces.concat());
            prop_assert_eq!(rest, b"rest".to_vec());
        }
    }
}
