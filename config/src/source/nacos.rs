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

/// Documents that are Nacos configurations, known by their data ids.
///
/// A push is only a hint: what counts is what the server answers when asked. It is asked when the
/// server hints, when the link has come back, and every few seconds.
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
            md5: BTreeMap::new(),
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
    md5: BTreeMap<ConfigKey, String>,
    polled: bool,
}

impl State {
    /// Waits until the server says something that it did not say before.
    async fn next(&mut self) -> Update {
        loop {
            if self.told.is_some() {
                self.hint().await;
            } else {
                self.first_link().await;
            }
            let now = self.read().await.map_err(|error| self.explain(&error));
            let now = now.and_then(|documents| documents);
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

    /// Gives the first connection a moment, so that a start does not begin with an error.
    async fn first_link(&mut self) {
        let ready = |state: &LinkState| state.connected || state.error.is_some();
        let limit = self.link.properties().timeout.0;
        // Whatever comes of it, the reading that follows says what is wrong.
        let _ = tokio::time::timeout(limit, self.states.wait_for(ready)).await;
        self.states.mark_unchanged();
    }

    /// Returns when there is reason to read again.
    async fn hint(&mut self) {
        let failed = matches!(self.told, Some(Err(_)));
        let pause = if failed { RETRY } else { POLL };
        let poll = tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0));
        tokio::pin!(poll);
        loop {
            tokio::select! {
                push = self.pushes.recv() => match push {
                    Ok(Push::Config(key)) if self.keys.contains(&key) => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                },
                changed = self.states.changed() => match changed {
                    Ok(()) => return,
                    Err(_) => std::future::pending().await,
                },
                () = &mut poll => {
                    self.link.stats().polls.fetch_add(1, Ordering::Relaxed);
                    self.polled = true;
                    return;
                }
            }
        }
    }

    /// Reads all documents, until none of them changed meanwhile.
    async fn read(&mut self) -> Result<Result<Documents, SourceError>, NacosError> {
        const ROUNDS: usize = 5;
        let mut documents = BTreeMap::new();
        for _ in 0..ROUNDS {
            for key in &self.keys {
                let Some((content, md5)) = self.link.config(key).await? else {
                    self.listen(key, "").await?;
                    return Ok(Err(self.missing(key)));
                };
                documents.insert(key.data_id.clone(), Arc::from(content));
                self.md5.insert(key.clone(), md5);
            }
            let seen: Vec<_> = self.md5.clone().into_iter().collect();
            if self.link.listen(&seen).await?.is_empty() {
                break;
            }
        }
        Ok(Ok(Documents(documents)))
    }

    async fn listen(&self, key: &ConfigKey, md5: &str) -> Result<(), NacosError> {
        self.link.listen(&[(key.clone(), md5.to_owned())]).await.map(drop)
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
