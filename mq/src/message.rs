use std::collections::BTreeMap;

use bytes::Bytes;

use crate::QueueKey;

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// Its properties: for RocketMQ `TAGS`, `KEYS`, `DELAY`, and what the application adds.
    pub properties: BTreeMap<String, String>,
    /// What it says.
    pub body: Bytes,
}

impl Message {
    /// A message without properties.
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), properties: BTreeMap::new(), body: body.into() }
    }

    /// Adds a property.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
}

/// A message as a broker holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// The topic it was sent to.
    pub topic: String,
    /// The queue it was pulled from; that of a retry is one of the group's retries.
    pub queue: QueueKey,
    /// Its place in the queue.
    pub offset: u64,
    /// Its place at the broker, by which it is given back.
    pub position: i64,
    /// When its producer made it, in milliseconds since 1970.
    pub born_at: i64,
    /// How often it has been given back already.
    pub attempts: u32,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
    /// What it says.
    pub body: Bytes,
    /// What its producer has flagged it with, beside its properties.
    pub flag: i32,
    /// Why its body cannot be read, where it cannot: it is not handled, but given back, and in the end put
    /// aside as what always fails.
    pub unreadable: Option<Unreadable>,
}

/// What is known of a body that cannot be unpacked; the body is as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why it cannot.
    pub why: String,
    /// How the broker says that it is packed, in its own words.
    pub packing: i32,
}

/// Where a message went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What the broker calls it.
    pub message_id: String,
    /// Its queue.
    pub queue: QueueKey,
    /// Its place in the queue.
    pub offset: u64,
    /// Whether the broker has it, but has not flushed or replicated it in time, as it is configured to.
    pub less_safe: bool,
}
