use std::collections::BTreeSet;

use gray_propagation::Lane;
use tracing::debug;

use super::core::{Core, DRAINS};
use crate::{MessageBroker, Ownership, Side};

/// Returns the lanes that own messages and have no consumers to handle them, and are to get none: what
/// they left behind, base has to read in their stead.
pub(super) fn left_behind(table: &Ownership) -> BTreeSet<Lane> {
    let has_consumers = |lane: Lane| {
        let mut members = table.members().iter();
        members
            .any(|(id, member)| member.side == Side::Lane(lane) && !id.client().ends_with(DRAINS))
    };
    let lanes = table.fences().lanes().into_iter();
    lanes.filter(|lane| !table.is_open(*lane) && !has_consumers(*lane)).collect()
}

/// Tells whether all that a closed lane owns of a topic has been committed. What was given back comes
/// again in another topic, and may take hours.
pub(super) async fn is_drained<B: MessageBroker>(
    core: &Core<B>,
    table: &Ownership,
    topic: &str,
    lane: Lane,
) -> bool {
    let Ok(group) = core.group.of(Side::Lane(lane)) else { return false };
    for queue in table.fences().queues() {
        let Some(last) = table.fences().of(queue, lane).last() else { continue };
        match core.broker.committed(&group, topic, queue).await {
            Ok(committed) if committed.unwrap_or_default() >= last.from => {}
            Ok(_) => return false,
            Err(error) => {
                debug!(%error, %queue, "what has been committed is not known");
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemberId, Owner, QueueKey};

    #[test]
    fn a_lane_that_is_closed_and_empty_has_left_something_behind() {
        let mut table = Ownership::default();
        table.add_queue(QueueKey { broker: "a".to_owned(), number: 0 });
        let switch = |table: &mut Ownership, owner| {
            table.request(Lane::GRAY, owner);
            let ends = table.fences().queues().map(|queue| (queue.clone(), 5)).collect();
            table.fence(&ends).unwrap();
        };
        assert_eq!(left_behind(&table), [].into());
        switch(&mut table, Owner::Lane);
        assert_eq!(left_behind(&table), [].into());
        switch(&mut table, Owner::Base);
        assert_eq!(left_behind(&table), [Lane::GRAY].into());
        let side = Side::Lane(Lane::GRAY);
        table.register(MemberId::new("x@gray~drain", 1), side);
        assert_eq!(left_behind(&table), [Lane::GRAY].into());
        table.register(MemberId::new("x@gray", 1), side);
        assert_eq!(left_behind(&table), [].into());
    }
}
