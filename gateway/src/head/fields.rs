use std::fmt;
use std::ops::Range;

use gray_propagation::{Fields, Lines};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The fields of a head: a text, and which parts of it are names and values.
///
/// They are few, so that looking at all of them costs less than a map; nothing is asked of the allocator
/// for a line, and what is removed stays in the text until the message has gone.
#[derive(Clone, Default)]
pub struct HeadFields {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// Where a line is in the text. Names are in lower case.
#[derive(Clone, Copy, Debug)]
struct Line {
    name: Part,
    value: Part,
}

/// A part of the text.
#[derive(Clone, Copy, Debug)]
struct Part {
    start: u32,
    length: u32,
}

impl Part {
    /// Heads are far smaller than what can be counted here; what is not would be empty.
    fn new(start: usize, length: usize) -> Self {
        let part = u32::try_from(start).ok().zip(u32::try_from(length).ok());
        let (start, length) = part.unwrap_or_default();
        Self { start, length }
    }

    const fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }

    fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }
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
        let place =
            |part: &[u8]| Part::new(part.as_ptr().addr() - head.as_ptr().addr(), part.len());
        self.clear();
        self.lines.reserve(found.len() + MORE.0);
        self.lines
            .extend(found.map(|(name, value)| Line { name: place(name), value: place(value) }));
        self.text.reserve(head.len() + MORE.1);
        self.text.extend_from_slice(head);
        for line in &self.lines {
            if let Some(name) = self.text.get_mut(line.name.range()) {
                name.make_ascii_lowercase();
            }
        }
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }

    /// Returns how many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns all lines, each as its name, in lower case, and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (line.name.of(&self.text), line.value.of(&self.text)))
    }

    /// Returns how many bytes its lines take when they are written.
    pub(crate) fn size(&self) -> usize {
        let lines = self.lines.iter().map(|line| line.name.length + line.value.length + 4);
        lines.sum::<u32>() as usize
    }

    fn add(&mut self, part: &[u8]) -> Part {
        let start = self.text.len();
        self.text.extend_from_slice(part);
        Part::new(start, part.len())
    }

    fn is(&self, line: Line, name: &[u8]) -> bool {
        line.name.length as usize == name.len() && line.name.of(&self.text) == name
    }

    /// Adds a line behind all others.
    pub fn append(&mut self, name: &HeaderName, value: &[u8]) {
        let (name, value) = (self.add(name.as_str().as_bytes()), self.add(value));
        self.lines.push(Line { name, value });
    }

    /// Adds a line behind all others, with the value of another field's first one, where there is one.
    pub(crate) fn append_copy(&mut self, name: &HeaderName, other: &HeaderName) {
        let wanted = other.as_str().as_bytes();
        if let Some(value) =
            self.lines.iter().find(|line| self.is(**line, wanted)).map(|it| it.value)
        {
            let name = self.add(name.as_str().as_bytes());
            // The same part of the text.
            self.lines.push(Line { name, value });
        }
    }

    /// Writes a field as one line, in place of whatever was there.
    pub fn insert(&mut self, name: &HeaderName, value: &[u8]) {
        let wanted = name.as_str().as_bytes();
        let Some(first) = self.lines.iter().position(|line| self.is(*line, wanted)) else {
            return self.append(name, value);
        };
        let value = self.add(value);
        if let Some(line) = self.lines.get_mut(first) {
            line.value = value;
        }
        let text = &self.text;
        let mut place = 0;
        self.lines.retain(|line| {
            place += 1;
            place <= first + 1 || line.name.of(text) != wanted
        });
    }

    /// Removes all lines of a field.
    pub fn remove(&mut self, name: &HeaderName) {
        let name = name.as_str().as_bytes();
        let text = &self.text;
        self.lines.retain(|line| line.name.of(text) != name);
    }
}

impl Lines for HeadFields {
    fn line(&self, name: &HeaderName, place: usize) -> Option<&[u8]> {
        let name = name.as_str().as_bytes();
        let mut lines = self.lines.iter().filter(|line| self.is(**line, name));
        lines.nth(place).map(|line| line.value.of(&self.text))
    }
}

impl Fields for HeadFields {
    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| line.name.of(&self.text))
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value.as_bytes());
    }

    fn keep(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| keep(line.name.of(text)));
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
        let mut headers = Self::with_capacity(fields.len());
        for (name, value) in fields.iter() {
            let line = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
            if let Some((name, value)) = line {
                headers.append(name, value);
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
                    for place in 0..=map.len() {
                        prop_assert_eq!(fields.line(name, place), map.line(name, place));
                    }
                }
                prop_assert_eq!(HeaderMap::from(&fields), map.clone());
                prop_assert_eq!(HeaderMap::from(&HeadFields::from(&map)), map.clone());
            }
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
        assert_eq!(fields.size(), b"x-a: One\r\nhost: \r\n".len());
    }
}
