use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::command::Command;
use super::connection::OnRequest;
use super::route::{TopicRoute, route};
use super::{Broker, Connection, RocketMqError};
use crate::{
    Attendance, ConnectionId, Message, MessageBroker, MessageSink, PullRequest, Pulled, QueueKey,
    Receipt, ReceivedMessage,
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a broker that could not be reached is left alone.
const REST: Duration = Duration::from_secs(1);

/// How long it is believed where the queues of a topic are, and that there is no such topic.
const FRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(500));

/// How long a broker may take to hear that a consumer goes.
const FAREWELL: Duration = Duration::from_secs(3);

/// How many queues a topic gets that is created by sending to it.
const CREATED: u32 = 4;

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
    name_server: tokio::sync::Mutex<Option<Arc<Connection>>>,
    routes: Mutex<HashMap<String, (Instant, TopicRoute)>>,
    brokers: Mutex<BTreeMap<String, Arc<Known>>>,
    changes: watch::Sender<u64>,
    checks: broadcast::Sender<Check>,
}

/// A broker asks what became of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) broker: String,
    pub(super) request: Command,
}

/// A broker whose address is known.
#[derive(Debug)]
struct Known {
    name: String,
    address: Mutex<String>,
    connection: tokio::sync::Mutex<Slot>,
}

/// How a broker is reached.
#[derive(Debug, Default)]
struct Slot {
    /// The newest connection.
    broker: Option<Arc<Broker>>,
    /// Which one it is.
    number: u64,
    /// When none could be made.
    failed: Option<Instant>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RocketMq {
    /// The cluster of these name servers, each as `host:port`.
    pub fn new(names: Vec<String>) -> Self {
        Self {
            names,
            name_server: tokio::sync::Mutex::default(),
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
    pub async fn route(&self, topic: &str) -> Result<TopicRoute, RocketMqError> {
        let known = lock(&self.routes).get(topic).cloned();
        if let Some((asked, known)) = &known {
            let fresh = if known.brokers.is_empty() { FRESH.1 } else { FRESH.0 };
            if asked.elapsed() < fresh {
                return Ok(known.clone());
            }
        }
        let found = match (self.ask_route(topic).await, known) {
            (Ok(found), _) => found,
            (Err(error), Some((_, known))) if !known.brokers.is_empty() => {
                tracing::debug!(%error, topic, "no name server answers, the last route is kept");
                known
            }
            (Err(error), _) => return Err(error),
        };
        for (name, (address, ..)) in &found.brokers {
            self.know(name, address);
        }
        lock(&self.routes).insert(topic.to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn ask_route(&self, topic: &str) -> Result<TopicRoute, RocketMqError> {
        Ok(route(&*self.name_server().await?, topic).await?.unwrap_or_default())
    }

    /// Returns the brokers of a topic as they were last said to be, however long ago.
    async fn brokers_of(&self, topic: &str) -> BTreeSet<String> {
        let known = lock(&self.routes).get(topic).map(|(_, known)| known.clone());
        let known = known.filter(|known| !known.brokers.is_empty());
        let route = match known {
            Some(known) => known,
            None => self.route(topic).await.unwrap_or_default(),
        };
        route.brokers.into_keys().collect()
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
        Ok(self.connect(&known).await?.1)
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
        let new = || {
            let (address, connection) = (Mutex::default(), tokio::sync::Mutex::default());
            Arc::new(Known { name: name.to_owned(), address, connection })
        };
        let known = Arc::clone(lock(&self.brokers).entry(name.to_owned()).or_insert_with(new));
        address.clone_into(&mut lock(&known.address));
    }

    /// Returns a connection, and which one it is.
    #[allow(clippy::significant_drop_tightening, reason = "only one connection is made at a time")]
    async fn connect(&self, known: &Known) -> Result<(u64, Arc<Broker>), RocketMqError> {
        let mut slot = known.connection.lock().await;
        let address = lock(&known.address).clone();
        let stands = |it: &&Arc<Broker>| !it.is_broken() && it.address() == address;
        if let Some(broker) = slot.broker.as_ref().filter(stands) {
            return Ok((slot.number, Arc::clone(broker)));
        }
        if slot.failed.is_some_and(|failed| failed.elapsed() < REST) {
            return Err(RocketMqError::Broken { address });
        }
        let (changes, checks) = (self.changes.clone(), self.checks.clone());
        let name = known.name.clone();
        let on_request: OnRequest = Arc::new(move |request: Command| match request.code {
            CONSUMERS_CHANGED => changes.send_modify(|count| *count += 1),
            // Whom nobody answers the broker asks again.
            CHECK_TRANSACTION => drop(checks.send(Check { broker: name.clone(), request })),
            _ => {}
        });
        match Connection::open_with(&address, CONNECT, on_request).await {
            Ok(connection) => {
                let broker = Arc::new(Broker::new(known.name.clone(), connection));
                let number = slot.number + 1;
                *slot = Slot { broker: Some(Arc::clone(&broker)), number, failed: None };
                Ok((number, broker))
            }
            Err(error) => {
                slot.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    #[allow(clippy::significant_drop_tightening, reason = "only one connection is made at a time")]
    async fn name_server(&self) -> Result<Arc<Connection>, RocketMqError> {
        let mut slot = self.name_server.lock().await;
        if let Some(connection) = slot.as_ref().filter(|it| !it.is_broken()) {
            return Ok(Arc::clone(connection));
        }
        let mut failed = RocketMqError::NoNameServer;
        for address in &self.names {
            match Connection::open(address, CONNECT).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    *slot = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn of(&self, queue: &QueueKey) -> Result<Arc<Broker>, RocketMqError> {
        self.broker(&queue.broker).await
    }

    /// Tells one broker that a consumer is there; returns the connection over which it answered.
    async fn attend_at(
        &self,
        name: &str,
        attendance: &Attendance<'_>,
    ) -> Option<(ConnectionId, Instant)> {
        let known = lock(&self.brokers).get(name).cloned()?;
        let beat = async {
            let (number, broker) = self.connect(&known).await?;
            let sent = Instant::now();
            broker.heartbeat(attendance).await?;
            Ok::<_, RocketMqError>((ConnectionId { broker: name.to_owned(), number }, sent))
        };
        match tokio::time::timeout(attendance.limit, beat).await {
            Ok(Ok(answered)) => Some(answered),
            Ok(Err(error)) => {
                tracing::debug!(%error, broker = name, "a heartbeat was not answered");
                None
            }
            Err(_) => {
                tracing::debug!(broker = name, "a heartbeat was not answered in time");
                None
            }
        }
    }
}

impl MessageBroker for RocketMq {
    type Error = RocketMqError;

    async fn queues(&self, topic: &str) -> Result<BTreeSet<QueueKey>, RocketMqError> {
        let route = self.route(topic).await?;
        let queues = route.brokers.into_iter().flat_map(|(broker, (_, readable, _))| {
            (0..readable).map(move |number| QueueKey { broker: broker.clone(), number })
        });
        Ok(queues.collect())
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
        let beats = names.iter().map(|name| self.attend_at(name, attendance));
        join_all(beats).await.into_iter().flatten().collect()
    }

    async fn leave(&self, client: &str, group: &str) {
        for name in self.brokers() {
            let leave = async { self.broker(&name).await?.leave(client, group).await };
            if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, leave).await {
                tracing::debug!(%error, broker = name, client, "still listed, until it is missed");
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

    async fn give_back(&self, group: &str, message: &ReceivedMessage) -> Result<(), RocketMqError> {
        self.of(&message.queue).await?.send_back(group, message, 0).await
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

    async fn writable(&self, topic: &str) -> Result<BTreeSet<QueueKey>, RocketMqError> {
        let mut route = self.route(topic).await?;
        if route.brokers.is_empty() {
            // A broker that creates topics has this one, and creates others with four queues.
            route = self.route("TBW102").await?;
            for (_, _, writable) in route.brokers.values_mut() {
                *writable = (*writable).min(CREATED);
            }
        }
        let queues = route.brokers.into_iter().flat_map(|(broker, (_, _, writable))| {
            (0..writable).map(move |number| QueueKey { broker: broker.clone(), number })
        });
        Ok(queues.collect())
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
        let messages: Vec<_> = messages.iter().map(with_id).collect();
        self.of(queue).await?.send_batch(group, &messages, queue.number).await
    }

    fn is_worth_another(error: &RocketMqError) -> bool {
        !matches!(error, RocketMqError::Garbled { .. } | RocketMqError::Frame(_))
    }
}

/// Gives a message a name of its own, as the Java client does, by which it is found again however
/// often it comes round.
fn with_id(message: &Message) -> Message {
    let mut message = message.clone();
    let id = || format!("{:032X}", fastrand::u128(..));
    message.properties.entry("UNIQ_KEY".to_owned()).or_insert_with(id);
    message
}
