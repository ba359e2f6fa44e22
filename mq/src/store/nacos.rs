use futures_util::future::{BoxFuture, FutureExt};
use gray_config::nacos::{ConfigKey, Link, NacosError};
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_128;

use super::{Entry, StateStore, StoreError};

/// Keeps tables as configuration documents in Nacos, on servers that compare before they write.
#[derive(Debug)]
pub struct NacosStore {
    link: Link,
    group: String,
    compares: OnceCell<()>,
}

/// An md5 that no document has: creating writes over nothing, and a blank one would write over
/// anything.
const NONE: &str = "00000000000000000000000000000000";

/// How a server begins to say that somebody else has written since.
const NOT_SEEN: &str = "Cas publish fail";

/// The longest name that Nacos has room for: the table of a group's retries may have a longer one.
const LONGEST: usize = 255;

/// The document by which a server is tried.
const PROBE: &str = "graylane.mq-probe";

/// The document that names all tables, since Nacos lists documents to consoles only.
const INDEX: &str = "graylane.mq-index";

/// A server writes over what it should have compared first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it does not compare before it writes (casMd5), so that two writers would lose each other's \
     changes; keep the state in a database instead"
)]
pub struct NotCompared;

impl NacosStore {
    /// Keeps tables in the documents of a group. Before anything else it is tried whether the server
    /// compares before it writes: rnacos, for one, does not, and is refused as [`NotCompared`].
    pub fn new(link: Link, group: &str) -> Self {
        Self { link, group: group.to_owned(), compares: OnceCell::new() }
    }

    /// Makes sure that the server compares before it writes.
    ///
    /// # Errors
    ///
    /// Where it does not, or cannot be asked.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.compares.get_or_try_init(|| self.probe()).await.copied()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let nonce = format!("{:016x}", fastrand::u64(..));
        let seen = self.read_entry(PROBE).await?;
        // Somebody else may be trying at the same time.
        self.publish(PROBE, &nonce, seen.as_ref()).await?;
        let wrong = Entry { text: String::new(), revision: NONE.to_owned() };
        if self.publish(PROBE, "not compared", Some(&wrong)).await? {
            return Err(self.error("being tried", NotCompared.into()));
        }
        Ok(())
    }

    fn key(&self, key: &str) -> ConfigKey {
        ConfigKey { data_id: data_id(key), group: self.group.clone() }
    }

    fn failed(&self, what: &'static str, error: NacosError) -> StoreError {
        self.error(what, error.into())
    }

    fn error(
        &self,
        what: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> StoreError {
        let servers = self.link.properties().servers.join(", ");
        StoreError { place: format!("Nacos {servers}"), what, source }
    }

    async fn read_entry(&self, data_id: &str) -> Result<Option<Entry>, StoreError> {
        let read = self.link.config(&self.key(data_id)).await;
        let read = read.map_err(|error| self.failed("reading", error))?;
        Ok(read.map(|(text, revision)| Entry { text, revision }))
    }

    async fn publish(
        &self,
        data_id: &str,
        text: &str,
        seen: Option<&Entry>,
    ) -> Result<bool, StoreError> {
        let md5 = seen.map_or(NONE, |seen| seen.revision.as_str());
        match self.link.publish(&self.key(data_id), text, Some(md5)).await {
            Ok(()) => Ok(true),
            Err(NacosError::Refused { message, .. }) if message.starts_with(NOT_SEEN) => Ok(false),
            // Two who create it at once are told something else; what it then holds says whose it is.
            Err(error @ NacosError::Refused { .. }) => {
                let now = self.read_entry(data_id).await?.map(|entry| entry.revision);
                let same = now == seen.map(|seen| seen.revision.clone());
                if same { Err(self.failed("writing", error)) } else { Ok(false) }
            }
            Err(error) => Err(self.failed("writing", error)),
        }
    }

    /// Names a table in the index, before it is created.
    async fn index(&self, key: &str) -> Result<(), StoreError> {
        for _ in 0..20 {
            let seen = self.read_entry(INDEX).await?;
            let text = seen.as_ref().map_or("", |seen| seen.text.as_str());
            if text.lines().any(|line| line == key) {
                return Ok(());
            }
            if self.publish(INDEX, &format!("{text}{key}\n"), seen.as_ref()).await? {
                return Ok(());
            }
        }
        Err(self.error("writing", "its index changes all the time".into()))
    }
}

/// The document of a key: a longer name is cut, and told apart by a hash of the whole. The index has it whole.
fn data_id(key: &str) -> String {
    const HASH: usize = 33;
    match key.get(..LONGEST - HASH) {
        Some(begin) if key.len() > LONGEST => format!("{begin}-{:032x}", xxh3_128(key.as_bytes())),
        _ => key.to_owned(),
    }
}

impl StateStore for NacosStore {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        async move {
            self.ready().await?;
            self.read_entry(key).await
        }
        .boxed()
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        seen: Option<&'a Entry>,
        text: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            self.ready().await?;
            // Before it is there: an index that names a table too many is no harm, one too few hides it.
            if seen.is_none() {
                self.index(key).await?;
            }
            self.publish(key, text, seen).await
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            self.ready().await?;
            let index = self.read_entry(INDEX).await?;
            let text = index.map_or_else(String::new, |index| index.text);
            let keys = text.lines().filter(|line| line.starts_with(prefix));
            Ok(keys.map(str::to_owned).collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_a_name_that_nacos_has_room_for() {
        let longest = "a".repeat(LONGEST);
        assert_eq!(data_id(&longest), longest);
        let [one, other] = ["b", "c"].map(|end| data_id(&(longest.clone() + end)));
        assert_eq!((one.len(), other.len()), (LONGEST, LONGEST));
        assert_ne!(one, other);
        // As it was: a table that is there must be found again.
        assert!(one.ends_with("-d27908d3b41a23da6b6c3c4528329c68"), "{one}");
    }
}
