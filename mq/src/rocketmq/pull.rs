use std::time::Duration;

use super::PulledMessage;

/// Which messages the broker leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// By their tags: `*`, or `A||B`.
    Tags(String),
    /// By their properties, where the broker's `enablePropertyFilter` is on.
    Sql(String),
}

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct Pull<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The number of the queue.
    pub queue: u32,
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
    /// How it went.
    pub status: PullStatus,
    /// From which offset on to pull next.
    pub next: u64,
    /// The lowest offset that is still there.
    pub min: u64,
    /// The offset that the next message will have.
    pub max: u64,
    /// The messages, in the order of their offsets.
    pub messages: Vec<PulledMessage>,
}

/// How a pull went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStatus {
    /// There are messages.
    Found,
    /// Nothing new came.
    NothingNew,
    /// What came is left out by the filter.
    NothingFits,
    /// There is no such offset: it has expired, or is not there yet.
    Moved,
}

/// A consumer as it shows itself to brokers.
#[derive(Clone, Debug)]
pub struct Heartbeat<'a> {
    /// What it is known by.
    pub client: &'a str,
    /// Its group.
    pub group: &'a str,
    /// What it reads. All consumers of a group must read the same.
    pub subscriptions: &'a [Subscription],
}

/// A topic that is read.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// Which messages are left out.
    pub filter: Filter,
    /// When this filter was set, in milliseconds: a broker believes the newest only.
    pub version: u64,
}

impl Filter {
    pub(super) fn expression(&self) -> (&'static str, &str) {
        match self {
            Self::Tags(tags) => ("TAG", tags),
            Self::Sql(sql) => ("SQL92", sql),
        }
    }
}
