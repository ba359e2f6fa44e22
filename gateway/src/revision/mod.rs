//! Rules, versions and fallbacks as one value: what a request is decided by from beginning to end.

mod documents;
mod native;
mod spring;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use gray_filters::RuleSet;
use gray_lb::LaneTable;
use gray_propagation::{GrayStatus, Lane};

pub(crate) use self::documents::warn_of_empty_lane;
pub use self::documents::{RuleDocuments, parse_documents};
pub use self::native::NativeProperties;

/// Everything that rule documents say, in force together.
#[derive(Debug)]
pub struct Revision {
    /// Counts the revisions of this process.
    pub number: u64,
    /// The digest of the documents: the same on every replica that follows the same ones.
    pub digest: String,
    /// Which lane a request travels in.
    pub rules: RuleSet,
    /// Which version a lane has, service by service, and what it falls back to.
    pub lanes: LaneTable,
    /// The lanes that requests may travel in: those that are configured and switched on.
    pub open: BTreeSet<Lane>,
    /// Whether rules are still awaited: nobody can say yet where a request belongs.
    pub awaited: bool,
}

impl Revision {
    /// A revision that sends every request to every version.
    pub fn off() -> Self {
        Self::new(String::new(), RuleSet::off(), LaneTable::default(), BTreeSet::new())
    }

    /// What stands for rules that are configured and have never come.
    pub fn awaited() -> Self {
        Self { awaited: true, ..Self::off() }
    }

    /// A new revision.
    pub fn new(digest: String, rules: RuleSet, lanes: LaneTable, open: BTreeSet<Lane>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { number, digest, rules, lanes, open, awaited: false }
    }
}

impl Revision {
    /// Tells whether a verdict that somebody else reached can be taken over here.
    pub fn admits(&self, status: GrayStatus) -> bool {
        self.rules.is_on() && status.lane().is_none_or(|lane| self.open.contains(lane))
    }
}

impl AsRef<RuleSet> for Revision {
    fn as_ref(&self) -> &RuleSet {
        &self.rules
    }
}
