//! Where topics are, as name servers have said it, and the brokers that this has led to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::FutureExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::debug;

use super::known::Known;
use super::route::{TopicRoute, route};
use super::slot::Slot;
use super::{Connection, RocketMqError};
use crate::QueueKey;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// How long it is believed where the queues of a topic are, and that there is no such topic.
const FRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(500));

/// What name servers have said.
#[derive(Debug)]
pub(super) struct Routes {
    names: Vec<String>,
    name_server: Slot<Connection>,
    /// Which name server is asked first next time: the one behind that which broke.
    next_name: Arc<AtomicUsize>,
    topics: Mutex<HashMap<String, Arc<KnownRoute>>>,
    brokers: Mutex<BTreeMap<String, Arc<Known>>>,
}

/// Where the queues of a topic are, as was said some time ago.
#[derive(Debug)]
pub(super) struct KnownRoute {
    asked: Instant,
    pub(super) route: Arc<TopicRoute>,
    pub(super) writable: Arc<[QueueKey]>,
}

impl KnownRoute {
    fn new(route: TopicRoute) -> Self {
        let writable = route.queues(|(_, _, writable)| *writable).collect();
        Self { asked: Instant::now(), route: Arc::new(route), writable }
    }

    /// The same, as if it had just been said again.
    fn kept(&self) -> Self {
        let (route, writable) = (Arc::clone(&self.route), Arc::clone(&self.writable));
        Self { asked: Instant::now(), route, writable }
    }

    /// Tells whether it need not be asked again yet.
    pub(super) fn is_fresh(&self) -> bool {
        let fresh = if self.leads_anywhere() { FRESH.0 } else { FRESH.1 };
        self.asked.elapsed() < fresh
    }

    /// Tells whether any broker has the topic.
    pub(super) fn leads_anywhere(&self) -> bool {
        !self.route.brokers.is_empty()
    }

    /// Returns the brokers that have the topic.
    pub(super) fn brokers(&self) -> BTreeSet<String> {
        self.route.brokers.keys().cloned().collect()
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Routes {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self {
            names,
            name_server: Slot::default(),
            next_name: Arc::default(),
            topics: Mutex::default(),
            brokers: Mutex::default(),
        }
    }

    /// Returns what was last said of a topic.
    pub(super) fn known(&self, topic: &str) -> Option<Arc<KnownRoute>> {
        lock(&self.topics).get(topic).cloned()
    }

    /// Returns the broker of a name that some topic has led to.
    pub(super) fn broker(&self, name: &str) -> Option<Arc<Known>> {
        lock(&self.brokers).get(name).cloned()
    }

    /// Returns every broker that is known.
    pub(super) fn brokers(&self) -> BTreeSet<String> {
        lock(&self.brokers).keys().cloned().collect()
    }

    /// Asks a name server where a topic is, and takes note of it. Where none answers, what was said last
    /// stays.
    ///
    /// # Errors
    ///
    /// Where no name server answers, and none has ever said where it is.
    pub(super) async fn ask(&self, topic: &str) -> Result<Arc<KnownRoute>, RocketMqError> {
        let found = match (self.ask_any(topic).await, self.known(topic)) {
            (Ok(found), _) => {
                for (name, (address, ..)) in &found.brokers {
                    self.know(name, address);
                }
                KnownRoute::new(found)
            }
            (Err(error), Some(known)) if known.leads_anywhere() => {
                debug!(%error, topic, "no name server answers, the last route is kept");
                known.kept()
            }
            (Err(error), _) => return Err(error),
        };
        let found = Arc::new(found);
        lock(&self.topics).insert(topic.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    async fn ask_any(&self, topic: &str) -> Result<TopicRoute, RocketMqError> {
        Ok(route(&*self.name_server().await?, topic).await?.unwrap_or_default())
    }

    fn know(&self, name: &str, address: &str) {
        let new = || Arc::new(Known::new(name.to_owned(), address.to_owned()));
        let known = Arc::clone(lock(&self.brokers).entry(name.to_owned()).or_insert_with(new));
        known.moved(address);
    }

    async fn name_server(&self) -> Result<Arc<Connection>, RocketMqError> {
        if self.names.is_empty() {
            return Err(RocketMqError::NoNameServer);
        }
        let make = || {
            let (names, next) = (self.names.clone(), Arc::clone(&self.next_name));
            async move { any_of(&names, &next).await }.boxed()
        };
        let all = self.names.join(", ");
        Ok(self.name_server.get(&all, |it| !it.is_broken(), make).await?.1)
    }
}

/// Connects to a name server; next time to another first.
async fn any_of(names: &[String], next: &AtomicUsize) -> Result<Connection, RocketMqError> {
    let mut failed = RocketMqError::NoNameServer;
    let first = next.load(Ordering::Relaxed);
    for (number, address) in names.iter().enumerate().cycle().skip(first).take(names.len()) {
        match Connection::open(address, CONNECT).await {
            Ok(connection) => {
                next.store((number + 1) % names.len(), Ordering::Relaxed);
                return Ok(connection);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Asks again where topics are while what was said of them is used; it ends when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    tasks: JoinSet<()>,
    /// The newest of each topic.
    newest: HashMap<String, AbortHandle>,
}

impl Refreshes {
    /// Asks about a topic in the background, unless that is being done.
    pub(super) fn start(&mut self, routes: &Arc<Routes>, topic: &str) {
        while self.tasks.try_join_next().is_some() {}
        self.newest.retain(|_, refresh| !refresh.is_finished());
        if self.newest.contains_key(topic) {
            return;
        }
        let (routes, of) = (Arc::clone(routes), topic.to_owned());
        let refresh = self.tasks.spawn(async move {
            if let Err(error) = routes.ask(&of).await {
                debug!(%error, topic = of, "where it is cannot be asked");
            }
        });
        self.newest.insert(topic.to_owned(), refresh);
    }
}

#[cfg(test)]
impl Routes {
    /// Has a route been asked for long ago.
    pub(super) fn age(&self, topic: &str) {
        let known = self.known(topic).unwrap().kept();
        let asked = known.asked.checked_sub(2 * FRESH.0).unwrap();
        lock(&self.topics).insert(topic.to_owned(), Arc::new(KnownRoute { asked, ..known }));
    }
}

#[cfg(test)]
impl Refreshes {
    /// How many are under way.
    pub(super) fn running(&self) -> usize {
        self.newest.values().filter(|refresh| !refresh.is_finished()).count()
    }
}
