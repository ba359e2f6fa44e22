use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::try_join_all;
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
            unconfirmed: false,
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
    /// Whether the server is still to be asked if what was read has changed meanwhile, which also makes it
    /// push what changes from then on.
    unconfirmed: bool,
    /// How often it has answered since the last hint that something has changed again.
    again: u8,
    polled: bool,
}

impl State {
    /// Waits until the server says something that it did not say before.
    async fn next(&mut self) -> Update {
        loop {
            let now = match self.due().await {
                Ok(()) => self.read().await,
                Err(error) => Err(error),
            };
            let now = now.unwrap_or_else(|error| Err(self.explain(&error)));
            self.unconfirmed = now.is_ok();
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

    /// Returns as soon as there is reason to read: what is read is told first, and only then the server is
    /// asked whether it has changed meanwhile.
    async fn due(&mut self) -> Result<(), NacosError> {
        if self.told.is_none() {
            self.first_link().await;
            return Ok(());
        }
        if std::mem::take(&mut self.unconfirmed) {
            let read = self.read.iter().map(|(key, (_, md5))| (key.clone(), md5.clone()));
            let changed = self.link.listen(&read.collect::<Vec<_>>()).await?;
            // A server that finds something changed every time is asked again later.
            if !changed.is_empty() && self.again < ROUNDS {
                self.again += 1;
                return Ok(());
            }
        }
        self.hint().await;
        Ok(())
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
        (self.again, self.polled) = (0, false);
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

    /// Reads all documents, at once: what was published before the one that was hinted at is not to come
    /// into force after it.
    async fn read(&mut self) -> Result<Result<Documents, SourceError>, NacosError> {
        let link = &self.link;
        let answers = self.keys.iter().map(|key| link.config(key));
        let mut missing = Vec::new();
        for (key, answer) in self.keys.iter().zip(try_join_all(answers).await?) {
            match answer {
                Some((content, md5)) => {
                    self.read.insert(key.clone(), (Arc::from(content), md5));
                }
                None => missing.push((key.clone(), String::new())),
            }
        }
        if !missing.is_empty() {
            let _ = self.link.listen(&missing).await?;
            return Ok(Err(self.missing(&missing)));
        }
        let documents = self.read.iter();
        let documents = documents.map(|(key, (text, _))| (key.data_id.clone(), Arc::clone(text)));
        Ok(Ok(Documents(documents.collect())))
    }

    fn missing(&self, missing: &[(ConfigKey, String)]) -> SourceError {
        let properties = self.link.properties();
        let named =
            missing.iter().map(|(key, _)| format!("{} in group {}", key.data_id, key.group));
        let named: Vec<String> = named.collect();
        SourceError {
            source_name: format!("nacos {}", properties.servers.join(",")),
            reason: format!(
                "there is no data id {} of namespace {}; publish it there, or correct the group or \
                 the namespace's id",
                named.join(", nor "),
                properties.namespace_name()
            ),
            is_missing: true,
        }
    }

    fn explain(&self, error: &NacosError) -> SourceError {
        let servers = self.link.properties().servers.join(",");
        let (source_name, reason) = (format!("nacos {servers}"), error.to_string());
        SourceError { source_name, reason, is_missing: false }
    }
}
