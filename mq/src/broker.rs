//! What isolation needs of brokers whose topics consist of queues with offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::{ConnectionId, QueueKey, ReceivedMessage, Seat};

/// The brokers of one cluster, as consumers use them.
///
/// An implementation asks and reports; it decides nothing about lanes. It connects again by itself,
/// and answers with an error meanwhile.
pub trait MessageBroker: fmt::Debug + Send + Sync + 'static {
    /// Why a broker did not do what it was asked to.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the queues of a topic that can be read; none where nobody knows the topic.
    fn queues(
        &self,
        topic: &str,
    ) -> impl Future<Output = Result<BTreeSet<QueueKey>, Self::Error>> + Send;

    /// Returns the brokers that have queues of a topic, whether or not these can be read now.
    fn holders(
        &self,
        topic: &str,
    ) -> impl Future<Output = Result<BTreeSet<String>, Self::Error>> + Send;

    /// Returns the offset that the next message of a queue will have.
    fn end(
        &self,
        topic: &str,
        queue: &QueueKey,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Returns the lowest offset of a queue that is still there.
    fn begin(
        &self,
        topic: &str,
        queue: &QueueKey,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Returns what a group has committed in a queue; `None` where it never has.
    fn committed(
        &self,
        group: &str,
        topic: &str,
        queue: &QueueKey,
    ) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send;

    /// Commits an offset, and waits until the broker has it.
    fn commit(
        &self,
        group: &str,
        topic: &str,
        queue: &QueueKey,
        offset: u64,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Pulls messages, and waits for some to come if there are none.
    fn pull(
        &self,
        pull: &PullRequest<'_>,
    ) -> impl Future<Output = Result<Pulled, Self::Error>> + Send;

    /// Says to every broker of these topics that a consumer is there. Returns the connections over
    /// which a broker has answered, each with the moment when it was told.
    fn attend(
        &self,
        attendance: &Attendance<'_>,
    ) -> impl Future<Output = BTreeMap<ConnectionId, Instant>> + Send;

    /// Says that a consumer goes.
    fn leave(&self, client: &str, group: &str) -> impl Future<Output = ()> + Send;

    /// Returns the consumers of a group that any of these brokers knows of.
    ///
    /// # Errors
    ///
    /// Where one of them does not answer: it may know of others.
    fn listed(
        &self,
        group: &str,
        brokers: &BTreeSet<String>,
    ) -> impl Future<Output = Result<BTreeSet<String>, Self::Error>> + Send;

    /// Gives a message back to its group, to come again after a delay that grows each time, or to be put
    /// aside where it has come so often already.
    fn give_back(
        &self,
        group: &str,
        message: &ReceivedMessage,
        attempts: u32,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Asks every broker of a topic whether it understands a filter. One that cannot be asked is passed
    /// over.
    ///
    /// # Errors
    ///
    /// Where one of them does not.
    fn accepts(
        &self,
        client: &str,
        group: &str,
        subscription: &Subscription,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The topic that messages come back in which a group has given back, where there is one.
    fn retry_topic(&self, group: &str) -> Option<String>;

    /// Lets a group be consumed over these connections; `None` where another consumer does so already, and
    /// brokers would take both for one.
    fn take_seat(&self, group: &str) -> Option<Seat>;

    /// Changes whenever a broker says that the consumers of some group have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Which messages a broker leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// By their tags: `*`, or `A||B`.
    Tags(String),
    /// By their properties, where the broker can.
    Sql(String),
}

impl Default for Filter {
    fn default() -> Self {
        Self::Tags("*".to_owned())
    }
}

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The queue.
    pub queue: &'a QueueKey,
    /// From which offset on.
    pub offset: u64,
    /// How many messages at most.
    pub count: u32,
    /// For how long the broker may wait for a message to come.
    pub wait: Duration,
    /// Which messages are left out.
    pub filter: &'a Filter,
}

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// From which offset on to pull next; lower than asked for where the queue ends before that.
    pub next: u64,
    /// The offset that the next message will have.
    pub end: u64,
    /// The messages, in the order of their offsets.
    pub messages: Vec<ReceivedMessage>,
}

/// A consumer as it shows itself to brokers.
#[derive(Clone, Debug)]
pub struct Attendance<'a> {
    /// What it is known by.
    pub client: &'a str,
    /// Its group.
    pub group: &'a str,
    /// What it reads. All consumers of a group must read the same.
    pub subscriptions: &'a [Subscription],
    /// How long a broker may take to answer.
    pub limit: Duration,
}

/// A topic that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// Which messages are left out.
    pub filter: Filter,
    /// When this filter was set, in milliseconds: a broker believes the newest only.
    pub version: u64,
}
