//! Where tables are kept, so that every member of a group sees the same one.

mod forgetting;
mod ledger;
mod memory;
mod nacos;
mod open;
mod sql;

use std::fmt;

use futures_util::future::BoxFuture;

pub use self::forgetting::ForgetError;
pub use self::ledger::{ChangeError, FindError, Ledger};
pub use self::memory::MemoryStore;
pub use self::nacos::{NacosStore, NotCompared};
pub use self::open::{OpenError, open_store};
pub use self::sql::SqlStore;

/// A store that changes a text only for who has seen what it replaces.
pub trait StateStore: fmt::Debug + Send + Sync {
    /// Reads the text of a key. What it returns may be out of date.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// Replaces what was read, or creates what was not there; `false` where somebody else has
    /// written since.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]. It is then unknown whether the text was written.
    fn swap<'a>(
        &'a self,
        key: &'a str,
        seen: Option<&'a Entry>,
        text: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Returns the keys that begin with a prefix.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;
}

/// What a key had when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The text.
    pub text: String,
    /// What tells it from other texts that this key had.
    pub revision: String,
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("the state store at {place} failed: {what}")]
pub struct StoreError {
    /// Where it is.
    pub place: String,
    /// What it was doing.
    pub what: &'static str,
    /// What it said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
