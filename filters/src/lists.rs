use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{CidrSet, NameSet};

/// A list in a document of its own: one entry a line, `#` starts a comment.
#[derive(Clone, Debug)]
pub struct List(Arc<str>);

impl List {
    /// A list with this text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the entries with the numbers of their lines, counted from 1.
    pub fn entries(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.lines().enumerate().filter_map(|(index, line)| {
            let content = line.split('#').next().unwrap_or_default().trim();
            (!content.is_empty()).then_some((index + 1, content))
        })
    }

    pub(crate) fn names(&self) -> NameSet {
        self.entries().map(|(_, entry)| entry).collect()
    }

    /// Reads the entries as networks; all that are none are told of.
    pub(crate) fn networks(&self) -> Result<CidrSet, Vec<String>> {
        let lines: Vec<(usize, &str)> = self.entries().collect();
        CidrSet::parse(lines.iter().map(|(_, entry)| *entry)).map_err(|errors| {
            let line = |position: usize| lines.get(position).map_or(0, |(line, _)| *line);
            let said = |(position, error)| format!("line {}: {error}", line(position));
            errors.into_iter().map(said).collect()
        })
    }
}

/// The lists that rules may name, by their names.
#[derive(Clone, Debug, Default)]
pub struct Lists(pub BTreeMap<String, List>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_entry_a_line() {
        let list = List::new("# people\n1001\n\n 1002 # vip\r\n");
        assert_eq!(list.entries().collect::<Vec<_>>(), [(2, "1001"), (4, "1002")]);
    }

    #[test]
    fn names_the_line_of_a_wrong_network() {
        let errors = List::new("10.0.0.0/8\n\nx\ny\n").networks().unwrap_err();
        assert!(errors[0].starts_with("line 3: \"x\""), "{errors:?}");
        assert!(errors[1].starts_with("line 4: \"y\""), "{errors:?}");
    }
}
