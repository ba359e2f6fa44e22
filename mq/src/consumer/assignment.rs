use std::collections::BTreeSet;

use crate::{MemberId, QueueKey};

/// Returns the queues that are one member's, when all members of a side share them evenly: each gets
/// as many as any other, or one more, and neighbours go together (as RocketMQ's
/// `AllocateMessageQueueAveragely`).
///
/// Every member works it out for itself; that no two read one queue is for
/// [`Ownership::claim`](crate::Ownership::claim) to see to.
pub(super) fn share_of(
    own: &MemberId,
    members: &BTreeSet<MemberId>,
    queues: &BTreeSet<QueueKey>,
) -> BTreeSet<QueueKey> {
    let Some(place) = members.iter().position(|member| member == own) else {
        return BTreeSet::new();
    };
    let (each, more) = (queues.len() / members.len(), queues.len() % members.len());
    let first = place * each + place.min(more);
    let count = each + usize::from(place < more);
    queues.iter().skip(first).take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(members: u64, queues: u32, expected: &[usize]) {
        let members: BTreeSet<_> = (0..members).map(|it| MemberId::new("a", it)).collect();
        let queue = |number| QueueKey { broker: "b".to_owned(), number };
        let all: BTreeSet<_> = (0..queues).map(queue).collect();
        let shares: Vec<_> = members.iter().map(|own| share_of(own, &members, &all)).collect();
        assert_eq!(shares.iter().map(BTreeSet::len).collect::<Vec<_>>(), expected);
        assert_eq!(shares.iter().flatten().collect::<BTreeSet<_>>(), all.iter().collect());
    }

    #[test]
    fn queues_are_shared_evenly_and_each_is_read() {
        check(1, 4, &[4]);
        check(3, 4, &[2, 1, 1]);
        check(4, 4, &[1, 1, 1, 1]);
        check(3, 2, &[1, 1, 0]);
        let (own, members) = (MemberId::new("x", 1), [MemberId::new("a", 1)].into());
        let queues = [QueueKey { broker: "b".to_owned(), number: 0 }].into();
        assert_eq!(share_of(&own, &members, &queues), BTreeSet::new());
    }
}
