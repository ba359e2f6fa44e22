//! Files that are read again when they change: how often that was done, and what went wrong last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

/// Notes what became of files that have changed, for the readiness page and the metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reloads(Arc<Mutex<BTreeMap<&'static str, Reload>>>);

/// What became of one kind of files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reload {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Why the last ones were not taken; those before them stay in force.
    pub(crate) error: Option<String>,
}

impl Reload {
    fn take(&mut self, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => self.done += 1,
            Err(_) => self.failed += 1,
        }
        self.error = outcome.err();
    }
}

impl Reloads {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Reload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what became of files of a kind.
    pub(crate) fn note(&self, kind: &'static str, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => info!(kind, "replaced"),
            Err(error) => warn!(kind, error, "not replaced, the last stay in force"),
        }
        self.lock().entry(kind).or_default().take(outcome);
    }

    /// Returns everything that was noted.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, Reload> {
        self.lock().clone()
    }
}
