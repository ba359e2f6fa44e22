use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gray_propagation::{Context, GrayStatus, current};
use xxhash_rust::xxh3::xxh3_64;

use crate::{ConsumeMode, Message, Messaging, QueueKey, Receipt};

/// The brokers of one cluster, as producers use them.
pub trait MessageSink: std::fmt::Debug + Send + Sync + 'static {
    /// Why a broker did not take a message.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the queues of a topic that can be written to; none where nobody knows the topic.
    fn writable(
        &self,
        topic: &str,
    ) -> impl Future<Output = Result<Arc<[QueueKey]>, Self::Error>> + Send;

    /// Gives a message what the broker's own clients give each, such as a name.
    fn identify(&self, message: &mut Message);

    /// Sends a message, and waits until it is stored.
    fn send(
        &self,
        group: &str,
        message: &Message,
        queue: &QueueKey,
    ) -> impl Future<Output = Result<Receipt, Self::Error>> + Send;

    /// Sends a message, and waits for nothing.
    fn send_one_way(
        &self,
        group: &str,
        message: &Message,
        queue: &QueueKey,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Sends messages of one topic that are stored one after the other, or none of them.
    fn send_batch(
        &self,
        group: &str,
        messages: &[Message],
        queue: &QueueKey,
    ) -> impl Future<Output = Result<Receipt, Self::Error>> + Send;

    /// Tells whether the message may not have been stored, and another broker should be tried.
    fn is_worth_another(error: &Self::Error) -> bool;
}

/// Produces messages in the lane of the request that is being served; without one, in the lane that
/// this process is in.
///
/// Each message says its lane and its trace in two properties, and nothing else of the request goes
/// along. Clones share everything.
#[derive(Debug)]
pub struct Producer<B>(Arc<Inner<B>>);

#[derive(Debug)]
struct Inner<B> {
    broker: Arc<B>,
    messaging: Messaging,
    group: String,
    next: AtomicUsize,
}

impl<B> Clone for Producer<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError<E> {
    /// Nobody knows the topic, or it cannot be written to.
    #[error("topic `{0}` has no queue that can be written to; create it first")]
    NoQueue(String),
    /// Messages that are to be stored together are of several topics, or none.
    #[error("a batch has messages, all of one topic")]
    NoBatch,
    /// No broker took it.
    #[error("not sent")]
    Broker(#[source] E),
}

/// How many brokers are tried with one message.
const ATTEMPTS: usize = 3;

impl<B: MessageSink> Producer<B> {
    /// A producer of a group.
    pub fn new(broker: Arc<B>, messaging: Messaging, group: &str) -> Self {
        let (group, next) = (group.to_owned(), AtomicUsize::new(fastrand::usize(..1 << 16)));
        Self(Arc::new(Inner { broker, messaging, group, next }))
    }

    /// Sends a message, and waits until it is stored.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. Where a broker did not answer, the message may have been stored all the
    /// same; it is then sent to another one, so that it may be there twice.
    pub async fn send(&self, message: Message) -> Result<Receipt, SendError<B::Error>> {
        let message = self.stamped(message);
        self.to_any(&message.topic, Sending::One(&message)).await
    }

    /// Sends a message, and waits for nothing: it may be lost.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_one_way(&self, message: Message) -> Result<(), SendError<B::Error>> {
        let message = self.stamped(message);
        let queues = self.writable(&message.topic).await?;
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed) % queues.len();
        let queue = queues.get(turn).ok_or_else(|| SendError::NoQueue(message.topic.clone()))?;
        let (broker, group) = (&self.0.broker, &self.0.group);
        broker.send_one_way(group, &message, queue).await.map_err(SendError::Broker)
    }

    /// Sends a message to the queue of its key, in which it comes behind all that were sent there
    /// before; no other queue is tried.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_in_order(
        &self,
        message: Message,
        key: &str,
    ) -> Result<Receipt, SendError<B::Error>> {
        let message = self.stamped(message);
        let queues = self.writable(&message.topic).await?;
        let hash = usize::try_from(xxh3_64(key.as_bytes()) >> 33).unwrap_or_default();
        let queue = queues.get(hash % queues.len().max(1));
        let queue = queue.ok_or_else(|| SendError::NoQueue(message.topic.clone()))?;
        self.0.broker.send(&self.0.group, &message, queue).await.map_err(SendError::Broker)
    }

    /// Sends messages of one topic together: all are stored, or none.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<Receipt, SendError<B::Error>> {
        let messages: Vec<_> = messages.into_iter().map(|message| self.stamped(message)).collect();
        let topic = messages.first().map(|message| message.topic.clone());
        let topic = topic.filter(|topic| messages.iter().all(|it| it.topic == *topic));
        let topic = topic.ok_or(SendError::NoBatch)?;
        self.to_any(&topic, Sending::Batch(&messages)).await
    }

    /// Returns the message with its lane and trace.
    fn stamped(&self, mut message: Message) -> Message {
        self.0.broker.identify(&mut message);
        let messaging = &self.0.messaging;
        // One reading of the documents says both: whether it is tagged, and in which lane this process is.
        let settings = messaging.settings.peek();
        let is_off = settings.of_producer(&messaging.application).mode == ConsumeMode::Off;
        let own = || Arc::new(Context::of(messaging.own.with(&settings)));
        let context = current().unwrap_or_else(own);
        messaging.carrier.inject(&context, &mut message.properties);
        // Where nobody tells lanes apart there is nothing to say of them; a trace goes on all the same.
        if is_off || context.status == GrayStatus::All {
            message.properties.remove(messaging.carrier.name());
        }
        message
    }

    async fn writable(&self, topic: &str) -> Result<Arc<[QueueKey]>, SendError<B::Error>> {
        let queues = self.0.broker.writable(topic).await.map_err(SendError::Broker)?;
        if queues.is_empty() { Err(SendError::NoQueue(topic.to_owned())) } else { Ok(queues) }
    }

    /// Tries queues in turn, and after one that failed those of other brokers.
    async fn to_any(&self, topic: &str, what: Sending<'_>) -> Result<Receipt, SendError<B::Error>> {
        let queues = self.writable(topic).await?;
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        let no_queue = || SendError::NoQueue(topic.to_owned());
        let mut queue = queues.get(turn % queues.len()).ok_or_else(no_queue)?;
        let mut tried = Vec::new();
        loop {
            let (broker, group) = (&self.0.broker, &self.0.group);
            let stored = match what {
                Sending::One(message) => broker.send(group, message, queue).await,
                Sending::Batch(messages) => broker.send_batch(group, messages, queue).await,
            };
            let error = match stored {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            tried.push(queue);
            if tried.len() == ATTEMPTS || !B::is_worth_another(&error) {
                return Err(SendError::Broker(error));
            }
            match another(&queues, &tried, turn) {
                Some(next) => queue = next,
                None => return Err(SendError::Broker(error)),
            }
        }
    }
}

/// Chooses a queue of a broker that has not been tried yet; with one broker only, another queue of it
/// is as good. What was meant for one that is away is spread over all that are there.
fn another<'a>(
    queues: &'a [QueueKey],
    tried: &[&'a QueueKey],
    turn: usize,
) -> Option<&'a QueueKey> {
    let elsewhere = |next: &&QueueKey| tried.iter().all(|it| it.broker != next.broker);
    let others: Vec<_> = queues.iter().filter(elsewhere).collect();
    let untried = |next: &&QueueKey| !tried.contains(next);
    let others = if others.is_empty() { queues.iter().filter(untried).collect() } else { others };
    let rounds = turn / queues.len().max(1);
    others.get(turn.wrapping_add(rounds) % others.len().max(1)).copied()
}

/// What is to be sent to any queue.
#[derive(Clone, Copy, Debug)]
enum Sending<'a> {
    One(&'a Message),
    Batch(&'a [Message]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(brokers: &str) -> Vec<QueueKey> {
        let of = |broker: char| (0..4).map(move |number| (broker.to_string(), number));
        let keys = brokers.chars().flat_map(of);
        keys.map(|(broker, number)| QueueKey { broker, number }).collect()
    }

    /// Which queues take what was meant for broker `a`, and how much of a thousand messages each.
    fn taken(queues: &[QueueKey]) -> Vec<usize> {
        let mut counts = vec![0; queues.len()];
        for turn in 0..1000 {
            let first = &queues[turn % queues.len()];
            if first.broker == "a" {
                let next = another(queues, &[first], turn).unwrap();
                counts[queues.iter().position(|queue| queue == next).unwrap()] += 1;
            }
        }
        counts
    }

    #[test]
    fn what_was_meant_for_one_that_is_away_is_spread() {
        for brokers in ["ab", "abc"] {
            let queues = queues(brokers);
            let counts = taken(&queues);
            assert_eq!(counts[..4], [0; 4], "{brokers}: {counts:?}");
            let (least, most) = (counts[4..].iter().min(), counts[4..].iter().max());
            assert!(most.unwrap() - least.unwrap() <= 12, "{brokers}: {counts:?}");
        }
    }

    #[test]
    fn of_one_broker_another_queue_is_tried_and_none_twice() {
        let queues = queues("a");
        assert!(taken(&queues).iter().all(|count| *count > 200), "{:?}", taken(&queues));
        let all: Vec<_> = queues.iter().collect();
        assert_eq!(another(&queues, &all, 7), None);
        for turn in 0..20 {
            assert_eq!(another(&queues, &all[..3], turn), Some(all[3]));
        }
    }
}
