use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::{broadcast, watch};

use super::{ConfigSource, SourceError, Update};
use crate::Documents;
use crate::nacos::{ConfigKey, Link, LinkState, NacosError, Push};

/// How often documents are read again unasked, give or take a quarter.
const POLL: Duration = Duration::from_secs(8);

/// How often they are read unasked after they could not be.
const RETRY: Duration = Duration::from_secs(1);

/// How often in a row a document is read again at once, since it has changed meanwhile.
const ROUNDS: u8 = 5;

/// Documents that are Nacos configurations, known by their data ids.
///
/// A push is only a hint: what counts is what the server answers when asked. It is asked when the
/// server hints, when the link has come back, and every few seconds; and once more after each answer has
/// been told, in case there was a change that it does not hint at.
#[derive(Debug)]
pub struct NacosSource {
    link: Link,
    keys: Vec<ConfigKey>,
}

impl NacosSource {
    /// Follows these documents over a link to the configuration half of Nacos.
    pub const fn new(link: Link, keys: Vec<ConfigKey>) -> Self {
        Self { link, keys }
    }
}

impl ConfigSource for NacosSource {
    fn updates(self: Box<Self>) -> BoxStream<'static, Update> {
        let state = State {
            pushes: self.link.pushes(),
            states: self.link.state(),
            link: self.link,
            keys: self.keys,
            told: None,
            read: BTreeMap::new(),
            listening: true,
            again: 0,
            polled: false,
        };
        unfold(state, |mut state| async move {
            let update = state.next().await;
            Some((update, state))
        })
        .boxed()
    }
}

struct State {
    link: Link,
    keys: Vec<ConfigKey>,
    pushes: broadcast::Receiver<Push>,
    states: watch::Receiver<LinkState>,
    told: Option<Result<Documents, SourceError>>,
    /// What was read last, and its checksum.
    read: BTreeMap<ConfigKey, (Arc<str>, String)>,
    /// Whether the server was told what was read, so that it pushes what changes after it.
    listening: bool,
    /// How often it has answered since the last hint that something has changed again.
    again: u8,
    polled: bool,
}

impl State {
    /// Waits until the server says something that it did not say before.
    async fn next(&mut self) -> Update {
        loop {
            let now = match self.due().await {
                Ok(keys) => self.read(&keys).await,
                Err(error) => Err(error),
            };
            let now = now.unwrap_or_else(|error| Err(self.explain(&error)));
            if now.is_err() {
                // After an error everything is read again.
                self.listening = true;
            }
            if self.told.as_ref() != Some(&now) {
                if std::mem::take(&mut self.polled) {
                    self.link.stats().poll_finds.fetch_add(1, Ordering::Relaxed);
                }
                self.told = Some(now.clone());
                return match now {
                    Ok(documents) => Update::Documents(documents),
                    Err(error) => Update::Unavailable(error),
                };
            }
        }
    }

    /// Returns which documents to read, as soon as there is reason to read any: what is read is told first,
    /// and only then the server is asked whether it has changed meanwhile.
    async fn due(&mut self) -> Result<Vec<ConfigKey>, NacosError> {
        if self.told.is_none() {
            self.first_link().await;
            return Ok(self.keys.clone());
        }
        if !std::mem::replace(&mut self.listening, true) {
            let read = self.read.iter().map(|(key, (_, md5))| (key.clone(), md5.clone()));
            let changed = self.link.listen(&read.collect::<Vec<_>>()).await?;
            // A server that finds something changed every time is asked again later.
            if !changed.is_empty() && self.again < ROUNDS {
                self.again += 1;
                return Ok(changed);
            }
        }
        Ok(self.hint().await)
    }

    /// Gives the first connection a moment, so that a start does not begin with an error.
    async fn first_link(&mut self) {
        let ready = |state: &LinkState| state.connected || state.error.is_some();
        let limit = self.link.properties().timeout.0;
        // Whatever comes of it, the reading that follows says what is wrong.
        let _ = tokio::time::timeout(limit, self.states.wait_for(ready)).await;
        self.states.mark_unchanged();
    }

    /// Returns what may have changed, when there is reason to read it again.
    async fn hint(&mut self) -> Vec<ConfigKey> {
        (self.again, self.polled) = (0, false);
        let failed = matches!(self.told, Some(Err(_)));
        let pause = if failed { RETRY } else { POLL };
        let poll = tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0));
        tokio::pin!(poll);
        loop {
            tokio::select! {
                push = self.pushes.recv() => match push {
                    Ok(Push::Config(key)) if self.keys.contains(&key) => {
                        return if failed { self.keys.clone() } else { vec![key] };
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return self.keys.clone(),
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                },
                changed = self.states.changed() => match changed {
                    Ok(()) => return self.keys.clone(),
                    Err(_) => std::future::pending().await,
                },
                () = &mut poll => {
                    self.link.stats().polls.fetch_add(1, Ordering::Relaxed);
                    self.polled = true;
                    return self.keys.clone();
                }
            }
        }
    }

    /// Reads these documents, and returns all as they are now.
    async fn read(
        &mut self,
        keys: &[ConfigKey],
    ) -> Result<Result<Documents, SourceError>, NacosError> {
        for key in keys {
            let Some((content, md5)) = self.link.config(key).await? else {
                self.read.remove(key);
                let _ = self.link.listen(&[(key.clone(), String::new())]).await?;
                return Ok(Err(self.missing(key)));
            };
            self.read.insert(key.clone(), (Arc::from(content), md5));
        }
        self.listening = false;
        let documents = self.read.iter();
        let documents = documents.map(|(key, (text, _))| (key.data_id.clone(), Arc::clone(text)));
        Ok(Ok(Documents(documents.collect())))
    }

    fn missing(&self, key: &ConfigKey) -> SourceError {
        let properties = self.link.properties();
        SourceError {
            source_name: format!("nacos {}", properties.servers.join(",")),
            reason: format!(
                "there is no data id {} in group {} of namespace {}; publish it there, or correct \
                 the group or the namespace's id",
                key.data_id,
                key.group,
                properties.namespace_name()
            ),
        }
    }

    fn explain(&self, error: &NacosError) -> SourceError {
        let servers = self.link.properties().servers.join(",");
        SourceError { source_name: format!("nacos {servers}"), reason: error.to_string() }
    }
}
