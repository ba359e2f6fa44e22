use std::fmt;
use std::str::FromStr;

use gray_propagation::Lane;
use serde::{Deserialize, Serialize};

/// One queue of a topic: the broker that holds it, and its number there; `broker-a/3` as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueKey {
    /// The name of the broker.
    pub broker: String,
    /// The number of the queue.
    pub number: u32,
}

/// The text is no queue: a broker's name, a slash and a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no queue, which is written as broker/number")]
pub struct InvalidQueue(String);

impl FromStr for QueueKey {
    type Err = InvalidQueue;

    fn from_str(text: &str) -> Result<Self, InvalidQueue> {
        let parsed = text.rsplit_once('/').and_then(|(broker, number)| {
            Some(Self { broker: broker.to_owned(), number: number.parse().ok()? })
        });
        parsed.ok_or_else(|| InvalidQueue(text.to_owned()))
    }
}

impl TryFrom<String> for QueueKey {
    type Error = InvalidQueue;

    fn try_from(text: String) -> Result<Self, InvalidQueue> {
        text.parse()
    }
}

impl From<QueueKey> for String {
    fn from(queue: QueueKey) -> Self {
        queue.to_string()
    }
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.broker, self.number)
    }
}

/// A registration of a consumer: what it is known by to its broker, and a number that no other of its
/// registrations has; `10.0.0.7@4711/3` as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub struct MemberId(pub String);

impl MemberId {
    /// The registration of this number of a consumer.
    pub fn new(client: &str, number: u64) -> Self {
        Self(format!("{client}/{number}"))
    }

    /// Returns what the consumer is known by to its broker.
    pub fn client(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(client, _)| client)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose consumers: those of the base environment, or those of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The base environment's.
    Base,
    /// A lane's.
    Lane(Lane),
}

impl Side {
    /// Returns the lane, if it is a lane's.
    pub const fn lane(self) -> Option<Lane> {
        match self {
            Self::Base => None,
            Self::Lane(lane) => Some(lane),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_reads_back_as_it_was_written() {
        for text in ["broker-a/0", "a/b/17"] {
            assert_eq!(text.parse::<QueueKey>().unwrap().to_string(), text);
        }
        for text in ["", "broker-a", "broker-a/", "broker-a/-1"] {
            assert!(text.parse::<QueueKey>().is_err(), "{text:?}");
        }
    }
}
