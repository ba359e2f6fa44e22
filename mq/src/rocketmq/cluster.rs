use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all, try_join_all};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tracing::debug;

use super::command::Command;
use super::connection::OnRequest;
use super::route::TopicRoute;
use super::routes::{KnownRoute, Refreshes, Routes};
use super::{Broker, RocketMqError};
use crate::{
    Attendance, ConnectionId, Message, MessageBroker, MessageSink, PullRequest, Pulled, QueueKey,
    Receipt, ReceivedMessage, Seat, Seats, Subscription,
};

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
/// each server. Over them each group has one consumer at most: more in one process need a `RocketMq` each.
#[derive(Debug)]
pub struct RocketMq {
    routes: Arc<Routes>,
    refreshes: Mutex<Refreshes>,
    changes: watch::Sender<u64>,
    seats: Seats,
    checks: broadcast::Sender<Check>,
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
            routes: Arc::new(Routes::new(names)),
            refreshes: Mutex::default(),
            changes: watch::Sender::new(0),
            seats: Seats::default(),
            checks: broadcast::Sender::new(256),
        }
    }

    /// Returns where the queues of a topic are, as a name server has said it last. Where that is some seconds
    /// ago one is asked again, which nobody waits for.
    ///
    /// # Errors
    ///
    /// Where no name server answers, and none has ever said where they are.
    pub async fn route(&self, topic: &str) -> Result<Arc<TopicRoute>, RocketMqError> {
        Ok(Arc::clone(&self.known_route(topic).await?.route))
    }

    async fn known_route(&self, topic: &str) -> Result<Arc<KnownRoute>, RocketMqError> {
        match self.routes.known(topic) {
            Some(known) if known.is_fresh() => Ok(known),
            Some(known) if known.leads_anywhere() => {
                lock(&self.refreshes).start(&self.routes, topic);
                Ok(known)
            }
            _ => self.routes.ask(topic).await,
        }
    }

    /// Returns the brokers of a topic as they were last said to be, however long ago.
    async fn brokers_of(&self, topic: &str) -> BTreeSet<String> {
        let route = match self.routes.known(topic).filter(|known| known.leads_anywhere()) {
            Some(known) => Arc::clone(&known.route),
            None => self.route(topic).await.unwrap_or_default(),
        };
        route.brokers.keys().cloned().collect()
    }

    /// Tells some brokers that a consumer is there.
    async fn beat(
        &self,
        names: BTreeSet<String>,
        attendance: &Attendance<'_>,
    ) -> BTreeMap<ConnectionId, Instant> {
        let known = names.iter().filter_map(|name| self.routes.broker(name));
        let beats = known.map(|known| async move {
            known.beat(self.on_request(known.name()), attendance).await
        });
        join_all(beats).await.into_iter().flatten().collect()
    }

    /// Returns the broker of a name that some topic has led to.
    ///
    /// # Errors
    ///
    /// Where it cannot be reached, or is not known.
    pub async fn broker(&self, name: &str) -> Result<Arc<Broker>, RocketMqError> {
        let unknown = || RocketMqError::UnknownBroker { name: name.to_owned() };
        let known = self.routes.broker(name).ok_or_else(unknown)?;
        Ok(known.connect(self.on_request(name)).await?.1)
    }

    /// Returns every broker that is known.
    pub fn brokers(&self) -> BTreeSet<String> {
        self.routes.brokers()
    }

    /// Returns what brokers ask about transactions from now on.
    pub(super) fn checks(&self) -> broadcast::Receiver<Check> {
        self.checks.subscribe()
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

    async fn of(&self, queue: &QueueKey) -> Result<Arc<Broker>, RocketMqError> {
        self.broker(&queue.broker).await
    }
}

impl MessageBroker for RocketMq {
    type Error = RocketMqError;

    async fn queues(&self, topic: &str) -> Result<BTreeSet<QueueKey>, RocketMqError> {
        Ok(self.route(topic).await?.queues(|(_, readable, _)| *readable).collect())
    }

    async fn holders(&self, topic: &str) -> Result<BTreeSet<String>, RocketMqError> {
        Ok(self.known_route(topic).await?.brokers())
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
        let topics = || attendance.subscriptions.iter().map(|it| it.topic.as_str());
        let known = |topic| self.routes.known(topic).filter(|known| known.leads_anywhere());
        let names: BTreeSet<String> =
            topics().filter_map(known).flat_map(|known| known.brokers()).collect();
        // Whoever has to be heard in time does not wait for a name server, and for no topic that has no
        // brokers yet.
        let half = attendance.limit / 2;
        let late = async {
            let unknown = topics().filter(|topic| known(topic).is_none());
            let asked = unknown.map(|topic| tokio::time::timeout(half, self.brokers_of(topic)));
            let asked = join_all(asked).await.into_iter().filter_map(Result::ok).flatten();
            let new = asked.filter(|name| !names.contains(name)).collect();
            self.beat(new, &Attendance { limit: half, ..*attendance }).await
        };
        let (mut answered, late) = join(self.beat(names.clone(), attendance), late).await;
        answered.extend(late);
        answered
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

    fn take_seat(&self, group: &str) -> Option<Seat> {
        self.seats.take(group)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl MessageSink for RocketMq {
    type Error = RocketMqError;

    async fn writable(&self, topic: &str) -> Result<Arc<[QueueKey]>, RocketMqError> {
        let known = self.known_route(topic).await?;
        if known.leads_anywhere() {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::BytesMut;
    use futures_util::future::FutureExt;
    use gray_propagation::GrayStatus;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::consumer::fake::Case;
    use crate::{Consumer, ConsumerError, ConsumerProperties};

    /// A name server and a broker in one. It knows one topic, and of others says nothing at all; nor does it
    /// say where that one is once it has fallen silent.
    struct Server {
        address: String,
        silent_after: usize,
        /// How often it was asked where the topic is.
        asked: AtomicUsize,
        beats: AtomicUsize,
    }

    const ROUTE: i32 = 105;
    const TOPIC: &str = "orders";
    const SOON: Duration = Duration::from_secs(20);

    impl Server {
        async fn start(silent_after: usize) -> (Arc<Self>, JoinSet<()>) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (asked, beats) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let server = Arc::new(Self { address, silent_after, asked, beats });
            let mut tasks = JoinSet::new();
            tasks.spawn(Arc::clone(&server).listen(listener));
            (server, tasks)
        }

        async fn listen(self: Arc<Self>, listener: TcpListener) {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(Arc::clone(&self).serve(stream));
            }
        }

        async fn serve(self: Arc<Self>, mut stream: TcpStream) {
            while let Ok(length) = stream.read_u32().await {
                let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
                stream.read_exact(&mut frame).await.unwrap();
                let request = Command::decode(&frame.freeze()).unwrap();
                if let Some(body) = self.answer(&request) {
                    let answer = Command { flag: 1, opaque: request.opaque, ..Command::default() };
                    stream.write_all(&answer.with_body(body).encode().unwrap()).await.unwrap();
                }
            }
        }

        fn answer(&self, request: &Command) -> Option<String> {
            if request.code != ROUTE {
                self.beats.fetch_add(1, Ordering::Relaxed);
                return Some(String::new());
            }
            let known = request.fields["topic"] == TOPIC
                && self.asked.fetch_add(1, Ordering::Relaxed) < self.silent_after;
            known.then(|| {
                let address = &self.address;
                format!(
                    r#"{{"brokerDatas": [{{"brokerName": "a", "brokerAddrs": {{"0": "{address}"}}}}],
                        "queueDatas": [{{"brokerName": "a", "readQueueNums": 2, "writeQueueNums": 2}}]}}"#
                )
            })
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        let reached = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, reached).await.unwrap();
    }

    /// A send that found its route some seconds old waited for a name server, for as long as that was silent.
    #[tokio::test]
    async fn a_route_that_is_known_is_used_while_it_is_asked_for_again() {
        let (server, _serving) = Server::start(1).await;
        let cluster = RocketMq::new(vec![server.address.clone()]);
        assert_eq!(timeout(SOON, cluster.writable(TOPIC)).await.unwrap().unwrap().len(), 2);
        cluster.routes.age(TOPIC);
        for _ in 0..10 {
            let at_once = cluster.writable(TOPIC).now_or_never();
            assert_eq!(at_once.unwrap().unwrap().len(), 2);
        }
        until(|| server.asked.load(Ordering::Relaxed) == 2).await;
        // One asks at a time.
        assert_eq!(lock(&cluster.refreshes).running(), 1);
    }

    #[tokio::test]
    async fn a_route_is_asked_for_again_and_what_is_said_counts() {
        let (server, _serving) = Server::start(2).await;
        let cluster = RocketMq::new(vec![server.address.clone()]);
        cluster.writable(TOPIC).await.unwrap();
        cluster.routes.age(TOPIC);
        cluster.writable(TOPIC).await.unwrap();
        until(|| cluster.routes.known(TOPIC).is_some_and(|known| known.is_fresh())).await;
        assert_eq!(server.asked.load(Ordering::Relaxed), 2);
    }

    /// Brokers list one consumer of a group for each connection: the other was taken for gone.
    #[tokio::test]
    async fn a_group_has_one_consumer_over_the_same_connections() {
        let cluster = Arc::new(RocketMq::new(vec!["127.0.0.1:1".to_owned()]));
        let case = Case::new(1);
        let start = |group: &str| {
            let messaging = case.messaging(|| GrayStatus::Prod);
            let properties = ConsumerProperties { group: group.to_owned(), ..Case::properties() };
            Consumer::start(Arc::clone(&cluster), messaging, properties, |_| async { Ok(()) })
        };
        let first = start("a").unwrap();
        let error = start("a").unwrap_err();
        assert_eq!(error, ConsumerError::Taken("a".to_owned()));
        drop(start("b").unwrap());
        drop(first);
        // What it did ends with it, a little later.
        until(|| cluster.seats.take("a").is_some()).await;
        start("a").unwrap().stop().await;
        start("a").unwrap().stop().await;
    }

    /// The heartbeats of all topics waited for the one of which no name server said where it is.
    #[tokio::test]
    async fn a_topic_without_a_route_does_not_keep_brokers_from_hearing_of_others() {
        let (server, _serving) = Server::start(1).await;
        let cluster = RocketMq::new(vec![server.address.clone()]);
        cluster.route(TOPIC).await.unwrap();
        let subscription = |topic: &str| Subscription {
            topic: topic.to_owned(),
            filter: crate::Filter::default(),
            version: 1,
        };
        let subscriptions = ["nowhere", TOPIC, "nowhere either"].map(subscription);
        let limit = Duration::from_millis(400);
        let attendance =
            Attendance { client: "c", group: "g", subscriptions: &subscriptions, limit };
        // Sooner than it is given up to ask for one route.
        let heard = timeout(Duration::from_secs(4), cluster.attend(&attendance)).await.unwrap();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(server.beats.load(Ordering::Relaxed), 1);
    }
}
