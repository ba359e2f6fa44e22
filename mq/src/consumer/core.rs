use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use gray_config::Live;
use gray_propagation::{GrayStatus, MessageCarrier};

use super::counts::Counts;
use crate::{Filter, GroupName, MessageSettings, ReceivedMessage, Settings, Side, StateStore};

/// Why a message could not be handled.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// A message for a handler, and as whose consumer it gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Arc<ReceivedMessage>,
    /// The consumer group that it was pulled by.
    pub group: Arc<str>,
    /// Whose messages this consumer handles.
    pub side: Side,
}

pub(super) type Handle =
    Box<dyn Fn(Delivery) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;

/// What a consumer reads, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerProperties {
    /// The consumer group, as it is in the base environment.
    pub group: String,
    /// What it is known by to brokers; no two consumers, and no two starts of one, may share it. A
    /// name is made up where none is given.
    pub client: Option<String>,
    /// The topics; all consumers of a group must read the same.
    pub topics: Vec<String>,
    /// Which messages the application wants; the same for all consumers of a group.
    pub filter: Filter,
    /// Who leaves out what is not of the lane.
    pub filtering: Filtering,
    /// How many messages are handled at a time.
    pub concurrency: usize,
    /// Whether the messages of a queue are handled one after the other.
    pub order: Order,
    /// Where a group begins that has never consumed.
    pub from: From,
    /// How often a message that cannot be handled comes back before it is put aside, for RocketMQ in
    /// `%DLQ%<group>`. Where a queue's order is kept it is handled so often at once, and then comes back
    /// as often.
    pub attempts: u32,
    /// How often the table is looked at while nothing changes.
    pub poll: Duration,
    /// After what time a consumer is gone that its brokers do not list (L).
    pub lease: Duration,
    /// How long a handler may take with a message. It is dropped then, and the message comes back as
    /// if it had failed: one handler that hangs would keep its queue from being committed for ever.
    /// What a handler has spawned goes on.
    pub limit: Duration,
    /// How long messages that are being handled may take at the end.
    pub drain: Duration,
}

/// Who leaves out what is not of a lane, for its consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// The broker, which has to have `enablePropertyFilter` switched on.
    #[default]
    Broker,
    /// The consumer, which then reads everything.
    Consumer,
}

/// In which order messages are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// In any.
    #[default]
    Concurrent,
    /// Those of a queue in the order in which they were sent, one at a time.
    Queue,
}

/// Where a group begins that has never consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With the oldest message that is still there.
    #[default]
    First,
    /// With the next one. A group that has committed anything of a topic has consumed it: a queue in which
    /// it has not, since the topic has got it later, begins with the oldest message. Brokers before 5.0 say
    /// of a queue that still has its first message that every group stands there, so that the group begins
    /// with the oldest of all queues of the topic.
    Last,
}

impl Default for ConsumerProperties {
    fn default() -> Self {
        Self {
            group: String::new(),
            client: None,
            topics: Vec::new(),
            filter: Filter::default(),
            filtering: Filtering::default(),
            concurrency: 20,
            order: Order::default(),
            from: From::default(),
            attempts: 16,
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(10),
            limit: Duration::from_mins(15),
            drain: Duration::from_secs(30),
        }
    }
}

/// What everything that belongs to a consumer shares.
pub(super) struct Core<B> {
    pub(super) broker: Arc<B>,
    pub(super) store: Arc<dyn StateStore>,
    pub(super) settings: Live<MessageSettings>,
    pub(super) application: Arc<str>,
    pub(super) group: GroupName,
    pub(super) properties: ConsumerProperties,
    pub(super) carrier: MessageCarrier,
    pub(super) handle: Handle,
    pub(super) counts: Counts,
    /// One per message that is being handled.
    pub(super) permits: Arc<tokio::sync::Semaphore>,
    /// When this process began to read, for the brokers to tell its filters from older ones.
    pub(super) version: u64,
}

impl<B> fmt::Debug for Core<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("group", &self.group).finish_non_exhaustive()
    }
}

/// One consumer as brokers see it: a group, and what it is known by in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) side: Side,
    pub(super) group: Arc<str>,
    pub(super) client: Arc<str>,
    pub(super) topics: Vec<String>,
}

/// Ends what a process of base is known by that reads what a lane has left behind.
pub(super) const DRAINS: &str = "~drain";

impl Role {
    /// Tells whether it only reads what a lane has left behind.
    pub(super) fn drains(&self) -> bool {
        self.client.ends_with(DRAINS)
    }
}

impl<B> Core<B> {
    /// How the messages of a topic are told apart now.
    pub(super) fn settings_of(&self, topic: &str) -> Settings {
        self.settings.peek().of(&self.application, self.group.as_str(), topic)
    }

    /// What the broker may leave out for a side: base gets everything while lanes can be switched, and
    /// a lane's filter never changes. What the application wants is kept as it is.
    pub(super) fn filter(&self, side: Side) -> Filter {
        let wanted = &self.properties.filter;
        let Side::Lane(lane) = side else { return wanted.clone() };
        if self.properties.filtering == Filtering::Consumer {
            return wanted.clone();
        }
        let of_lane = format!("{} in ('{}')", self.carrier.name(), GrayStatus::Gray(lane));
        let quoted = |tag: &str| format!("'{}'", tag.trim().replace('\'', "''"));
        Filter::Sql(match wanted {
            Filter::Sql(sql) => format!("({sql}) and ({of_lane})"),
            Filter::Tags(tags) if tags.trim().is_empty() || tags.trim() == "*" => of_lane,
            Filter::Tags(tags) => {
                let tags: Vec<_> = tags.split("||").map(quoted).collect();
                format!("(TAGS in ({})) and ({of_lane})", tags.join(", "))
            }
        })
    }

    /// Tells whether the application wants a message, as far as its tag says: brokers compare no more
    /// than a hash of it.
    pub(super) fn wants(&self, message: &ReceivedMessage) -> bool {
        let Filter::Tags(tags) = &self.properties.filter else { return true };
        if tags.trim().is_empty() || tags.trim() == "*" {
            return true;
        }
        let tag = message.properties.get("TAGS").map_or("", String::as_str);
        tags.split("||").any(|wanted| wanted.trim() == tag)
    }
}
