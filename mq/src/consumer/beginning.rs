//! Where a queue begins to be read.

use std::collections::BTreeSet;

use super::committing::Kept;
use super::core::{Core, From, Role};
use super::reader::{Reader, Topic};
use crate::{MessageBroker, QueueKey, Side};

impl<B: MessageBroker> Reader<B> {
    /// Returns the offset to begin with, and whether it has been committed here.
    pub(super) async fn start(&self) -> (u64, Kept) {
        let mut failures = 0;
        loop {
            match self.position().await {
                Ok(position) => return position,
                Err(error) => {
                    failures += 1;
                    tokio::time::sleep(self.failed("begun", failures, &error)).await;
                }
            }
        }
    }

    async fn position(&self) -> Result<(u64, Kept), B::Error> {
        let (broker, queue, name) = (&self.core.broker, &self.queue, &self.topic.name);
        let committed = broker.committed(&self.role.group, name, queue).await?;
        // What lies below the lane's first fence is not the lane's. Where there is none yet, it will be
        // where the queue ended before this consumer registered, or behind that: not where it ends now.
        let lane = match self.topic.side {
            Side::Lane(lane) => self.place.first_of(queue, lane).or(self.end),
            Side::Base => None,
        };
        let found = |offset| Ok((offset, Kept::Nothing));
        match (committed, lane) {
            (committed, Some(first)) => found(committed.unwrap_or_default().max(first)),
            (Some(committed), None) => found(committed),
            (None, None) if self.from == From::Last => {
                let end = broker.end(name, queue).await?;
                // Otherwise whoever comes next, before anything is handled, would begin at a later end.
                broker.commit(&self.role.group, name, queue, end).await?;
                Ok((end, Kept::Acknowledged))
            }
            (None, None) => found(broker.begin(name, queue).await?),
        }
    }
}

/// Returns the queues that begin with their next message: those that a topic has when a group that has never
/// consumed it comes. A queue that the topic gets later is read from its first message on, and so is every
/// queue of a group that has committed anything: what was sent there before it was noticed would be lost.
pub(super) async fn beginning_last<B: MessageBroker>(
    core: &Core<B>,
    role: &Role,
    topic: &Topic,
    queues: &BTreeSet<QueueKey>,
) -> Result<BTreeSet<QueueKey>, B::Error> {
    let is_base = topic.side == Side::Base && !topic.is_retry;
    if !is_base || core.properties.from == From::First {
        return Ok(BTreeSet::new());
    }
    let mut failed = None;
    for queue in queues {
        match core.broker.committed(&role.group, &topic.name, queue).await {
            Ok(Some(_)) => return Ok(BTreeSet::new()),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or_else(|| Ok(queues.clone()), Err)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Case, GROUP, queue};
    use super::super::{ConsumerProperties, From};

    fn last() -> ConsumerProperties {
        ConsumerProperties { from: From::Last, ..Case::properties() }
    }

    /// Of each queue that a topic had got later a group committed the end, as if it had never consumed
    /// anything: what had been sent there by then was lost.
    #[tokio::test(start_paused = true)]
    async fn queues_that_a_topic_gets_later_are_read_from_their_beginning() {
        let case = Case::new(4);
        (0..4).for_each(|number| case.fake.send(number, None));
        let (consumer, mut handled) = case.consume(last());
        case.fake.until(|kept| kept.committed.len() == 4).await;
        (4..8).for_each(|number| case.fake.send(number, None));
        let mut new = Vec::new();
        for _ in 4..8 {
            new.push(handled.next().await.message.queue.number);
        }
        new.sort_unstable();
        // What was there before the group came is not handled.
        assert_eq!(new, [4, 5, 6, 7]);
        consumer.stop().await;
        // So it is where nobody consumes while the topic grows.
        case.fake.send(8, None);
        let (consumer, mut handled) = case.consume(last());
        assert_eq!(handled.next().await.message.queue, queue(8));
        consumer.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_never_consumed_begins_with_the_next_message() {
        let case = Case::new(2);
        (0..2).for_each(|number| case.fake.send(number, None));
        let (consumer, mut handled) = case.consume(last());
        let at_end = |number| ((GROUP.to_owned(), queue(number)), 1);
        case.fake.until(|kept| kept.committed == [at_end(0), at_end(1)].into()).await;
        case.fake.send(1, None);
        assert_eq!(handled.next().await.message.offset, 1);
        consumer.stop().await;
    }
}
