use std::fmt;
use std::ops::Range;

use gray_propagation::{Fields, Lines};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The fields of a head: a text, and which parts of it are lines.
///
/// They are few, so that looking at all of them costs less than a map. Nothing is asked of the allocator for a
/// line; what is removed stays in the text until the message has gone, and what is added stands behind it.
/// Each line stands there as it is written, so that lines which follow upon one another are written at once.
#[derive(Clone, Default)]
pub struct HeadFields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Which names there are, or may be: what has none of their marks is not there.
    marks: u64,
    /// Whether a name has an underscore, or had one that was removed.
    underscores: bool,
}

/// Where a line is in the text: `name: value` and the line's end, the name in lower case.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    name: u32,
    value: u32,
}

/// What stands between a name and its value, and behind that.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

impl Line {
    /// A head that is larger than can be counted here is larger than any limit.
    fn new(start: usize, name: usize, value: usize) -> Self {
        let count = |count| u32::try_from(count).unwrap_or_default();
        Self { start: count(start), name: count(name), value: count(value) }
    }

    const fn name(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.name as usize
    }

    const fn value(self) -> Range<usize> {
        let start = self.name().end + COLON.len();
        start..start + self.value as usize
    }

    const fn end(self) -> usize {
        self.value().end + END.len()
    }
}

/// The mark of a name, by which most names that are not there are known not to be.
fn mark(name: &[u8]) -> u64 {
    let (first, last) = (name.first().copied().unwrap_or_default(), name.last().copied());
    let sum = name.len() * 7 + usize::from(first) * 5 + usize::from(last.unwrap_or_default());
    1 << (sum & 63)
}

/// Whether this can be a value: it has no control character, which could be taken for a line's end, but tabs.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t')
}

impl HeadFields {
    /// Takes the text of a head, in which fields stand that have been found there: each a name and a value
    /// that are parts of that very text.
    pub(crate) fn read<'a>(
        &mut self,
        head: &'a [u8],
        found: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        /// How many fields and bytes a gateway adds, for which there is room from the beginning.
        const MORE: (usize, usize) = (12, 384);
        let place = |part: &[u8]| part.as_ptr().addr() - head.as_ptr().addr();
        *self = Self::default();
        self.lines.reserve(found.len() + MORE.0);
        self.text.reserve(head.len() + MORE.1);
        self.text.extend_from_slice(head);
        for (name, value) in found {
            let line = Line::new(place(name), name.len(), value.len());
            // Most come as they are written here; others are, behind the head.
            let is_plain = place(value) == line.value().start
                && head.get(line.name().end..line.value().start) == Some(COLON)
                && head.get(line.value().end..line.end()) == Some(END);
            let line = if is_plain { line } else { self.add(name, value) };
            self.push(line);
        }
    }

    /// Takes a line up that stands in the text.
    fn push(&mut self, line: Line) {
        let Some(name) = self.text.get_mut(line.name()) else { return };
        name.make_ascii_lowercase();
        self.underscores |= name.contains(&b'_');
        self.marks |= mark(name);
        self.lines.push(line);
    }

    /// Writes a line behind the text.
    fn add(&mut self, name: &[u8], value: &[u8]) -> Line {
        let line = Line::new(self.text.len(), name.len(), value.len());
        self.text.reserve(name.len() + value.len() + COLON.len() + END.len());
        for part in [name, COLON, value, END] {
            self.text.extend_from_slice(part);
        }
        line
    }

    /// Returns how many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn name(&self, line: Line) -> &[u8] {
        self.text.get(line.name()).unwrap_or_default()
    }

    fn value(&self, line: Line) -> &[u8] {
        self.text.get(line.value()).unwrap_or_default()
    }

    /// Returns all lines, each as its name, in lower case, and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.name(*line), self.value(*line)))
    }

    /// Returns how many bytes its lines take when they are written.
    pub(crate) fn size(&self) -> usize {
        self.lines.iter().map(|line| line.end() - line.start as usize).sum()
    }

    /// Returns its lines as they are written, those that follow upon one another in one piece; without those
    /// that are not wanted.
    pub(crate) fn pieces(&self, wanted: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = &[u8]> {
        let mut lines = self.lines.iter().filter(move |line| wanted(self.name(**line))).peekable();
        std::iter::from_fn(move || {
            let first = lines.next()?;
            let mut end = first.end();
            while let Some(next) = lines.next_if(|next| next.start as usize == end) {
                end = next.end();
            }
            Some(self.text.get(first.start as usize..end).unwrap_or_default())
        })
    }

    fn is(&self, line: Line, name: &[u8]) -> bool {
        line.name as usize == name.len() && self.name(line) == name
    }

    fn may_have(&self, name: &[u8]) -> bool {
        self.marks & mark(name) != 0
    }

    /// Adds a line behind all others; what cannot be a value (RFC 9110, section 5.5) is left out.
    pub fn append(&mut self, name: &HeaderName, value: &[u8]) {
        if !is_value(value) {
            return;
        }
        let name = name.as_str().as_bytes();
        let line = self.add(name, value);
        self.marks |= mark(name);
        self.underscores |= name.contains(&b'_');
        self.lines.push(line);
    }

    /// Adds a line behind all others, with the value of another field's first one, where there is one.
    pub(crate) fn append_copy(&mut self, name: &HeaderName, other: &HeaderName) {
        let value = self.first(other).map(<[u8]>::to_vec);
        if let Some(value) = value {
            self.append(name, &value);
        }
    }

    /// Writes a field as one line, in place of whatever was there; what cannot be a value is left out.
    pub fn insert(&mut self, name: &HeaderName, value: &[u8]) {
        let wanted = name.as_str().as_bytes();
        if !self.may_have(wanted) || !is_value(value) {
            return self.append(name, value);
        }
        let Some(first) = self.lines.iter().position(|line| self.is(*line, wanted)) else {
            return self.append(name, value);
        };
        let line = self.add(wanted, value);
        if let Some(place) = self.lines.get_mut(first) {
            *place = line;
        }
        let (text, mut place) = (&self.text, 0);
        self.lines.retain(|line| {
            place += 1;
            place <= first + 1 || text.get(line.name()) != Some(wanted)
        });
    }

    /// Removes all lines of a field.
    pub fn remove(&mut self, name: &HeaderName) {
        let wanted = name.as_str().as_bytes();
        if self.may_have(wanted) {
            let text = &self.text;
            self.lines.retain(|line| text.get(line.name()) != Some(wanted));
        }
    }
}

impl Lines for HeadFields {
    fn line(&self, name: &HeaderName, place: usize) -> Option<&[u8]> {
        let name = name.as_str().as_bytes();
        if !self.may_have(name) {
            return None;
        }
        let mut lines = self.lines.iter().filter(|line| self.is(**line, name));
        lines.nth(place).map(|line| self.value(*line))
    }

    fn more(&self, name: &HeaderName) -> Vec<&[u8]> {
        let name = name.as_str().as_bytes();
        let lines = self.lines.iter().filter(|line| self.is(**line, name));
        lines.skip(1).map(|line| self.value(*line)).collect()
    }
}

impl Fields for HeadFields {
    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| self.name(*line))
    }

    fn may_have_underscores(&self) -> bool {
        self.underscores
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value.as_bytes());
    }

    fn keep(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| keep(text.get(line.name()).unwrap_or_default()));
    }
}

impl From<&HeaderMap> for HeadFields {
    fn from(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.append(name, value.as_bytes());
        }
        fields
    }
}

impl From<&HeadFields> for HeaderMap {
    fn from(fields: &HeadFields) -> Self {
        /// A map refuses to be made for more than it can hold.
        const MOST: usize = 256;
        let mut headers = Self::with_capacity(fields.len().min(MOST));
        for (name, value) in fields.iter() {
            let line = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
            if let Some((name, value)) = line {
                // It holds more than any limit lets in.
                let _ = headers.try_append(name, value);
            }
        }
        headers
    }
}

impl fmt::Debug for HeadFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "x-real-ip", "host"];

    /// What is done to fields: to whose, and what.
    #[derive(Clone, Debug)]
    enum Change {
        Append(usize, String),
        Insert(usize, String),
        Remove(usize),
        Keep(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        let name = 0..NAMES.len();
        prop_oneof![
            (name.clone(), "[a-z]{0,4}").prop_map(|(name, value)| Change::Append(name, value)),
            (name.clone(), "[a-z]{0,4}").prop_map(|(name, value)| Change::Insert(name, value)),
            name.clone().prop_map(Change::Remove),
            name.prop_map(Change::Keep),
        ]
    }

    proptest! {
        /// Against the map that everybody uses.
        #[test]
        fn they_hold_what_a_header_map_would(changes in prop::collection::vec(change(), 0..24)) {
            let (mut fields, mut map) = (HeadFields::default(), HeaderMap::new());
            let names = NAMES.map(HeaderName::from_static);
            for change in changes {
                match change {
                    Change::Append(name, value) => {
                        fields.append(&names[name], value.as_bytes());
                        map.append(&names[name], HeaderValue::try_from(value).unwrap());
                    }
                    Change::Insert(name, value) => {
                        fields.insert(&names[name], value.as_bytes());
                        map.insert(&names[name], HeaderValue::try_from(value).unwrap());
                    }
                    Change::Remove(name) => {
                        fields.remove(&names[name]);
                        map.remove(&names[name]);
                    }
                    Change::Keep(name) => {
                        let wanted = names[name].as_str().as_bytes();
                        fields.keep(|other| other != wanted);
                        map.keep(|other| other != wanted);
                    }
                }
                prop_assert_eq!(fields.len(), map.len());
                for name in &names {
                    prop_assert_eq!(fields.more(name), map.more(name));
                    for place in 0..=map.len() {
                        prop_assert_eq!(fields.line(name, place), map.line(name, place));
                    }
                }
                prop_assert_eq!(HeaderMap::from(&fields), map.clone());
                let lines: Vec<_> = fields.iter().map(|(name, value)| {
                    [name, b": ", value, b"\r\n"].concat()
                }).collect();
                prop_assert_eq!(fields.pieces(|_| true).collect::<Vec<_>>().concat(), lines.concat());
                prop_assert_eq!(fields.size(), lines.concat().len());
                prop_assert_eq!(HeaderMap::from(&HeadFields::from(&map)), map.clone());
            }
        }
    }

    #[test]
    fn nothing_that_could_be_another_line_is_written() {
        let name = HeaderName::from_static("a");
        for wrong in [&b"1\r\nb: 2"[..], b"1\n", b"\0", b"\x7f"] {
            let mut fields = HeadFields::default();
            fields.append(&name, wrong);
            fields.insert(&name, wrong);
            assert!(fields.is_empty() && HeaderValue::from_bytes(wrong).is_err());
            fields.insert(&name, b"right\t\xff");
            fields.insert(&name, wrong);
            assert_eq!(fields.first(&name), Some(&b"right\t\xff"[..]));
        }
    }

    #[test]
    fn names_are_read_in_lower_case_and_values_as_they_are() {
        let head = b"X-A: One\r\nHost:\r\n\r\n";
        let found = [(&head[0..3], &head[5..8]), (&head[10..14], &head[15..15])];
        let mut fields = HeadFields::default();
        fields.read(head, found.into_iter());
        let lines: Vec<_> = fields.iter().collect();
        assert_eq!(lines, [(&b"x-a"[..], &b"One"[..]), (b"host", b"")]);
        assert_eq!(fields.pieces(|_| true).collect::<Vec<_>>().concat(), b"x-a: One\r\nhost: \r\n");
        assert_eq!(fields.pieces(|name| name == b"host").collect::<Vec<_>>(), [b"host: \r\n"]);
        fields.append(&HeaderName::from_static("b"), b"2");
        assert_eq!(fields.pieces(|_| true).count(), 2);
    }
}
