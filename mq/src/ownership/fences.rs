use std::collections::{BTreeMap, BTreeSet};

use gray_propagation::Lane;
use serde::{Deserialize, Serialize};

use super::{QueueKey, Side};

/// From an offset on, a lane's messages belong to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Fence {
    /// The first offset.
    pub from: u64,
    /// Whom they belong to.
    pub owner: Owner,
}

/// Whom the messages of a lane belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// The consumers of the base environment.
    Base,
    /// The lane's own consumers.
    Lane,
}

/// The queues of a topic that may be read, each with the fences of each lane in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Fences(pub(super) BTreeMap<QueueKey, BTreeMap<Lane, Vec<Fence>>>);

impl Fences {
    /// Returns who owns a message; `None` where its queue is not to be read yet.
    ///
    /// What is not tagged belongs to base, and so does a lane's message below the first fence.
    pub fn owner(&self, queue: &QueueKey, offset: u64, lane: Option<Lane>) -> Option<Side> {
        let lanes = self.0.get(queue)?;
        let Some(lane) = lane else { return Some(Side::Base) };
        let fences = lanes.get(&lane).map_or(&[][..], Vec::as_slice);
        let below = fences.partition_point(|fence| fence.from <= offset);
        let last = below.checked_sub(1).and_then(|last| fences.get(last));
        Some(match last.map(|fence| fence.owner) {
            Some(Owner::Lane) => Side::Lane(lane),
            Some(Owner::Base) | None => Side::Base,
        })
    }

    /// Returns the fences of a lane in a queue.
    pub fn of(&self, queue: &QueueKey, lane: Lane) -> &[Fence] {
        self.0.get(queue).and_then(|lanes| lanes.get(&lane)).map_or(&[], Vec::as_slice)
    }

    /// Returns the lanes that own messages of some queue, or have owned some.
    pub fn lanes(&self) -> BTreeSet<Lane> {
        let all = self.0.values().flatten();
        let owns = all.filter(|(_, fences)| fences.iter().any(|it| it.owner == Owner::Lane));
        owns.map(|(lane, _)| *lane).collect()
    }

    /// Returns the queues that may be read.
    pub fn queues(&self) -> impl Iterator<Item = &QueueKey> {
        self.0.keys()
    }

    pub(super) fn remove_broker(&mut self, broker: &str) {
        self.0.retain(|queue, _| queue.broker != broker);
    }

    /// Forgets fences that no message can need any more: those of which the next lies at or below an
    /// offset that both sides have durably committed. The last one by which the lane owns anything
    /// stays, since it may have retries that are still to come.
    pub(super) fn forget(&mut self, queue: &QueueKey, lane: Lane, committed: u64) {
        let Some(fences) = self.0.get_mut(queue).and_then(|lanes| lanes.get_mut(&lane)) else {
            return;
        };
        let needed = fences.iter().rposition(|fence| fence.from <= committed).unwrap_or_default();
        let last = fences.iter().rposition(|fence| fence.owner == Owner::Lane);
        fences.drain(..needed.min(last.unwrap_or(needed)));
    }
}
