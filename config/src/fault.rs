use std::collections::BTreeSet;
use std::fmt::Display;

use crate::KeyPath;
use crate::path::Step;

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document works, but probably not as meant.
    Warning,
    /// The document is refused.
    Error,
}

/// Something wrong at one place of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub path: KeyPath,
    /// What it is.
    pub message: String,
    /// What to do, where that can be said.
    pub help: Option<String>,
}

/// How many faults of a document are kept; further ones are only counted.
const MAX_KEPT: usize = 200;

/// How much of a message is kept, in characters: what it quotes may be a whole document.
const MAX_MESSAGE: usize = 400;

/// Collects what is wrong with a document, so that all of it is reported at once.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    kept: Vec<Fault>,
    more: usize,
    errors: bool,
    /// What could not be read, which has been said. The value that was read is without it.
    aside: BTreeSet<KeyPath>,
}

impl Faults {
    /// Notes an error.
    pub fn error(&mut self, path: &KeyPath, message: impl Display) {
        self.add(Severity::Error, path, message, None);
    }

    /// Notes an error and what to do about it.
    pub fn error_with_help(&mut self, path: &KeyPath, message: impl Display, help: Option<String>) {
        self.add(Severity::Error, path, message, help);
    }

    /// Notes a warning.
    pub fn warning(&mut self, path: &KeyPath, message: impl Display) {
        self.add(Severity::Warning, path, message, None);
    }

    /// Notes the error of a result, and returns its value.
    pub fn check<T, E: Display>(&mut self, path: &KeyPath, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.error(path, error)).ok()
    }

    /// Takes note that the document is to be refused for a reason that is told elsewhere.
    pub(crate) const fn refuse(&mut self) {
        self.errors = true;
    }

    /// Tells whether the document is to be refused.
    pub fn has_errors(&self) -> bool {
        self.errors
    }

    /// Tells whether everything at a path and below it could be read.
    pub fn is_whole(&self, path: &KeyPath) -> bool {
        !self.is_spoilt(&self.written(path))
    }

    /// Returns the faults that are kept, in the order they were noted.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.kept.iter()
    }

    /// Returns how many further faults there are.
    pub const fn more(&self) -> usize {
        self.more
    }

    pub(crate) fn push(&mut self, mut fault: Fault) {
        self.errors |= fault.severity == Severity::Error;
        if self.kept.len() >= MAX_KEPT {
            self.more += 1;
            return;
        }
        if let Some((end, _)) = fault.message.char_indices().nth(MAX_MESSAGE) {
            fault.message.truncate(end);
            fault.message.push('…');
        }
        self.kept.push(fault);
    }

    fn add(
        &mut self,
        severity: Severity,
        path: &KeyPath,
        message: impl Display,
        help: Option<String>,
    ) {
        let path = if self.aside.is_empty() { path.clone() } else { self.written(path) };
        // What lacks a part may be as it should be with it.
        if !self.is_spoilt(&path) {
            self.push(Fault { severity, path, message: message.to_string(), help });
        }
    }

    /// Takes note that a part is left out of what is read. What is noted from then on is said of the rest: its
    /// elements are where they were written, and nothing is said of what lacks the part.
    pub(crate) fn set_aside(&mut self, path: KeyPath) {
        self.errors = true;
        self.aside.insert(path);
    }

    /// Tells whether something right below a path was set aside.
    pub(crate) fn lacks(&self, path: &KeyPath) -> bool {
        self.below(path).any(|aside| aside.steps().len() == path.steps().len() + 1)
    }

    /// Tells whether a path was set aside, or something below it.
    fn is_spoilt(&self, path: &KeyPath) -> bool {
        self.below(path).next().is_some()
    }

    /// What was set aside at a path and below it.
    fn below<'a>(&'a self, path: &'a KeyPath) -> impl Iterator<Item = &'a KeyPath> {
        let range = self.aside.range(path..);
        range.take_while(|aside| aside.steps().starts_with(path.steps()))
    }

    /// Returns where something was written that stands at this path of the value.
    fn written(&self, path: &KeyPath) -> KeyPath {
        path.steps().iter().fold(KeyPath::ROOT, |at, step| match step {
            Step::Key(key) => at.key(key.as_str()),
            Step::Index(index) => {
                // In their order, so that each moves those behind it by one.
                let aside = self.below(&at).filter_map(|aside| match aside.steps().split_last() {
                    Some((Step::Index(place), list)) if list == at.steps() => Some(*place),
                    _ => None,
                });
                at.index(aside.fold(*index, |place, aside| place + usize::from(aside <= place)))
            }
        })
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_faults_is_counted_and_not_kept() {
        let mut faults = Faults::default();
        for _ in 0..1_000 {
            faults.error(&KeyPath::ROOT, "x".repeat(1 << 20));
        }
        assert!(faults.has_errors());
        assert_eq!(faults.iter().count() + faults.more(), 1_000);
        assert!(faults.iter().all(|fault| fault.message.chars().count() <= MAX_MESSAGE + 1));
    }
}
