use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::cluster::Check;
use super::message::decode;
use super::{Broker, RocketMq, RocketMqError};
use crate::{Message, Producer, Receipt, ReceivedMessage, SendError};

/// How often brokers are told that a producer is there, whom they may ask.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What became of the transaction that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// It was committed: the message is to be consumed.
    Committed,
    /// It was rolled back: nobody is to see the message.
    RolledBack,
    /// It is not known yet: the broker asks again.
    Unknown,
}

/// How long an application may take to say what became of a transaction; the others wait meanwhile.
const ANSWER: Duration = Duration::from_secs(10);

/// Answers what became of the transaction of a message.
type Answer = Arc<dyn Fn(ReceivedMessage) -> BoxFuture<'static, Transaction> + Send + Sync>;

/// Produces messages that are consumed only if a transaction of the application is committed.
///
/// A message is stored before the transaction and shown after it. Where its producer does not say what
/// became of the transaction, since it died for example, the broker asks any producer of the group.
/// Lane and trace are those of the request that prepared the message.
#[derive(Debug)]
pub struct TransactionProducer {
    producer: Producer<RocketMq>,
    cluster: Arc<RocketMq>,
    group: String,
    _tasks: JoinSet<()>,
}

impl TransactionProducer {
    /// Makes a producer of a group, which the brokers of these topics may ask by `answer`.
    pub fn start<F>(
        producer: Producer<RocketMq>,
        cluster: Arc<RocketMq>,
        group: &str,
        topics: Vec<String>,
        answer: impl Fn(ReceivedMessage) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Transaction> + Send + 'static,
    {
        let answer: Answer = Arc::new(move |message| answer(message).boxed());
        let mut tasks = JoinSet::new();
        tasks.spawn(be_there(Arc::clone(&cluster), group.to_owned(), topics));
        tasks.spawn(answer_checks(Arc::clone(&cluster), group.to_owned(), answer));
        Self { producer, cluster, group: group.to_owned(), _tasks: tasks }
    }

    /// Stores a message, runs a transaction, and shows the message if that was committed.
    ///
    /// # Errors
    ///
    /// Where the message could not be stored: the transaction is then not run, nor where the broker says that
    /// it has stored it less safely than it is configured to, which rolls it back. What is not said afterwards
    /// the broker asks for.
    pub async fn send(
        &self,
        message: Message,
        transaction: impl Future<Output = Transaction>,
    ) -> Result<(Receipt, Transaction), SendError<RocketMqError>> {
        let message = message.with("TRAN_MSG", "true").with("PGROUP", self.group.clone());
        let receipt = self.producer.send(message).await?;
        // As the Java client does it: what may be lost is not what a transaction can be tied to.
        let outcome = if receipt.less_safe { Transaction::RolledBack } else { transaction.await };
        let prepared = Prepared::of(&receipt);
        let end = async {
            let broker = self.cluster.broker(&receipt.queue.broker).await?;
            end(&broker, &self.group, &prepared, outcome, false).await
        };
        if let Err(error) = end.await {
            warn!(%error, "what became of a transaction was not said, the broker will ask");
        }
        Ok((receipt, outcome))
    }
}

/// A message that is stored and not shown yet.
#[derive(Debug)]
struct Prepared {
    /// Its place in the queue of such messages.
    offset: u64,
    /// Its place at the broker.
    position: u64,
    message_id: String,
    transaction_id: String,
}

impl Prepared {
    fn of(receipt: &Receipt) -> Self {
        // A broker names a message by its address and the message's place, in hexadecimal.
        let place = receipt.message_id.len().checked_sub(16);
        let place = place.and_then(|at| receipt.message_id.get(at..)).unwrap_or_default();
        Self {
            offset: receipt.offset,
            position: u64::from_str_radix(place, 16).unwrap_or_default(),
            message_id: receipt.message_id.clone(),
            transaction_id: receipt.message_id.clone(),
        }
    }
}

async fn end(
    broker: &Broker,
    group: &str,
    prepared: &Prepared,
    outcome: Transaction,
    is_asked: bool,
) -> Result<(), RocketMqError> {
    let outcome = match outcome {
        Transaction::Committed => 8,
        Transaction::RolledBack => 12,
        Transaction::Unknown => 0,
    };
    let fields = BTreeMap::from([
        ("producerGroup", group.to_owned()),
        ("tranStateTableOffset", prepared.offset.to_string()),
        ("commitLogOffset", prepared.position.to_string()),
        ("commitOrRollback", outcome.to_string()),
        ("fromTransactionCheck", is_asked.to_string()),
        ("msgId", prepared.message_id.clone()),
        ("transactionId", prepared.transaction_id.clone()),
    ]);
    broker.end_transaction(fields).await
}

/// Says to the brokers of some topics that a producer is there.
async fn be_there(cluster: Arc<RocketMq>, group: String, topics: Vec<String>) {
    let client = format!("{}@{}#tx-{:08x}", group, std::process::id(), fastrand::u32(..));
    loop {
        for topic in &topics {
            if let Err(error) = cluster.route(topic).await {
                debug!(%error, topic, "its brokers are not known");
            }
        }
        for name in cluster.brokers() {
            let beat = async { cluster.broker(&name).await?.produce(&client, &group).await };
            if let Err(error) = beat.await {
                debug!(%error, name, "a heartbeat was not answered");
            }
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Answers brokers that ask what became of a transaction.
async fn answer_checks(cluster: Arc<RocketMq>, group: String, answer: Answer) {
    let mut checks = cluster.checks();
    // What was missed is asked again.
    loop {
        match checks.recv().await {
            Ok(check) => {
                if let Err(error) = answer_check(&cluster, &group, &answer, check).await {
                    warn!(%error, "what became of a transaction was not said, the broker asks again");
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                debug!(missed, "brokers ask more than is answered");
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn answer_check(
    cluster: &RocketMq,
    group: &str,
    answer: &Answer,
    check: Check,
) -> Result<(), RocketMqError> {
    let broker = cluster.broker(&check.broker).await?;
    let garbled =
        |what: String| RocketMqError::Garbled { address: broker.address().to_owned(), what };
    let mut messages = decode(&check.broker, check.request.body.clone()).map_err(garbled)?;
    let Some(message) = messages.pop() else { return Ok(()) };
    // A producer of another group in this process answers for its own.
    if message.properties.get("PGROUP").is_some_and(|of| of != group) {
        return Ok(());
    }
    let text = |name: &str| check.request.fields.get(name).cloned().unwrap_or_default();
    let prepared = Prepared {
        offset: check.request.number("tranStateTableOffset").unwrap_or_default(),
        position: check.request.number("commitLogOffset").unwrap_or_default(),
        message_id: text("msgId"),
        transaction_id: text("transactionId"),
    };
    let outcome = answered(answer, message).await;
    end(&broker, group, &prepared, outcome, true).await
}

/// Asks the application, which may panic, or never answer: then it is not known, and the broker asks again.
async fn answered(answer: &Answer, message: ReceivedMessage) -> Transaction {
    let id = message.properties.get("UNIQ_KEY").cloned().unwrap_or_default();
    // It may panic before its future is there.
    let asked = AssertUnwindSafe(async { answer(message).await }).catch_unwind();
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            warn!(id, "what was asked about a transaction panicked, the broker asks again");
            Transaction::Unknown
        }
        Err(_) => {
            warn!(id, limit = ?ANSWER, "what was asked about a transaction did not answer, the broker asks again");
            Transaction::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueueKey;

    #[test]
    fn a_message_is_found_by_the_place_in_its_name() {
        let queue = QueueKey { broker: "b".to_owned(), number: 0 };
        let receipt = |message_id: &str| Receipt {
            message_id: message_id.to_owned(),
            queue: queue.clone(),
            offset: 7,
            less_safe: false,
        };
        let prepared = Prepared::of(&receipt("7F00000100002A9F00000000000003E8"));
        assert_eq!((prepared.offset, prepared.position), (7, 1000));
        assert_eq!(Prepared::of(&receipt("short")).position, 0);
    }

    /// Those who are asked after it are answered all the same.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_panics_or_never_comes_is_unknown() {
        let message = ReceivedMessage {
            topic: "t".to_owned(),
            queue: QueueKey { broker: "b".to_owned(), number: 0 },
            offset: 0,
            position: 0,
            born_at: 0,
            attempts: 0,
            properties: BTreeMap::new(),
            body: bytes::Bytes::new(),
            flag: 0,
            unreadable: None,
        };
        let panics: Answer = Arc::new(|_| panic!("asked too much"));
        let waits: Answer = Arc::new(|_| std::future::pending().boxed());
        let knows: Answer = Arc::new(|_| async { Transaction::Committed }.boxed());
        assert_eq!(answered(&panics, message.clone()).await, Transaction::Unknown);
        assert_eq!(answered(&waits, message.clone()).await, Transaction::Unknown);
        assert_eq!(answered(&knows, message).await, Transaction::Committed);
    }
}
