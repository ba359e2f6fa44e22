use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use super::answer::{garbled, json_of, refused, succeeded};
use super::command::Command;
use super::message::{encode_batch, encode_properties};
use super::pulling::subscription_data;
use super::{Connection, RocketMqError};
use crate::{Attendance, Message, QueueKey, Receipt};

/// How long an answer is waited for; a pull adds the time for which it may be held back.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Request codes of the protocol (org.apache.rocketmq.remoting.protocol.RequestCode).
pub(super) mod code {
    pub(in crate::rocketmq) const PULL: i32 = 11;
    pub(super) const QUERY_OFFSET: i32 = 14;
    pub(super) const UPDATE_OFFSET: i32 = 15;
    pub(super) const CREATE_TOPIC: i32 = 17;
    pub(super) const CONFIG: i32 = 26;
    pub(super) const MAX_OFFSET: i32 = 30;
    pub(super) const MIN_OFFSET: i32 = 31;
    pub(super) const HEARTBEAT: i32 = 34;
    pub(super) const UNREGISTER: i32 = 35;
    pub(super) const END_TRANSACTION: i32 = 37;
    pub(super) const CONSUMERS: i32 = 38;
    pub(in crate::rocketmq) const CHECK: i32 = 46;
    pub(in crate::rocketmq) const SEND: i32 = 310;
    pub(super) const SEND_BATCH: i32 = 320;
}

/// A broker that is spoken to.
#[derive(Debug)]
pub struct Broker {
    pub(super) name: String,
    pub(super) connection: Connection,
    /// The filters that it has been asked about, since it was connected to, and understands.
    pub(super) understood: Mutex<BTreeSet<String>>,
}

impl Broker {
    /// Speaks to the broker of this name over a connection.
    pub const fn new(name: String, connection: Connection) -> Self {
        Self { name, connection, understood: Mutex::new(BTreeSet::new()) }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its address, as `host:port`.
    pub fn address(&self) -> &str {
        self.connection.address()
    }

    /// Tells whether its connection has broken.
    pub fn is_broken(&self) -> bool {
        self.connection.is_broken()
    }

    /// Creates a topic with so many queues, or changes it.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<(), RocketMqError> {
        let fields = [
            ("topic", topic.to_owned()),
            ("defaultTopic", "TBW102".to_owned()),
            ("readQueueNums", queues.to_string()),
            ("writeQueueNums", queues.to_string()),
            ("perm", "6".to_owned()),
            ("topicFilterType", "SINGLE_TAG".to_owned()),
            ("topicSysFlag", "0".to_owned()),
            ("order", "false".to_owned()),
        ];
        self.ask(code::CREATE_TOPIC, fields).await.map(drop)
    }

    /// Sends a message to a queue, and waits until it is stored.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`]; a broker that says that it has stored the message but not yet flushed or
    /// replicated it counts as one that refuses.
    pub async fn send(
        &self,
        group: &str,
        message: &Message,
        queue: u32,
    ) -> Result<Receipt, RocketMqError> {
        let request = self.sending(group, message, queue)?;
        let answer = self.connection.ask(request, LIMIT).await?;
        self.receipt(answer)
    }

    /// Sends a message to a queue, and waits for nothing.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn send_one_way(
        &self,
        group: &str,
        message: &Message,
        queue: u32,
    ) -> Result<(), RocketMqError> {
        self.connection.tell(self.sending(group, message, queue)?, LIMIT).await
    }

    /// Sends messages of one topic to a queue, and waits until all are stored.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn send_batch(
        &self,
        group: &str,
        messages: &[Message],
        queue: u32,
    ) -> Result<Receipt, RocketMqError> {
        let topic = messages.first().map_or("", |message| message.topic.as_str());
        let body = encode_batch(messages).ok_or_else(|| self.unsendable())?;
        let fields = self.fields(group, topic, queue, (String::new(), true));
        let request = Command::request(code::SEND_BATCH, fields).with_body(body);
        let answer = self.connection.ask(request, LIMIT).await?;
        self.receipt(answer)
    }

    fn sending(
        &self,
        group: &str,
        message: &Message,
        queue: u32,
    ) -> Result<Command, RocketMqError> {
        let properties = encode_properties(&message.properties);
        let properties = properties.ok_or_else(|| self.unsendable())?;
        let fields = self.fields(group, &message.topic, queue, (properties, false));
        Ok(Command::request(code::SEND, fields).with_body(message.body.clone()))
    }

    /// The fields of a message, or of a batch of them.
    pub(super) fn fields(
        &self,
        group: &str,
        topic: &str,
        queue: u32,
        (properties, is_batch): (String, bool),
    ) -> [(&'static str, Option<String>); 13] {
        let prepared = properties.contains("TRAN_MSG\u{1}true");
        let fields = [
            ("a", group.to_owned()),
            ("b", topic.to_owned()),
            ("c", "TBW102".to_owned()),
            ("d", "4".to_owned()),
            ("e", queue.to_string()),
            ("f", if prepared { "4" } else { "0" }.to_owned()),
            ("g", now().to_string()),
            ("h", "0".to_owned()),
            ("i", properties),
            ("j", "0".to_owned()),
            ("k", "false".to_owned()),
            ("m", is_batch.to_string()),
            ("n", self.name.clone()),
        ];
        fields.map(|(name, value)| (name, Some(value)))
    }

    /// Reads where a message is stored. That it is not yet flushed or replicated is no reason to send it once
    /// more, as with the Java client: it is there, and will be handled.
    pub(super) fn receipt(&self, mut answer: Command) -> Result<Receipt, RocketMqError> {
        // Not flushed in time, no slave, and not replicated in time.
        let less_safe = [10, 11, 12].contains(&answer.code);
        if less_safe {
            let (broker, code) = (&self.name, answer.code);
            warn!(
                broker,
                code,
                remark = answer.remark,
                "stored, but not as safely as is configured"
            );
            answer.code = 0;
        }
        let answer = &succeeded(&self.connection, answer)?;
        let number = self.number(answer, "queueId")?;
        Ok(Receipt {
            message_id: answer.fields.get("msgId").cloned().unwrap_or_default(),
            queue: QueueKey { broker: self.name.clone(), number },
            offset: self.number(answer, "queueOffset")?,
            less_safe,
        })
    }

    pub(super) fn unsendable(&self) -> RocketMqError {
        self.garbled("a property without a name, or with a character that separates them")
    }

    /// Returns the offset that the next message of a queue will have.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn max_offset(&self, topic: &str, queue: u32) -> Result<u64, RocketMqError> {
        let fields = [("topic", topic.to_owned()), ("queueId", queue.to_string())];
        self.number(&self.ask(code::MAX_OFFSET, fields).await?, "offset")
    }

    /// Returns the lowest offset of a queue that is still there.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn min_offset(&self, topic: &str, queue: u32) -> Result<u64, RocketMqError> {
        let fields = [("topic", topic.to_owned()), ("queueId", queue.to_string())];
        self.number(&self.ask(code::MIN_OFFSET, fields).await?, "offset")
    }

    /// Returns what a group has committed in a queue; `None` where it never has. A broker of 4.9 says
    /// 0 instead, where the queue still begins at 0.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn committed(
        &self,
        group: &str,
        topic: &str,
        queue: u32,
    ) -> Result<Option<u64>, RocketMqError> {
        const NOT_FOUND: i32 = 22;
        let fields = [
            ("consumerGroup", group.to_owned()),
            ("topic", topic.to_owned()),
            ("queueId", queue.to_string()),
            ("setZeroIfNotFound", "false".to_owned()),
        ];
        match self.ask(code::QUERY_OFFSET, fields).await {
            Ok(answer) => self.number(&answer, "offset").map(Some),
            Err(RocketMqError::Refused { code: NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Commits an offset of a queue, and waits until the broker has it. It is on the broker's disk
    /// some seconds later only.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn commit(
        &self,
        group: &str,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<(), RocketMqError> {
        let fields = [
            ("consumerGroup", group.to_owned()),
            ("topic", topic.to_owned()),
            ("queueId", queue.to_string()),
            ("commitOffset", offset.to_string()),
        ];
        self.ask(code::UPDATE_OFFSET, fields).await.map(drop)
    }

    /// Says that a consumer is there.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn heartbeat(&self, heartbeat: &Attendance<'_>) -> Result<(), RocketMqError> {
        let subscriptions: Vec<_> = heartbeat.subscriptions.iter().map(subscription_data).collect();
        let body = json!({
            "clientID": heartbeat.client,
            "producerDataSet": [],
            "consumerDataSet": [{
                "groupName": heartbeat.group,
                "consumeType": "CONSUME_PASSIVELY",
                "messageModel": "CLUSTERING",
                "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
                "subscriptionDataSet": subscriptions,
                "unitMode": false,
            }],
        });
        let request = Command::request(code::HEARTBEAT, []).with_body(body.to_string());
        let answer = self.connection.ask(request, heartbeat.limit).await?;
        succeeded(&self.connection, answer).map(drop)
    }

    /// Says that a producer of a group is there, to be asked what became of transactions.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn produce(&self, client: &str, group: &str) -> Result<(), RocketMqError> {
        let body = json!({
            "clientID": client,
            "producerDataSet": [{ "groupName": group }],
            "consumerDataSet": [],
        });
        let request = Command::request(code::HEARTBEAT, []).with_body(body.to_string());
        let answer = self.connection.ask(request, LIMIT).await?;
        succeeded(&self.connection, answer).map(drop)
    }

    /// Says what became of a transaction, to a broker that does not answer.
    pub(super) async fn end_transaction(
        &self,
        fields: BTreeMap<&str, String>,
    ) -> Result<(), RocketMqError> {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let request = Command { fields, ..Command::request(code::END_TRANSACTION, []) };
        self.connection.tell(request, LIMIT).await
    }

    /// Says that a consumer goes.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn leave(&self, client: &str, group: &str) -> Result<(), RocketMqError> {
        let fields = [("clientID", client.to_owned()), ("consumerGroup", group.to_owned())];
        self.ask(code::UNREGISTER, fields).await.map(drop)
    }

    /// Returns the clients of a group that this broker knows of.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`]. That there are none is an answer, and not an error.
    pub async fn consumers(&self, group: &str) -> Result<Vec<String>, RocketMqError> {
        /// The broker has no word of its own for a group that nobody is in.
        const SYSTEM_ERROR: i32 = 1;
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Body {
            consumer_id_list: Vec<String>,
        }
        let answer = self.ask(code::CONSUMERS, [("consumerGroup", group.to_owned())]).await;
        match answer {
            Ok(answer) => Ok(json_of::<Body>(&self.connection, &answer)?.consumer_id_list),
            Err(RocketMqError::Refused { code: SYSTEM_ERROR, remark, .. })
                if remark.contains("no consumer for this group") =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a setting of the broker; `None` where it has none of that name.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn setting(&self, name: &str) -> Result<Option<String>, RocketMqError> {
        let answer = self.ask(code::CONFIG, []).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Ok(line.map(|value| value.trim().to_owned()))
    }

    pub(super) async fn ask<const N: usize>(
        &self,
        code: i32,
        fields: [(&str, String); N],
    ) -> Result<Command, RocketMqError> {
        let fields = fields.map(|(name, value)| (name, Some(value)));
        let answer = self.connection.ask(Command::request(code, fields), LIMIT).await?;
        succeeded(&self.connection, answer)
    }

    pub(super) fn number<T: std::str::FromStr>(
        &self,
        answer: &Command,
        name: &str,
    ) -> Result<T, RocketMqError> {
        answer.number(name).ok_or_else(|| self.garbled(&format!("`{name}` is missing")))
    }

    pub(super) fn garbled(&self, what: &str) -> RocketMqError {
        garbled(&self.connection, what)
    }

    pub(super) fn refused(&self, answer: Command) -> RocketMqError {
        refused(&self.connection, answer)
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
