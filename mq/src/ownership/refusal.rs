//! Why a step of the table cannot be taken.

use std::collections::BTreeSet;

use super::{MemberId, QueueKey};

/// The member is not, or no longer, among those that are asked: it has to register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not registered")]
pub struct UnknownMember(pub MemberId);

/// The table has no queue of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table has no queue of broker `{broker}`; there is: {}", names(.known))]
pub struct UnknownBroker {
    /// The name.
    pub broker: String,
    /// Those that it has queues of.
    pub known: BTreeSet<String>,
}

/// Why fences cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// There is nothing to be changed, or no longer.
    #[error("nothing is to be changed")]
    NoIntent,
    /// Members are still handling what they pull.
    #[error("not acknowledged by {}", list(.0))]
    NotAcknowledged(Vec<MemberId>),
    /// The end of a queue is not known.
    #[error("the end of queue {0} is not known")]
    NoEnd(QueueKey),
    /// A queue ends before a fence that was written earlier: its broker has lost messages.
    #[error("queue {queue} ends at {end}, before its last fence at {fence}")]
    WentBack {
        /// The queue.
        queue: QueueKey,
        /// Where it ends now.
        end: u64,
        /// Where its last fence is.
        fence: u64,
    },
}

fn names(brokers: &BTreeSet<String>) -> String {
    brokers.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn list(members: &[MemberId]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
