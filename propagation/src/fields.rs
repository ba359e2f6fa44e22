use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::FieldName;

/// The fields of a message's head, to be looked at, however they are kept.
pub trait Lines: std::fmt::Debug {
    /// Returns the value of a field's line; `place` counts the lines of that name from 0.
    fn line(&self, name: &FieldName, place: usize) -> Option<&[u8]>;

    /// Returns the values of all lines of a field but the first, in their order.
    fn more(&self, name: &FieldName) -> Vec<&[u8]>;

    /// Returns the value of a field's first line.
    #[inline]
    fn first(&self, name: &FieldName) -> Option<&[u8]> {
        self.line(name, 0)
    }

    /// Returns the value of a field's first line, where it is nothing but visible ASCII.
    fn text(&self, name: &FieldName) -> Option<&str> {
        visible(self.first(name)?)
    }

    /// Tells whether there is such a field.
    #[inline]
    fn has(&self, name: &FieldName) -> bool {
        self.first(name).is_some()
    }
}

/// The fields of a message's head, to be changed.
pub trait Fields: Lines {
    /// Returns the name of each line, in lower case.
    fn names(&self) -> impl Iterator<Item = &[u8]>;

    /// Tells whether any of these fields may be there; `false` only where none is.
    fn may_have_any<'a>(&self, names: impl IntoIterator<Item = &'a FieldName>) -> bool {
        names.into_iter().any(|name| self.has(name))
    }

    /// Tells whether any name may have an underscore; `false` only where none has.
    fn may_have_underscores(&self) -> bool {
        self.names().any(|name| name.contains(&b'_'))
    }

    /// Writes a field as one line, in place of whatever was there.
    fn set(&mut self, name: &FieldName, value: HeaderValue);

    /// Removes every line whose name is not to be kept.
    fn keep(&mut self, keep: impl Fn(&[u8]) -> bool);

    /// Removes all lines of a field.
    fn drop_all(&mut self, name: &FieldName) {
        if self.has(name) {
            self.keep(|other| other != name.as_bytes());
        }
    }
}

/// Returns the values of all lines of a field, in their order.
#[inline]
pub fn lines<'a, L: Lines + ?Sized>(
    fields: &'a L,
    name: &FieldName,
) -> impl Iterator<Item = &'a [u8]> + use<'a, L> {
    // Few fields have a second line, and one may have thousands: looking for each from the first on would take
    // the square of that.
    let more = if fields.line(name, 1).is_some() { fields.more(name) } else { Vec::new() };
    fields.first(name).into_iter().chain(more)
}

/// Reads a value that is nothing but visible ASCII, as [`HeaderValue::to_str`] does.
pub fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
    // All of them are looked at, since that is done by many at once.
    let all = value.iter().fold(true, |all, byte| all & is_visible(*byte));
    if all { std::str::from_utf8(value).ok() } else { None }
}

impl Lines for HeaderMap {
    fn line(&self, name: &FieldName, place: usize) -> Option<&[u8]> {
        let value =
            if place == 0 { self.get(&**name) } else { self.get_all(&**name).iter().nth(place) };
        value.map(HeaderValue::as_bytes)
    }

    fn more(&self, name: &FieldName) -> Vec<&[u8]> {
        self.get_all(&**name).iter().skip(1).map(HeaderValue::as_bytes).collect()
    }
}

impl Fields for HeaderMap {
    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.keys().map(|name| name.as_str().as_bytes())
    }

    fn set(&mut self, name: &FieldName, value: HeaderValue) {
        self.insert(&**name, value);
    }

    fn keep(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let gone: Vec<HeaderName> =
            self.keys().filter(|name| !keep(name.as_str().as_bytes())).cloned().collect();
        for name in gone {
            self.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn visible_is_what_a_header_value_takes_for_it(value in prop::collection::vec(any::<u8>(), 0..8)) {
            if let Ok(known) = HeaderValue::from_bytes(&value) {
                prop_assert_eq!(visible(&value), known.to_str().ok());
            }
        }
    }

    #[test]
    fn a_field_may_have_several_lines() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let name = FieldName::from_static("a");
        assert_eq!(lines(&headers, &name).collect::<Vec<_>>(), [b"1", b"3"]);
        headers.set(&name, HeaderValue::from_static("4"));
        assert_eq!(lines(&headers, &name).collect::<Vec<_>>(), [b"4"]);
        headers.keep(|name| name == b"b");
        assert_eq!((headers.has(&name), headers.len()), (false, 1));
    }
}
