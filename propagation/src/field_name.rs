use std::fmt;
use std::ops::Deref;

use http::header::HeaderName;

/// The name of a field, and its mark.
///
/// A head that keeps the marks of the names which it has knows of most others that it has not, without looking at
/// any line; the mark of a name that is written in the program is made when that is compiled.
#[derive(Clone)]
pub struct FieldName {
    name: HeaderName,
    /// Its text, where that is written in the program.
    text: Option<&'static str>,
    mark: u64,
    underscores: bool,
}

impl FieldName {
    /// The name that is written here, in lower case.
    ///
    /// # Panics
    ///
    /// As [`HeaderName::from_static`], where the text is none; at compile time where it is a constant.
    #[allow(clippy::indexing_slicing, reason = "the place is looked at before")]
    pub const fn from_static(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        let (mut place, mut underscores) = (0, false);
        while place < bytes.len() {
            underscores |= bytes[place] == b'_';
            place += 1;
        }
        let (mark, text) = (Self::mark_of(bytes), Some(name));
        Self { name: HeaderName::from_static(name), text, mark, underscores }
    }

    /// Returns the mark of a name: one bit, which other names may have too.
    ///
    /// The factors were chosen by trying some ten thousand: by them few of the names that clients and instances send
    /// have a mark of one that is looked for.
    #[inline]
    #[allow(clippy::indexing_slicing, reason = "the middle of what is not empty is there")]
    pub const fn mark_of(name: &[u8]) -> u64 {
        let (first, last) = match name {
            [] => return 1,
            [one] => (*one, *one),
            [first, .., last] => (*first, *last),
        };
        let middle = name[name.len() / 2];
        let sum =
            name.len() * 101 + first as usize * 163 + last as usize * 123 + middle as usize * 217;
        1 << (sum & 63)
    }

    /// Returns this name's.
    #[inline]
    pub const fn mark(&self) -> u64 {
        self.mark
    }

    /// Returns the name's text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.unwrap_or_else(|| self.name.as_str()).as_bytes()
    }

    /// Tells whether it has an underscore.
    #[inline]
    pub const fn has_underscores(&self) -> bool {
        self.underscores
    }
}

impl PartialEq for FieldName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for FieldName {}

impl Deref for FieldName {
    type Target = HeaderName;

    fn deref(&self) -> &HeaderName {
        &self.name
    }
}

impl From<HeaderName> for FieldName {
    fn from(name: HeaderName) -> Self {
        let text = name.as_str();
        let (mark, underscores) = (Self::mark_of(text.as_bytes()), text.contains('_'));
        Self { name, text: None, mark, underscores }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Debug for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// The names that lanes travel under.
pub mod field {
    use super::FieldName;

    /// [`GRAY_HEADER`](crate::GRAY_HEADER).
    pub static GRAY: FieldName = FieldName::from_static("gray");
    /// [`HOP_HEADER`](crate::HOP_HEADER).
    pub static HOP: FieldName = FieldName::from_static("x-graylane-hop");
    /// [`PATH_HEADER`](crate::PATH_HEADER).
    pub static PATH: FieldName = FieldName::from_static("x-graylane-path");
    /// [`TAG_HEADER`](crate::TAG_HEADER).
    pub static TAG: FieldName = FieldName::from_static("x-graylane-tag");

    #[cfg(test)]
    mod tests {
        #[test]
        fn they_are_the_headers_names() {
            assert_eq!(*super::GRAY, crate::GRAY_HEADER);
            assert_eq!(*super::HOP, crate::HOP_HEADER);
            assert_eq!(*super::PATH, crate::PATH_HEADER);
            assert_eq!(*super::TAG, crate::TAG_HEADER);
        }
    }
}
