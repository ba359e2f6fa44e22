use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use gray_propagation::Lane;
use serde::{Deserialize, Serialize};

use super::{Entry, StateStore, StoreError};
use crate::{Owner, Ownership};

/// How often a change is tried that others come before.
const ATTEMPTS: u32 = 50;

/// How long a store may take for one answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The table of one consumer group and topic, in a store.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Arc<dyn StateStore>,
    key: String,
}

/// Why a table was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// The step cannot be taken.
    #[error(transparent)]
    Step(E),
    /// The store failed; the change may have been made all the same.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why there is no table to be had.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nobody has ever consumed that topic in that group.
    #[error("group {group} has no table of topic {topic}; there are: {known}")]
    Unknown {
        /// The consumer group.
        group: String,
        /// The topic.
        topic: String,
        /// Those that there are.
        known: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A table as it is written down.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Record {
    /// Whose write it is: no two are the same, so that neither a writer who got no answer nor a store
    /// that compares texts mistakes one for another.
    #[serde(default)]
    nonce: String,
    table: Ownership,
}

impl Ledger {
    /// The table of a group and a topic.
    pub fn new(store: Arc<dyn StateStore>, group: &str, topic: &str) -> Self {
        Self { store, key: key(group, topic) }
    }

    /// Returns the table of a group and a topic that is there already: a misspelt name is no new
    /// table.
    ///
    /// # Errors
    ///
    /// Where there is none, which says which there are, or where the store fails.
    pub async fn find(
        store: &Arc<dyn StateStore>,
        group: &str,
        topic: &str,
    ) -> Result<Self, FindError> {
        let ledger = Self::new(Arc::clone(store), group, topic);
        let keys = store.keys("graylane.mq.").await?;
        if keys.contains(&ledger.key) {
            return Ok(ledger);
        }
        let named =
            |key: &String| Self::names(key).map(|(group, topic)| format!("{group} {topic}"));
        let known: Vec<_> =
            keys.iter().filter_map(named).filter(|name| !name.contains('%')).collect();
        let (group, topic) = (group.to_owned(), topic.to_owned());
        Err(FindError::Unknown { group, topic, known: known.join(", ") })
    }

    /// Writes down what an operator has decided about a lane, or takes it back; returns the table as
    /// it then is. Consumers follow it.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn pin(&self, lane: Lane, owner: Option<Owner>) -> Result<Ownership, StoreError> {
        let pin = |table: &mut Ownership| {
            table.pin(lane, owner);
            Ok::<_, Infallible>(())
        };
        match self.change(pin).await {
            Ok((table, ())) => Ok(table),
            Err(ChangeError::Store(error)) => Err(error),
            Err(ChangeError::Step(never)) => match never {},
        }
    }

    /// Returns the group and the topic of a key, if it is one of a table.
    pub fn names(key: &str) -> Option<(String, String)> {
        let plain = |text: &str| text.replace(":r", "%").replace(":p", "|");
        let (group, topic) = key.strip_prefix("graylane.mq.")?.split_once('.')?;
        Some((plain(group), plain(topic)))
    }

    /// Returns the key that it has in the store.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Reads the table. It may be out of date.
    ///
    /// # Errors
    ///
    /// Where the store fails, or holds something else.
    pub async fn read(&self) -> Result<Ownership, StoreError> {
        Ok(self.record().await?.1.table)
    }

    /// Takes a step on the newest table, and writes it; returns the table as it then is, and what the
    /// step returned. A step that changes nothing is not written.
    ///
    /// # Errors
    ///
    /// Where the step cannot be taken, or the store fails.
    pub async fn change<T, E>(
        &self,
        step: impl Fn(&mut Ownership) -> Result<T, E>,
    ) -> Result<(Ownership, T), ChangeError<E>> {
        let mut attempt = 0;
        loop {
            let (seen, before) = self.record().await?;
            let mut table = before.table.clone();
            let returned = step(&mut table).map_err(ChangeError::Step)?;
            if table == before.table {
                return Ok((table, returned));
            }
            let nonce = format!("{:016x}", fastrand::u64(..));
            let record = Record { nonce, table };
            if self.write(seen.as_ref(), &record).await? {
                return Ok((record.table, returned));
            }
            attempt += 1;
            if attempt == ATTEMPTS {
                return Err(self.failed("too many others are writing", "try again").into());
            }
            // Others are writing too.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..5 << attempt.min(5)))).await;
        }
    }

    /// Writes over what was seen. Where the store does not say how that went, what it then holds does.
    async fn write(&self, seen: Option<&Entry>, record: &Record) -> Result<bool, StoreError> {
        fail::fail_point!("before-swap", |_| std::process::abort());
        let text = serde_json::to_string(record);
        let text = text.map_err(|error| self.failed("writing a table down", error))?;
        let swap = self.store.swap(&self.key, seen, &text);
        let swapped = match within(swap).await {
            Some(Ok(swapped)) => swapped,
            failed => {
                let (_, now) = self.record().await?;
                if now.nonce != record.nonce {
                    let late = || Err(self.failed("writing", "it did not answer in time"));
                    return failed.unwrap_or_else(late);
                }
                true
            }
        };
        fail::fail_point!("after-swap", |_| std::process::abort());
        Ok(swapped)
    }

    async fn record(&self) -> Result<(Option<Entry>, Record), StoreError> {
        let late = || Err(self.failed("reading", "it did not answer in time"));
        let entry = within(self.store.read(&self.key)).await.unwrap_or_else(late)?;
        let Some(entry) = entry else { return Ok((None, Record::default())) };
        let record = serde_json::from_str(&entry.text);
        let record = record.map_err(|error| self.failed("reading a table", error))?;
        Ok((Some(entry), record))
    }

    fn failed(
        &self,
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError { place: self.key.clone(), what, source: source.into() }
    }
}

async fn within<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(LIMIT, answer).await.ok()
}

/// Names the table of a group and a topic; no two share a name, since neither has a `.` or a `:`.
fn key(group: &str, topic: &str) -> String {
    let plain = |text: &str| text.replace('%', ":r").replace('|', ":p");
    format!("graylane.mq.{}.{}", plain(group), plain(topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_group_and_topic() {
        for (group, topic) in [("g", "t"), ("a%b", "%RETRY%g_gray"), ("a|b", "t-1")] {
            let names = Ledger::names(&key(group, topic));
            assert_eq!(names, Some((group.to_owned(), topic.to_owned())));
        }
        assert_ne!(key("a%p", "t"), key("a|", "t"));
        assert_eq!(Ledger::names("other"), None);
    }
}
