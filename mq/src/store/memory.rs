use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, ready};

use super::{Entry, StateStore, StoreError};

/// Keeps tables in this process only: for demos and tests, in which all members are in one process.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<HashMap<String, (u64, String)>>);

impl MemoryStore {
    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        let entry = self.entries().get(key).cloned();
        let entry = entry.map(|(revision, text)| Entry { text, revision: revision.to_string() });
        ready(Ok(entry)).boxed()
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        seen: Option<&'a Entry>,
        text: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let mut entries = self.entries();
        let current = entries.get(key).map(|(revision, _)| *revision);
        let same = current.map(|it| it.to_string()).as_ref() == seen.map(|it| &it.revision);
        if same {
            entries.insert(key.to_owned(), (current.unwrap_or_default() + 1, text.to_owned()));
        }
        drop(entries);
        ready(Ok(same)).boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        let mut keys: Vec<String> =
            self.entries().keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.sort();
        ready(Ok(keys)).boxed()
    }
}
