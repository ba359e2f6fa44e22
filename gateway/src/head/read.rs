use std::ops::Range;

use gray_propagation::FieldName;

use super::HeadFields;
use super::fields::{COLON, END, Line};
use super::swar::controls;

/// Why lines are not read as fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// There are more of them than allowed.
    TooMany,
    /// This is wrong with one.
    Line(&'static str),
}

/// How many fields and bytes a gateway adds, for which there is room from the beginning.
const MORE: (usize, usize) = (16, 640);

impl HeadFields {
    /// Reads the fields that stand in a text behind its first line, up to the empty line, and returns where that
    /// ends (RFC 9112, section 5); `None` where it has not come.
    ///
    /// # Errors
    ///
    /// See [`Wrong`]; among others names that are no tokens, blanks before the colon, folded lines, control
    /// characters in values, and lines that do not end with CR LF: some take LF alone for an end, others do not.
    pub(crate) fn read(
        text: &[u8],
        start: usize,
        most: usize,
    ) -> Result<Option<(Self, usize)>, Wrong> {
        let mut fields = Self::spare();
        fields.lines.reserve(MORE.0);
        // With what stands behind the head, which is little: where that ends is not known yet.
        fields.text.reserve(text.len() + MORE.1);
        fields.text.extend_from_slice(text);
        // Values that do not stand behind one blank and before the line's end, by their lines.
        let mut odd: Vec<(usize, Range<usize>)> = Vec::new();
        let mut place = start;
        let end = loop {
            let rest = text.get(place..).unwrap_or_default();
            match rest {
                [b'\r', b'\n', ..] => break place + END.len(),
                [] | [b'\r'] => return Ok(None),
                _ => {}
            }
            let Some(name) = fields.read_name(place)? else { return Ok(None) };
            let Some((value, length)) = value(rest, name + 1)? else { return Ok(None) };
            if fields.lines.len() >= most {
                return Err(Wrong::TooMany);
            }
            if value.start != name + COLON.len() || value.end + END.len() != length {
                odd.push((fields.lines.len(), place + value.start..place + value.end));
            }
            fields.lines.push(Line::new(place, name, value.len()));
            place += length;
        };
        fields.text.truncate(end);
        for (number, value) in odd {
            fields.straighten(number, text.get(value).unwrap_or_default());
        }
        Ok(Some((fields, end)))
    }

    /// Turns the name that stands at a place into lower case, takes note of it, and returns how long it is; `None`
    /// where its colon has not come.
    fn read_name(&mut self, place: usize) -> Result<Option<usize>, Wrong> {
        const WRONG: Wrong = Wrong::Line("a field's name");
        let rest = self.text.get_mut(place..).unwrap_or_default();
        let (mut length, mut common) = (0, u8::MAX);
        for byte in rest.iter_mut() {
            let low = lower(*byte);
            if low == 0 {
                break;
            }
            *byte = low;
            common &= low;
            length += 1;
        }
        let name = rest.get(..length).unwrap_or_default();
        match rest.get(length) {
            // Longer ones are taken by no library, so that they would be lost over HTTP/2.
            Some(b':') if length > 0 && u16::try_from(length).is_ok() => {
                self.marks |= FieldName::mark_of(name);
                // Of all that names may have, only `_` and `^` lack this bit.
                self.underscores |= common & 0x20 == 0;
                Ok(Some(length))
            }
            Some(_) => Err(WRONG),
            None => Ok(None),
        }
    }

    /// Writes a line anew, as lines are written here.
    fn straighten(&mut self, number: usize, value: &[u8]) {
        let Some(line) = self.lines.get(number).copied() else { return };
        let name = self.name(line).to_vec();
        let line = self.add(&name, value);
        if let Some(place) = self.lines.get_mut(number) {
            *place = line;
        }
    }
}

/// Returns where the value of a line stands, without the blanks around it, and how long the line is; `None`
/// where its end has not come.
fn value(line: &[u8], from: usize) -> Result<Option<(Range<usize>, usize)>, Wrong> {
    let Some(end) = text_end(line, from) else { return Ok(None) };
    match line.get(end..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([b'\r']) => return Ok(None),
        Some([b'\r' | b'\n', ..]) => {
            return Err(Wrong::Line("a line that does not end with CR LF"));
        }
        _ => return Err(Wrong::Line("a field's value")),
    }
    let is_blank = |place: &usize| matches!(line.get(*place), Some(b' ' | b'\t'));
    let start = (from..end).find(|place| !is_blank(place)).unwrap_or(end);
    let last = (start..end).rev().find(|place| !is_blank(place));
    let value = start..last.map_or(start, |last| last + 1);
    Ok(Some((value, end + END.len())))
}

/// Returns where the first control character but a tab stands, from a place on.
pub(crate) fn text_end(text: &[u8], from: usize) -> Option<usize> {
    let mut place = from;
    loop {
        let (words, tail) = text.get(place..)?.as_chunks::<8>();
        let Some((before, found)) = words.iter().enumerate().find_map(|(number, word)| {
            let found = controls(u64::from_le_bytes(*word));
            (found != 0).then_some((number, found))
        }) else {
            let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
            let found = tail.iter().position(control)?;
            return Some(text.len() - tail.len() + found);
        };
        place += 8 * before + (found.trailing_zeros() / 8) as usize;
        if text.get(place) != Some(&b'\t') {
            return Some(place);
        }
        // What is found behind the first may be none.
        place += 1;
    }
}

/// Whether names may have this character (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    lower(byte) != 0
}

/// A character of names in lower case, or 0.
fn lower(byte: u8) -> u8 {
    const LOWER: [u8; 256] = lower_tokens();
    LOWER.get(usize::from(byte)).copied().unwrap_or_default()
}

#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "it runs at compile time"
)]
const fn lower_tokens() -> [u8; 256] {
    let (mut lower, mut byte) = ([0; 256], 0);
    while byte < 256 {
        lower[byte] = match byte as u8 {
            upper @ b'A'..=b'Z' => upper.to_ascii_lowercase(),
            token @ (b'!'
            | b'#'..=b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'0'..=b'9'
            | b'^'..=b'z'
            | b'|'
            | b'~') => token,
            _ => 0,
        };
        byte += 1;
    }
    lower
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_the_characters_of_tokens_in_lower_case() {
        for byte in 0..=u8::MAX {
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), token, "{byte}");
            if token {
                assert_eq!(lower(byte), byte.to_ascii_lowercase());
                let bare = lower(byte) & 0x20 == 0;
                assert_eq!(bare, b"_^".contains(&byte), "{byte}");
            }
        }
    }

    /// Names and values, and where they end; `None` where there is more to come.
    type Found = Option<(Vec<(Vec<u8>, Vec<u8>)>, usize)>;

    /// What the library that everybody uses makes of it.
    fn reference(text: &[u8]) -> Result<Found, ()> {
        let mut parsed = [httparse::EMPTY_HEADER; 64];
        match httparse::parse_headers(text, &mut parsed) {
            Ok(httparse::Status::Complete((end, fields))) => {
                let name = |it: &httparse::Header<'_>| it.name.to_ascii_lowercase().into_bytes();
                let fields = fields.iter().map(|it| (name(it), it.value.to_vec())).collect();
                Ok(Some((fields, end)))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(_) => Err(()),
        }
    }

    fn read(text: &[u8]) -> Result<Found, Wrong> {
        let read = HeadFields::read(text, 0, 64)?;
        Ok(read.map(|(fields, end)| {
            let lines = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
            (lines.collect(), end)
        }))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        /// Against the library, which takes LF alone for an end as well.
        #[test]
        fn fields_are_read_as_everybody_reads_them(
            lines in prop::collection::vec(
                prop_oneof![
                    8 => "[A-Za-z_-]{1,12}: [ -~]{0,20}",
                    2 => "[a-z!#~^|]{1,3}:[ \t]{0,3}[ -~\t]{0,12}[ \t]{0,2}",
                    1 => "[ \ta-c:(\x00\x7f\r\n\u{80}é]{0,8}",
                ],
                0..6,
            ),
            cut in 0_usize..200,
        ) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\r\n") + "\r\nGET";
            let text = text.as_bytes();
            let text = text.get(..cut).unwrap_or(text);
            match (read(text), reference(text)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                // Either may wait for a byte more before it says so.
                (Err(_), Err(()) | Ok(None)) | (Ok(None), Err(())) => {}
                (Err(_), Ok(Some(_))) => {
                    let alone = |(place, byte): (usize, &u8)| {
                        *byte == b'\n' && (place == 0 || text[place - 1] != b'\r')
                    };
                    prop_assert!(text.iter().enumerate().any(alone), "{:?}", text);
                }
                (ours, theirs) => prop_assert!(false, "{:?} {:?} {:?}", text, ours, theirs),
            }
        }
    }

    #[test]
    fn a_line_that_could_be_read_otherwise_is_none() {
        for wrong in [
            "A : 1",
            " A: 1",
            "\tA: 1",
            ": 1",
            "A",
            "A\t: 1",
            "A: 1\n",
            "A: 1\nB: 2",
            "A: \0",
            "A: \x7f",
            "A: a\rb",
            "A: 1\r\n b",
            "A(: 1",
            "\u{e9}: 1",
            "A: 12345678\n",
            "A: 1234567\r8",
        ] {
            let text = format!("{wrong}\r\n\r\n");
            assert!(HeadFields::read(text.as_bytes(), 0, 9).is_err(), "{wrong:?}");
        }
        let long = format!("{}: 1\r\n\r\n", "a".repeat(65_536));
        assert!(HeadFields::read(long.as_bytes(), 0, 9).is_err());
        let many = "A: 1\r\n".repeat(9) + "\r\n";
        assert_eq!(HeadFields::read(many.as_bytes(), 0, 8).unwrap_err(), Wrong::TooMany);
        assert!(HeadFields::read(many.as_bytes(), 0, 9).unwrap().is_some());
    }

    #[test]
    fn values_of_nothing_but_tabs_end() {
        let text = format!("A:{}\r\n\r\n", "\t".repeat(100_000));
        let (fields, end) = HeadFields::read(text.as_bytes(), 0, 9).unwrap().unwrap();
        assert_eq!((fields.iter().next(), end), (Some((&b"a"[..], &b""[..])), text.len()));
    }
}
