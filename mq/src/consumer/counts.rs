use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use gray_propagation::Lane;

/// What became of messages, by topic, group, lane and outcome.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<Count, u64>>);

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The lane that the message was produced in; `None` for base.
    pub lane: Option<Lane>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was handled.
    Handled,
    /// It could not be handled, and was given back.
    GivenBack,
    /// It belongs to others.
    Skipped,
    /// Base handled it although the lane has consumers: it was produced before they owned it.
    Escaped,
}

impl Outcome {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::GivenBack => "given_back",
            Self::Skipped => "skipped",
            Self::Escaped => "escaped",
        }
    }
}

impl Counts {
    pub(super) fn add(&self, count: Count) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(count).or_default() += 1;
    }

    /// Returns everything that was counted.
    pub fn all(&self) -> BTreeMap<Count, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
