use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// A set of short texts, such as user numbers: a million of them in some 25 MB.
///
/// The texts lie one after another in one allocation; the table holds only their numbers.
#[derive(Clone, Default)]
pub struct NameSet {
    bytes: Vec<u8>,
    /// Where each text ends; it starts where the one before it does.
    ends: Vec<u32>,
    table: HashTable<u32>,
    hasher: FixedState,
    /// The list document that they stand in.
    list: Option<Box<str>>,
}

impl NameSet {
    /// Tells whether a text is in the set.
    pub fn contains(&self, name: &[u8]) -> bool {
        let hash = self.hasher.hash_one(name);
        self.table.find(hash, |number| self.text(*number) == name).is_some()
    }

    /// Returns how many texts there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Notes the list document that the texts stand in.
    pub(crate) fn of_list(self, list: &str) -> Self {
        Self { list: Some(list.into()), ..self }
    }

    /// Returns the texts, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..u32::try_from(self.ends.len()).unwrap_or(u32::MAX)).map(|number| self.text(number))
    }

    fn text(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(number).copied().unwrap_or_default();
        self.bytes.get(start.unwrap_or_default() as usize..end as usize).unwrap_or_default()
    }

    /// Adds a text; more than 4 GiB of them do not fit and are left out.
    fn insert(&mut self, name: &[u8]) {
        if self.contains(name) {
            return;
        }
        let (Ok(number), Ok(end)) =
            (u32::try_from(self.ends.len()), u32::try_from(self.bytes.len() + name.len()))
        else {
            return;
        };
        self.bytes.extend_from_slice(name);
        self.ends.push(end);
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        let rehash = |number: &u32| {
            let number = *number as usize;
            let start = number.checked_sub(1).and_then(|before| ends.get(before)).copied();
            let end = ends.get(number).copied().unwrap_or_default();
            let text = bytes.get(start.unwrap_or_default() as usize..end as usize);
            hasher.hash_one(text.unwrap_or_default())
        };
        self.table.insert_unique(hasher.hash_one(name), number, rehash);
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for NameSet {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let mut set = Self::default();
        names.into_iter().for_each(|name| set.insert(name.as_ref()));
        set
    }
}

/// How many members of a set are shown.
pub(crate) const SHOWN: usize = 5;

/// The first texts, or the list that they stand in.
impl fmt::Display for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(list) = &self.list {
            return write!(f, "list {list:?} of {}", self.len());
        }
        let shown: Vec<_> = self.iter().take(SHOWN).map(String::from_utf8_lossy).collect();
        write_members(f, &shown, self.len())
    }
}

/// Writes some members of a set, and how many there are beside them.
pub(crate) fn write_members(
    f: &mut fmt::Formatter<'_>,
    shown: &[impl fmt::Debug],
    all: usize,
) -> fmt::Result {
    f.debug_list().entries(shown).finish()?;
    match all.saturating_sub(shown.len()) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

impl fmt::Debug for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameSet({} names)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_hash_set_holds(
            names in prop::collection::vec("[a-c]{0,3}", 0..60),
            asked in "[a-c]{0,3}",
        ) {
            let set: NameSet = names.iter().collect();
            let reference: HashSet<&String> = names.iter().collect();
            prop_assert_eq!(set.len(), reference.len());
            prop_assert_eq!(set.contains(asked.as_bytes()), reference.contains(&asked));
        }
    }
}
