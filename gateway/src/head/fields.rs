use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use gray_propagation::{FieldName, Fields, Lines};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::swar::controls;

/// The fields of a head: a text, and which parts of it are lines.
///
/// They are few, so that looking at all of them costs less than a map. Nothing is asked of the allocator for a
/// line; what is removed stays in the text until the message has gone, and what is added stands behind it.
/// Each line stands there as it is written, so that lines which follow upon one another are written at once.
#[derive(Clone, Default)]
pub struct HeadFields {
    pub(super) text: Vec<u8>,
    pub(super) lines: Vec<Line>,
    /// Which names there are, or may be: what has none of their marks is not there.
    pub(super) marks: u64,
    /// Whether a name has an underscore, or had one that was removed.
    pub(super) underscores: bool,
}

/// Where a line is in the text: `name: value` and the line's end, the name in lower case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    start: u32,
    name: u32,
    value: u32,
}

/// What stands between a name and its value, and behind that.
pub(super) const COLON: &[u8; 2] = b": ";
pub(super) const END: &[u8; 2] = b"\r\n";

impl Line {
    /// A head that is larger than can be counted here is larger than any limit.
    pub(super) fn new(start: usize, name: usize, value: usize) -> Self {
        let count = |count| u32::try_from(count).unwrap_or_default();
        Self { start: count(start), name: count(name), value: count(value) }
    }

    /// The same line in a text that begins with so much more.
    fn behind(self, start: usize) -> Self {
        // As above.
        Self { start: self.start + u32::try_from(start).unwrap_or_default(), ..self }
    }

    pub(super) const fn name(self) -> Range<usize> {
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

/// Whether this can be a value: it has no control character, which could be taken for a line's end, but tabs.
fn is_value(value: &[u8]) -> bool {
    let wrong = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    let Some(last) = value.last_chunk() else { return !value.iter().any(wrong) };
    // Eight at once; hardly any has a control character, and then it is looked for one by one.
    let (words, _) = value.as_chunks();
    let plain = words.iter().chain([last]).all(|word| controls(u64::from_le_bytes(*word)) == 0);
    plain || !value.iter().any(wrong)
}

impl HeadFields {
    /// Writes a line behind the text.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Line {
        let line = Line::new(self.text.len(), name.len(), value.len());
        self.text.reserve(name.len() + value.len() + COLON.len() + END.len());
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(COLON);
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(END);
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

    pub(super) fn name(&self, line: Line) -> &[u8] {
        self.text.get(line.name()).unwrap_or_default()
    }

    fn value(&self, line: Line) -> &[u8] {
        self.text.get(line.value()).unwrap_or_default()
    }

    /// Returns all lines, each as its name, in lower case, and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.name(*line), self.value(*line)))
    }

    /// Returns how many bytes its lines take at most when they are written.
    pub(crate) fn room(&self) -> usize {
        self.text.len()
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

    #[inline]
    fn may_have(&self, name: &FieldName) -> bool {
        self.marks & name.mark() != 0
    }

    fn find(&self, name: &[u8], place: usize) -> Option<&[u8]> {
        let mut lines = self.lines.iter().filter(|line| self.is(**line, name));
        lines.nth(place).map(|line| self.value(*line))
    }

    /// Adds a line behind all others; what cannot be a value (RFC 9110, section 5.5) is left out.
    pub fn append(&mut self, name: &FieldName, value: &[u8]) {
        if !is_value(value) {
            return;
        }
        let line = self.add(name.as_bytes(), value);
        self.push(line, name);
    }

    /// Adds a line behind all others, with the value of another field's first one, where there is one.
    pub(crate) fn append_copy(&mut self, name: &FieldName, other: &FieldName) {
        let other = other.as_bytes();
        let Some(from) = self.lines.iter().find(|line| self.is(**line, other)).copied() else {
            return;
        };
        let (start, text) = (self.text.len(), name.as_bytes());
        self.text.extend_from_slice(text);
        self.text.extend_from_slice(COLON);
        self.text.extend_from_within(from.value());
        self.text.extend_from_slice(END);
        self.push(Line::new(start, text.len(), from.value().len()), name);
    }

    /// Adds all lines of other fields, which were written ahead, behind all others.
    pub(crate) fn append_all(&mut self, other: &Self) {
        let start = self.text.len();
        self.text.extend_from_slice(&other.text);
        self.lines.extend(other.lines.iter().map(|line| line.behind(start)));
        self.marks |= other.marks;
        self.underscores |= other.underscores;
    }

    /// Takes a line up that has been written.
    fn push(&mut self, line: Line, name: &FieldName) {
        self.marks |= name.mark();
        self.underscores |= name.has_underscores();
        self.lines.push(line);
    }

    /// Writes a field as one line, in place of whatever was there; what cannot be a value is left out.
    pub fn insert(&mut self, name: &FieldName, value: &[u8]) {
        if !self.may_have(name) || !is_value(value) {
            return self.append(name, value);
        }
        let wanted = name.as_bytes();
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
    pub fn remove(&mut self, name: &FieldName) {
        if self.has(name) {
            let (text, wanted) = (&self.text, name.as_bytes());
            self.lines.retain(|line| text.get(line.name()) != Some(wanted));
        }
    }
}

impl Lines for HeadFields {
    #[inline]
    fn line(&self, name: &FieldName, place: usize) -> Option<&[u8]> {
        if self.may_have(name) { self.find(name.as_bytes(), place) } else { None }
    }

    fn more(&self, name: &FieldName) -> Vec<&[u8]> {
        let name = name.as_bytes();
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

    fn set(&mut self, name: &FieldName, value: HeaderValue) {
        self.insert(name, value.as_bytes());
    }

    fn keep(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| keep(text.get(line.name()).unwrap_or_default()));
    }
}

thread_local! {
    /// The memory of heads that are no more, for the next ones of this thread.
    static SPARE: RefCell<Vec<(Vec<u8>, Vec<Line>)>> = const { RefCell::new(Vec::new()) };
}

impl HeadFields {
    /// Nothing, with the memory of another head where there is some.
    pub(super) fn spare() -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        let (text, lines) = spare.ok().flatten().unwrap_or_default();
        Self { text, lines, marks: 0, underscores: false }
    }
}

impl Drop for HeadFields {
    fn drop(&mut self) {
        /// How many are kept, and how large they may be: so much memory a thread has for nothing.
        const MOST: (usize, usize, usize) = (16, 8 << 10, 64);
        let (size, lines) = (self.text.capacity(), self.lines.capacity());
        if size == 0 || size > MOST.1 || lines > MOST.2 {
            return;
        }
        self.text.clear();
        self.lines.clear();
        let memory = (std::mem::take(&mut self.text), std::mem::take(&mut self.lines));
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST.0 {
                spare.push(memory);
            }
        });
    }
}

impl From<&HeaderMap> for HeadFields {
    fn from(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.append(&FieldName::from(name.clone()), value.as_bytes());
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
            let names = NAMES.map(FieldName::from_static);
            for change in changes {
                match change {
                    Change::Append(name, value) => {
                        fields.append(&names[name], value.as_bytes());
                        map.append(&*names[name], HeaderValue::try_from(value).unwrap());
                    }
                    Change::Insert(name, value) => {
                        fields.insert(&names[name], value.as_bytes());
                        map.insert(&*names[name], HeaderValue::try_from(value).unwrap());
                    }
                    Change::Remove(name) => {
                        fields.remove(&names[name]);
                        map.remove(&*names[name]);
                    }
                    Change::Keep(name) => {
                        let wanted = names[name].as_bytes();
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
                prop_assert!(fields.room() >= lines.concat().len());
                prop_assert_eq!(HeaderMap::from(&HeadFields::from(&map)), map.clone());
            }
        }
    }

    #[test]
    fn lines_that_were_written_ahead_are_added_as_they_are() {
        let [one, two, three] = ["a", "b_", "c"].map(FieldName::from_static);
        let (mut fields, mut ahead) = (HeadFields::default(), HeadFields::default());
        fields.append(&one, b"1");
        ahead.append(&two, b"2");
        ahead.append(&three, b"3");
        fields.append_all(&ahead);
        fields.append_all(&HeadFields::default());
        let lines: Vec<_> = fields.iter().collect();
        assert_eq!(lines, [(&b"a"[..], &b"1"[..]), (b"b_", b"2"), (b"c", b"3")]);
        assert_eq!((fields.first(&two), fields.has(&three)), (Some(&b"2"[..]), true));
        assert!(fields.may_have_underscores());
        assert_eq!(fields.pieces(|_| true).count(), 1);
    }

    #[test]
    fn memory_that_is_used_again_has_nothing_of_what_was_there() {
        for number in 0..40 {
            let head = format!("Secret_{number}: {number}\r\n\r\n");
            let (fields, _) = HeadFields::read(head.as_bytes(), 0, 9).unwrap().unwrap();
            assert_eq!((fields.len(), fields.underscores), (1, true));
            drop(fields);
            let (fields, _) = HeadFields::read(b"A: 1\r\n\r\n", 6, 9).unwrap().unwrap();
            assert!(fields.is_empty() && fields.marks == 0 && !fields.underscores);
            assert_eq!(fields.text, b"A: 1\r\n\r\n");
        }
    }

    #[test]
    fn nothing_that_could_be_another_line_is_written() {
        let name = FieldName::from_static("a");
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
        let (mut fields, end) = HeadFields::read(head, 0, 9).unwrap().unwrap();
        assert_eq!(end, head.len());
        let lines: Vec<_> = fields.iter().collect();
        assert_eq!(lines, [(&b"x-a"[..], &b"One"[..]), (b"host", b"")]);
        assert_eq!(fields.pieces(|_| true).collect::<Vec<_>>().concat(), b"x-a: One\r\nhost: \r\n");
        assert_eq!(fields.pieces(|name| name == b"host").collect::<Vec<_>>(), [b"host: \r\n"]);
        fields.append(&FieldName::from_static("b"), b"2");
        assert_eq!(fields.pieces(|_| true).count(), 2);
    }
}
