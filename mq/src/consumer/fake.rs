//! A broker of one topic that is kept in memory, and consumers of it: for tests of what whole consumers do,
//! in a time that stands still unless nobody has anything to do.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gray_config::live;
use gray_propagation::{GrayStatus, Lane, MessageCarrier};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Consumer, ConsumerProperties, Delivery};
use crate::{
    Attendance, ConnectionId, Ledger, MemoryStore, MessageBroker, MessageSettings, Messaging,
    OwnStatus, Ownership, PullRequest, Pulled, QueueKey, ReceivedMessage, Seat, Seats, Settings,
    StateStore, Subscription,
};

pub(crate) const GROUP: &str = "g";
pub(crate) const TOPIC: &str = "t";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(crate) struct Fake {
    kept: Mutex<Kept>,
    /// Counts what has changed of it.
    changed: watch::Sender<u64>,
    members: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) queues: BTreeMap<QueueKey, Vec<ReceivedMessage>>,
    pub(crate) committed: BTreeMap<(String, QueueKey), u64>,
    pub(crate) clients: BTreeMap<String, BTreeSet<String>>,
    /// No heartbeat is answered.
    pub(crate) is_deaf: bool,
    /// How many of the next offsets it acknowledges and does not keep.
    pub(crate) forgets: u32,
}

pub(crate) fn queue(number: u32) -> QueueKey {
    QueueKey { broker: "a".to_owned(), number }
}

impl Fake {
    /// A topic of so many queues.
    pub(crate) fn new(queues: u32) -> Arc<Self> {
        let kept = Kept {
            queues: (0..queues).map(|number| (queue(number), Vec::new())).collect(),
            ..Kept::default()
        };
        let (changed, members) = (watch::Sender::new(0), watch::Sender::new(0));
        Arc::new(Self { kept: Mutex::new(kept), changed, members })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits for it to be so.
    pub(crate) async fn until(&self, condition: impl Fn(&Kept) -> bool) {
        let mut changed = self.changed.subscribe();
        let reached = async {
            while !condition(&self.kept()) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    /// Puts a message into a queue, which is created if it is not there.
    pub(crate) fn send(&self, number: u32, lane: Option<&str>) {
        let mut properties = BTreeMap::new();
        if let Some(lane) = lane {
            let status = GrayStatus::Gray(lane.parse().unwrap());
            properties.insert("gray".to_owned(), status.to_string());
        }
        self.change(|kept| {
            let messages = kept.queues.entry(queue(number)).or_default();
            messages.push(ReceivedMessage {
                topic: TOPIC.to_owned(),
                queue: queue(number),
                offset: u64::try_from(messages.len()).unwrap(),
                position: 0,
                born_at: 0,
                attempts: 0,
                properties,
                body: Bytes::new(),
                flag: 0,
                unreadable: None,
            });
        });
    }
}

impl MessageBroker for Fake {
    type Error = Infallible;

    async fn queues(&self, topic: &str) -> Result<BTreeSet<QueueKey>, Infallible> {
        Ok(self.kept().queues.keys().filter(|_| topic == TOPIC).cloned().collect())
    }

    async fn holders(&self, topic: &str) -> Result<BTreeSet<String>, Infallible> {
        Ok(self.queues(topic).await?.into_iter().map(|queue| queue.broker).collect())
    }

    async fn end(&self, _: &str, queue: &QueueKey) -> Result<u64, Infallible> {
        Ok(u64::try_from(self.kept().queues[queue].len()).unwrap())
    }

    async fn begin(&self, _: &str, _: &QueueKey) -> Result<u64, Infallible> {
        Ok(0)
    }

    async fn committed(
        &self,
        group: &str,
        _: &str,
        queue: &QueueKey,
    ) -> Result<Option<u64>, Infallible> {
        Ok(self.kept().committed.get(&(group.to_owned(), queue.clone())).copied())
    }

    async fn commit(
        &self,
        group: &str,
        _: &str,
        queue: &QueueKey,
        offset: u64,
    ) -> Result<(), Infallible> {
        self.change(|kept| match kept.forgets.checked_sub(1) {
            Some(forgets) => kept.forgets = forgets,
            None => drop(kept.committed.insert((group.to_owned(), queue.clone()), offset)),
        });
        Ok(())
    }

    async fn pull(&self, pull: &PullRequest<'_>) -> Result<Pulled, Infallible> {
        let from = usize::try_from(pull.offset).unwrap();
        let count = usize::try_from(pull.count).unwrap();
        let mut changed = self.changed.subscribe();
        let come = async {
            while self.kept().queues[pull.queue].len() <= from {
                changed.changed().await.unwrap();
            }
        };
        let _ = tokio::time::timeout(pull.wait, come).await;
        let queues = &self.kept().queues;
        let all = &queues[pull.queue];
        let messages: Vec<_> = all.iter().skip(from).take(count).cloned().collect();
        let next = u64::try_from(from + messages.len()).unwrap();
        Ok(Pulled { next, end: u64::try_from(all.len()).unwrap(), messages })
    }

    async fn attend(&self, attendance: &Attendance<'_>) -> BTreeMap<ConnectionId, Instant> {
        if self.kept().is_deaf {
            return BTreeMap::new();
        }
        self.change(|kept| {
            let clients = kept.clients.entry(attendance.group.to_owned()).or_default();
            clients.insert(attendance.client.to_owned());
        });
        [(ConnectionId { broker: "a".to_owned(), number: 1 }, Instant::now())].into()
    }

    async fn leave(&self, client: &str, group: &str) {
        self.change(|kept| {
            kept.clients.entry(group.to_owned()).or_default().remove(client);
        });
    }

    async fn listed(
        &self,
        group: &str,
        _: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Infallible> {
        Ok(self.kept().clients.get(group).cloned().unwrap_or_default())
    }

    async fn give_back(&self, _: &str, _: &ReceivedMessage, _: u32) -> Result<(), Infallible> {
        Ok(())
    }

    async fn accepts(&self, _: &str, _: &str, _: &Subscription) -> Result<(), Infallible> {
        Ok(())
    }

    fn retry_topic(&self, _: &str) -> Option<String> {
        None
    }

    fn take_seat(&self, group: &str) -> Option<Seat> {
        // Here each consumer is known by its name.
        Seats::default().take(group)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }
}

/// What consumers of a [`Fake`] share.
pub(crate) struct Case {
    pub(crate) fake: Arc<Fake>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) settings: Settings,
    pub(crate) lanes: BTreeSet<Lane>,
}

impl Case {
    pub(crate) fn new(queues: u32) -> Self {
        let (settings, lanes) = (Settings::default(), [Lane::GRAY].into());
        Self { fake: Fake::new(queues), store: Arc::new(MemoryStore::default()), settings, lanes }
    }

    pub(crate) fn properties() -> ConsumerProperties {
        ConsumerProperties {
            group: GROUP.to_owned(),
            topics: vec![TOPIC.to_owned()],
            client: Some("me".to_owned()),
            ..ConsumerProperties::default()
        }
    }

    /// Long enough for everybody to have looked at the table.
    pub(crate) fn pause() -> Duration {
        3 * Self::properties().poll
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::new(Arc::clone(&self.store), GROUP, TOPIC)
    }

    /// Takes a step of the table.
    pub(crate) async fn step(&self, step: impl Fn(&mut Ownership)) {
        let step = |table: &mut Ownership| {
            step(table);
            Ok::<_, Infallible>(())
        };
        self.ledger().change(step).await.unwrap();
    }

    /// Waits for the table to be so.
    pub(crate) async fn until(&self, condition: impl Fn(&Ownership) -> bool) {
        let reached = async {
            while !condition(&self.ledger().read().await.unwrap()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    /// How a process takes part whose status is asked of a function.
    pub(crate) fn messaging(
        &self,
        own: impl Fn() -> GrayStatus + Send + Sync + 'static,
    ) -> Messaging {
        let settings = MessageSettings::of_all(self.settings.clone(), self.lanes.clone());
        Messaging {
            application: "app".to_owned(),
            own: OwnStatus::by(own),
            settings: live(settings).1,
            carrier: MessageCarrier::default(),
            store: Arc::clone(&self.store),
        }
    }

    /// Consumes as base; returns what has been handled as it comes.
    pub(crate) fn consume(&self, properties: ConsumerProperties) -> (Consumer, Handled) {
        let (sender, handled) = mpsc::unbounded_channel();
        let messaging = self.messaging(|| GrayStatus::Prod);
        let consumer =
            Consumer::start(Arc::clone(&self.fake), messaging, properties, move |delivery| {
                let _ = sender.send(delivery);
                async { Ok(()) }
            });
        (consumer.unwrap(), Handled(handled))
    }
}

/// What has been handled.
pub(crate) struct Handled(mpsc::UnboundedReceiver<Delivery>);

impl Handled {
    /// Waits for the next message to be handled.
    pub(crate) async fn next(&mut self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.unwrap().unwrap()
    }
}
