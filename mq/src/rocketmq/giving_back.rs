//! How a message that was not handled comes back to its group.

use super::broker::{LIMIT, code};
use super::command::Command;
use super::message::{ORIGIN, encode_properties};
use super::{Broker, RocketMqError};
use crate::ReceivedMessage;

/// `CONSUMER_SEND_MSG_BACK` of the protocol.
const SEND_BACK: i32 = 36;

/// What a broker says that has lost the message.
const LOST: &str = "look message by offset failed";

/// The delay of a first retry, of the levels that brokers have: ten seconds.
const FIRST_LEVEL: u32 = 3;

impl Broker {
    /// Gives a message back to its group, to be pulled again from the topic of its retries after a
    /// delay; level 0 leaves the delay to the broker, which makes it longer each time. Where the broker
    /// has lost the message meanwhile, it is sent anew, as the Java client does
    /// (`DefaultMQPushConsumerImpl.sendMessageBack`).
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn send_back(
        &self,
        group: &str,
        message: &ReceivedMessage,
        level: i32,
        attempts: u32,
    ) -> Result<(), RocketMqError> {
        let fields = [
            ("maxReconsumeTimes", attempts.to_string()),
            ("offset", message.position.to_string()),
            ("group", group.to_owned()),
            ("delayLevel", level.to_string()),
            ("originMsgId", message.properties.get("UNIQ_KEY").cloned().unwrap_or_default()),
            ("originTopic", message.topic.clone()),
            ("unitMode", "false".to_owned()),
        ];
        match self.ask(SEND_BACK, fields).await {
            Err(RocketMqError::Refused { remark, .. }) if remark.contains(LOST) => {
                self.send_anew(group, message, attempts).await
            }
            answered => answered.map(drop),
        }
    }

    /// Sends a message to the topic of its group's retries, as what comes back for the next time.
    async fn send_anew(
        &self,
        group: &str,
        message: &ReceivedMessage,
        attempts: u32,
    ) -> Result<(), RocketMqError> {
        let mut properties = message.properties.clone();
        // Otherwise it would wait for its transaction, which has been decided.
        properties.remove("TRAN_MSG");
        properties.insert(ORIGIN.to_owned(), message.topic.clone());
        properties.remove("DELAY");
        // What has come too often is put aside, of 4.9 only after the delay, and one attempt earlier.
        if message.attempts + 1 < attempts {
            let level = FIRST_LEVEL + message.attempts;
            properties.insert("DELAY".to_owned(), level.to_string());
        }
        if let Some(id) = properties.get("UNIQ_KEY").cloned() {
            properties.entry("ORIGIN_MESSAGE_ID".to_owned()).or_insert(id);
        }
        let properties = encode_properties(&properties).ok_or_else(|| self.unsendable())?;
        // The topic of retries has one queue unless somebody has given it more.
        let topic = format!("%RETRY%{group}");
        // What could not be unpacked goes as it came, and is still packed in whatever way.
        let packing = message.unreadable.as_ref().map_or(0, |unreadable| unreadable.packing);
        let fields = self.fields(group, &topic, 0, (properties, false)).map(|(name, value)| {
            let own = match name {
                "f" => Some(packing.to_string()),
                "g" => Some(message.born_at.to_string()),
                "h" => Some(message.flag.to_string()),
                "j" => Some((message.attempts + 1).to_string()),
                _ => value,
            };
            (name, own)
        });
        let mut request = Command::request(code::SEND, fields).with_body(message.body.clone());
        request.fields.insert("l".to_owned(), attempts.to_string());
        let answer = self.connection.ask(request, LIMIT).await?;
        self.receipt(answer).map(drop)
    }
}
