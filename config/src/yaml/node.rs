use std::collections::HashSet;
use std::sync::Arc;

use crate::path::{KeyPath, Step};
use crate::suggest::fold;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line and column of the document, counted from 1.
    Text { line: usize, column: usize },
    /// A flag or environment variable.
    Override(Arc<str>),
}

/// A value of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) origin: Origin,
    pub(crate) kind: Kind,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A scalar as it was written; `plain` without quotes.
    Scalar {
        text: Box<str>,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// Entries in the order they were written, no key twice.
    Mapping(Vec<Entry>),
    /// What it is cannot be told, which has been said: a variable is not set.
    Unset,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) origin: Origin,
    pub(crate) value: Node,
}

impl Entry {
    /// Tells whether the entry has this key; one from the environment may be in capitals.
    fn is_named(&self, key: &str) -> bool {
        let given = matches!(self.origin, Origin::Override(_));
        &*self.key == key || (given && fold(&self.key) == fold(key))
    }
}

impl Node {
    /// Tells whether the node is YAML's nothing: an absent value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain: true } => {
                matches!(&**text, "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// Tells whether it is left out when the document is read.
    pub(crate) fn is_aside(&self, aside: &HashSet<u32>) -> bool {
        matches!(self.kind, Kind::Unset) || aside.contains(&self.id)
    }

    /// Numbers the nodes anew, so that a number stands for one place.
    pub(crate) fn number(&mut self, last: &mut u32) {
        *last += 1;
        self.id = *last;
        match &mut self.kind {
            Kind::Scalar { .. } | Kind::Unset => {}
            Kind::Sequence(elements) => elements.iter_mut().for_each(|node| node.number(last)),
            Kind::Mapping(entries) => {
                for entry in entries {
                    entry.value.number(last);
                }
            }
        }
    }

    /// Calls `found` with the path of each value below one for which `wanted` holds, and of none below those.
    pub(crate) fn each(
        &self,
        at: &KeyPath,
        wanted: &dyn Fn(&Self) -> bool,
        found: &mut dyn FnMut(KeyPath),
    ) {
        if wanted(self) {
            return found(at.clone());
        }
        match &self.kind {
            Kind::Scalar { .. } | Kind::Unset => {}
            Kind::Sequence(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    element.each(&at.index(index), wanted, found);
                }
            }
            Kind::Mapping(entries) => {
                for entry in entries {
                    entry.value.each(&at.key(&*entry.key), wanted, found);
                }
            }
        }
    }

    /// Returns the value below a path.
    pub(crate) fn find(&self, path: &KeyPath) -> Option<&Self> {
        path.steps().iter().try_fold(self, Self::child)
    }

    /// Returns where the deepest part of the path that exists was written: the key for an entry.
    pub(crate) fn locate(&self, path: &KeyPath) -> &Origin {
        let (mut node, mut origin) = (self, &self.origin);
        for step in path.steps() {
            let Some(child) = node.child(step) else { break };
            origin = match step {
                // A value that was put over the text's stands elsewhere than its key.
                Step::Key(key) if matches!(child.origin, Origin::Text { .. }) => {
                    node.entry(key).map_or(&child.origin, |entry| &entry.origin)
                }
                Step::Key(_) | Step::Index(_) => &child.origin,
            };
            node = child;
        }
        origin
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|entry| entry.is_named(key)),
            _ => None,
        }
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (step, &self.kind) {
            (Step::Key(key), _) => self.entry(key).map(|entry| &entry.value),
            (Step::Index(index), Kind::Sequence(elements)) => elements.get(*index),
            (Step::Index(_), _) => None,
        }
    }
}
