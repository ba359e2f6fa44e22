use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{FutureExt, join_all, try_join_all};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tracing::debug;

use super::command::Command;
use super::connection::OnRequest;
use super::known::Known;
use super::route::{TopicRoute, route};
use super::slot::Slot;
use super::{Broker, Connection, RocketMqError};
use crate::{
    Attendance, ConnectionId, Message, MessageBroker, MessageSink, PullRequest, Pulled, QueueKey,
    Receipt, ReceivedMessage, Subscription,
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// How long it is believed where the queues of a topic are, and that there is no such topic.
const FRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(500));

/// How long a broker may take to hear that a consumer goes.
const FAREWELL: Duration = Duration::from_secs(3);

/// How many queues a topic gets that is created by sending to it.
const CREATED: u32 = 4;

/// The property that names a message.
const ID: &str = "UNIQ_KEY";

/// `NOTIFY_CONSUMER_IDS_CHANGED` of the protocol.
const CONSUMERS_CHANGED: i32 = 40;

/// `CHECK_TRANSACTION_STATE` of the protocol.
const CHECK_TRANSACTION: i32 = 39;

/// The brokers of a cluster, found by its name servers.
///
/// Connections are made when they are needed, and again when they have broken, at most one a second to
/// each server.
#[derive(Debug)]
pub struct RocketMq {
    names: Vec<String>,
    name_server: Slot<Connection>,
    /// Which name server is asked first next time: the one behind that which broke.
    next_name: Arc<AtomicUsize>,
    routes: Mutex<HashMap<String, Arc<KnownRoute>>>,
    brokers: Mutex<BTreeMap<String, Arc<Known>>>,
    changes: watch::Sender<u64>,
    checks: broadcast::Sender<Check>,
}

/// Where the queues of a topic are, as was said some time ago.
#[derive(Debug)]
struct KnownRoute {
    asked: Instant,
    route: Arc<TopicRoute>,
    writable: Arc<[QueueKey]>,
}

impl KnownRoute {
    fn new(route: TopicRoute) -> Self {
        let writable = route.queues(|(_, _, writable)| *writable).collect();
        Self { asked: Instant::now(), route: Arc::new(route), writable }
    }
}

/// A broker asks what became of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) broker: String,
    pub(super) request: Command,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RocketMq {
    /// The cluster of these name servers, each as `host:port`.
    pub fn new(names: Vec<String>) -> Self {
        Self {
            names,
            name_server: Slot::default(),
            next_name: Arc::default(),
            routes: Mutex::default(),
            brokers: Mutex::default(),
            changes: watch::Sender::new(0),
            checks: broadcast::Sender::new(256),
        }
    }

    /// Returns where the queues of a topic are, as a name server has said it some seconds ago; while
    /// none answers, as one has said it last.
    ///
    /// # Errors
    ///
    /// Where no name server answers, and none ever has.
    pub async fn route(&self, topic: &str) -> Result<Arc<TopicRoute>, RocketMqError> {
        Ok(Arc::clone(&self.known_route(topic).await?.route))
    }

    async fn known_route(&self, topic: &str) -> Result<Arc<KnownRoute>, RocketMqError> {
        let known = lock(&self.routes).get(topic).cloned();
        if let Some(known) = &known {
            let fresh = if known.route.brokers.is_empty() { FRESH.1 } else { FRESH.0 };
            if known.asked.elapsed() < fresh {
                return Ok(Arc::clone(known));
            }
        }
        let found = match (self.ask_route(topic).await, known) {
            (Ok(found), _) => {
                for (name, (address, ..)) in &found.brokers {
                    self.know(name, address);
                }
                found
            }
            (Err(error), Some(known)) if !known.route.brokers.is_empty() => {
                debug!(%error, topic, "no name server answers, the last route is kept");
                TopicRoute::clone(&known.route)
            }
            (Err(error), _) => return Err(error),
        };
        let found = Arc::new(KnownRoute::new(found));
        lock(&self.routes).insert(topic.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    async fn ask_route(&self, topic: &str) -> Result<TopicRoute, RocketMqError> {
        Ok(route(&*self.name_server().await?, topic).await?.unwrap_or_default())
    }

    /// Returns the brokers of a topic as they were last said to be, however long ago.
    async fn brokers_of(&self, topic: &str) -> BTreeSet<String> {
        let known = lock(&self.routes).get(topic).map(|known| Arc::clone(&known.route));
        let known = known.filter(|known| !known.brokers.is_empty());
        let route = match known {
            Some(known) => known,
            None => self.route(topic).await.unwrap_or_default(),
        };
        route.brokers.keys().cloned().collect()
    }

    /// Returns the broker of a name that some topic has led to.
    ///
    /// # Errors
    ///
    /// Where it cannot be reached, or is not known.
    pub async fn broker(&self, name: &str) -> Result<Arc<Broker>, RocketMqError> {
        let known = lock(&self.brokers).get(name).cloned();
        let unknown = || RocketMqError::UnknownBroker { name: name.to_owned() };
        let known = known.ok_or_else(unknown)?;
        Ok(known.connect(self.on_request(name)).await?.1)
    }

    /// Returns every broker that is known.
    pub fn brokers(&self) -> BTreeSet<String> {
        lock(&self.brokers).keys().cloned().collect()
    }

    /// Returns what brokers ask about transactions from now on.
    pub(super) fn checks(&self) -> broadcast::Receiver<Check> {
        self.checks.subscribe()
    }

    fn know(&self, name: &str, address: &str) {
        let new = || Arc::new(Known::new(name.to_owned(), address.to_owned()));
        let known = Arc::clone(lock(&self.brokers).entry(name.to_owned()).or_insert_with(new));
        known.moved(address);
    }

    /// What is done about what brokers ask of this client.
    fn on_request(&self, broker: &str) -> OnRequest {
        let (changes, checks) = (self.changes.clone(), self.checks.clone());
        let broker = broker.to_owned();
        Arc::new(move |request: Command| match request.code {
            CONSUMERS_CHANGED => changes.send_modify(|count| *count += 1),
            // Whom nobody answers the broker asks again.
            CHECK_TRANSACTION => drop(checks.send(Check { broker: broker.clone(), request })),
            _ => {}
        })
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

    async fn of(&self, queue: &QueueKey) -> Result<Arc<Broker>, RocketMqError> {
        self.broker(&queue.broker).await
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

impl MessageBroker for RocketMq {
    type Error = RocketMqError;

    async fn queues(&self, topic: &str) -> Result<BTreeSet<QueueKey>, RocketMqError> {
        Ok(self.route(topic).await?.queues(|(_, readable, _)| *readable).collect())
    }

    async fn end(&self, topic: &str, queue: &QueueKey) -> Result<u64, RocketMqError> {
        self.of(queue).await?.max_offset(topic, queue.number).await
    }

    async fn begin(&self, topic: &str, queue: &QueueKey) -> Result<u64, RocketMqError> {
        self.of(queue).await?.min_offset(topic, queue.number).await
    }

    async fn committed(
        &self,
        group: &str,
        topic: &str,
        queue: &QueueKey,
    ) -> Result<Option<u64>, RocketMqError> {
        self.of(queue).await?.committed(group, topic, queue.number).await
    }

    async fn commit(
        &self,
        group: &str,
        topic: &str,
        queue: &QueueKey,
        offset: u64,
    ) -> Result<(), RocketMqError> {
        self.of(queue).await?.commit(group, topic, queue.number, offset).await
    }

    async fn pull(&self, pull: &PullRequest<'_>) -> Result<Pulled, RocketMqError> {
        self.of(pull.queue).await?.pull(pull).await
    }

    async fn attend(&self, attendance: &Attendance<'_>) -> BTreeMap<ConnectionId, Instant> {
        let mut names = BTreeSet::new();
        for subscription in attendance.subscriptions {
            // Whoever has to be heard in time does not wait for a name server.
            names.extend(self.brokers_of(&subscription.topic).await);
        }
        let known = names.iter().filter_map(|name| lock(&self.brokers).get(name).cloned());
        let beats = known.map(|known| async move {
            known.beat(self.on_request(known.name()), attendance).await
        });
        join_all(beats).await.into_iter().flatten().collect()
    }

    async fn leave(&self, client: &str, group: &str) {
        for name in self.brokers() {
            let leave = async { self.broker(&name).await?.leave(client, group).await };
            if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, leave).await {
                debug!(%error, broker = name, client, "still listed, until it is missed");
            }
        }
    }

    async fn listed(
        &self,
        group: &str,
        brokers: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, RocketMqError> {
        let ask = |name| async move { self.broker(name).await?.consumers(group).await };
        let listed = try_join_all(brokers.iter().map(|name| ask(name))).await?;
        Ok(listed.into_iter().flatten().collect())
    }

    async fn give_back(
        &self,
        group: &str,
        message: &ReceivedMessage,
        attempts: u32,
    ) -> Result<(), RocketMqError> {
        self.of(&message.queue).await?.send_back(group, message, 0, attempts).await
    }

    async fn accepts(
        &self,
        client: &str,
        group: &str,
        subscription: &Subscription,
    ) -> Result<(), RocketMqError> {
        use RocketMqError::{NoPropertyFilter, Refused};
        let names = self.brokers_of(&subscription.topic).await;
        let check = |name: &String| {
            let name = name.clone();
            async move { self.broker(&name).await?.check(client, group, subscription).await }
        };
        for checked in join_all(names.iter().map(check)).await {
            match checked {
                Err(refusal @ (Refused { .. } | NoPropertyFilter { .. })) => return Err(refusal),
                Err(error) => debug!(%error, "a filter was not checked"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn retry_topic(&self, group: &str) -> Option<String> {
        Some(format!("%RETRY%{group}"))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl MessageSink for RocketMq {
    type Error = RocketMqError;

    async fn writable(&self, topic: &str) -> Result<Arc<[QueueKey]>, RocketMqError> {
        let known = self.known_route(topic).await?;
        if !known.route.brokers.is_empty() {
            return Ok(Arc::clone(&known.writable));
        }
        // A broker that creates topics has this one, and creates others with four queues.
        let creating = self.route("TBW102").await?;
        Ok(creating.queues(|(_, _, writable)| (*writable).min(CREATED)).collect())
    }

    fn identify(&self, message: &mut Message) {
        message.properties.entry(ID.to_owned()).or_insert_with(new_id);
    }

    async fn send(
        &self,
        group: &str,
        message: &Message,
        queue: &QueueKey,
    ) -> Result<Receipt, RocketMqError> {
        self.of(queue).await?.send(group, &with_id(message), queue.number).await
    }

    async fn send_one_way(
        &self,
        group: &str,
        message: &Message,
        queue: &QueueKey,
    ) -> Result<(), RocketMqError> {
        self.of(queue).await?.send_one_way(group, &with_id(message), queue.number).await
    }

    async fn send_batch(
        &self,
        group: &str,
        messages: &[Message],
        queue: &QueueKey,
    ) -> Result<Receipt, RocketMqError> {
        let messages: Vec<_> =
            messages.iter().map(|message| with_id(message).into_owned()).collect();
        self.of(queue).await?.send_batch(group, &messages, queue.number).await
    }

    fn is_worth_another(error: &RocketMqError) -> bool {
        !matches!(error, RocketMqError::Garbled { .. } | RocketMqError::Frame(_))
    }
}

/// The message with a name of its own, as the Java client gives it, by which it is found again however
/// often it comes round.
fn with_id(message: &Message) -> Cow<'_, Message> {
    let mut message = Cow::Borrowed(message);
    if !message.properties.contains_key(ID) {
        message.to_mut().properties.insert(ID.to_owned(), new_id());
    }
    message
}

fn new_id() -> String {
    format!("{:032X}", fastrand::u128(..))
}
