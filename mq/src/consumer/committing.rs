//! What is committed, and whether the broker has kept it.
//!
//! Where the first offsets of two queues that a group commits in a topic reach a broker at the same moment, it
//! may acknowledge both and keep one: each finds no table of the topic's offsets, and puts a new one there
//! (`ConsumerOffsetManager.commitOffset` of RocketMQ 4.9 and 5; seen once in 400 pairs). The first offset that
//! a reader commits is therefore asked for a moment later, and committed once more where it is not there: what
//! was handled would be handled again by whoever reads the queue next.

use tracing::warn;

use super::handling::PAUSE;
use super::reader::{Reader, Running};
use crate::MessageBroker;

/// Whether the broker has what a reader has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing has been committed yet.
    Nothing,
    /// It has acknowledged an offset.
    Acknowledged,
    /// It has been asked, and knows it. From then on it keeps what it acknowledges.
    Known,
}

impl<B: MessageBroker> Reader<B> {
    /// Commits what has been handled, and makes sure that what was committed first has been kept.
    pub(super) async fn commit(&self, running: &mut Running) {
        if !self.place.is_held() {
            return;
        }
        let offset = running.progress.committable();
        if offset != running.committed {
            self.put(running, offset).await;
        } else if running.kept == Kept::Acknowledged {
            self.confirm(running).await;
        }
    }

    async fn put(&self, running: &mut Running, offset: u64) {
        let (group, name) = (&self.role.group, &self.topic.name);
        match self.core.broker.commit(group, name, &self.queue, offset).await {
            Ok(()) => {
                running.committed = offset;
                if running.kept == Kept::Nothing {
                    running.kept = Kept::Acknowledged;
                }
            }
            Err(error) => {
                warn!(%group, topic = name, queue = %self.queue, %error, "not committed, trying again");
            }
        }
    }

    async fn confirm(&self, running: &mut Running) {
        let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
        match self.core.broker.committed(group, topic, queue).await {
            Ok(Some(kept)) if kept >= running.committed => running.kept = Kept::Known,
            Ok(kept) => {
                let committed = running.committed;
                warn!(%group, topic, %queue, committed, kept, "the broker has not kept it, committing again");
                self.put(running, committed).await;
            }
            Err(error) => {
                warn!(%group, topic, %queue, %error, "what is committed cannot be asked, trying again");
            }
        }
    }

    /// Commits, and tries again where that fails: nobody else will do it, and what was handled would be
    /// handled again.
    pub(super) async fn commit_at_last(&self, running: &mut Running) {
        loop {
            self.settle(running);
            self.commit(running).await;
            let is_committed = running.committed == running.progress.committable();
            if is_committed && running.kept == Kept::Acknowledged {
                self.confirm(running).await;
            }
            if is_committed && running.kept != Kept::Acknowledged || !self.place.is_held() {
                return;
            }
            tokio::time::sleep(PAUSE.1 / 2).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Case, GROUP, queue};
    use super::super::{ConsumerProperties, From};

    /// What one of two queues had committed first was lost at the broker, which had acknowledged it: the next
    /// consumer handled its messages again.
    #[tokio::test(start_paused = true)]
    async fn what_the_broker_acknowledges_and_does_not_keep_is_committed_again() {
        let case = Case::new(2);
        case.fake.change(|kept| kept.forgets = 2);
        (0..2).for_each(|number| case.fake.send(number, None));
        let (consumer, mut handled) = case.consume(Case::properties());
        for _ in 0..2 {
            handled.next().await;
        }
        let of = |number| ((GROUP.to_owned(), queue(number)), 1);
        case.fake.until(|kept| kept.committed == [of(0), of(1)].into()).await;
        consumer.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn so_it_is_where_the_consumer_ends_at_once() {
        let case = Case::new(1);
        case.fake.change(|kept| kept.forgets = 1);
        case.fake.send(0, None);
        let (consumer, mut handled) = case.consume(Case::properties());
        handled.next().await;
        consumer.stop().await;
        case.fake.change(|kept| assert_eq!(kept.committed[&(GROUP.to_owned(), queue(0))], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn so_it_is_where_a_group_begins_with_the_next_message() {
        let case = Case::new(1);
        case.fake.change(|kept| kept.forgets = 1);
        case.fake.send(0, None);
        let last = ConsumerProperties { from: From::Last, ..Case::properties() };
        let (consumer, _handled) = case.consume(last);
        case.fake.until(|kept| kept.committed == [((GROUP.to_owned(), queue(0)), 1)].into()).await;
        consumer.stop().await;
    }
}
