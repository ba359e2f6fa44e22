//! What is pulled, and what is left out of it.

use std::sync::PoisonError;

use serde_json::json;

use super::broker::{LIMIT, code};
use super::command::Command;
use super::message::decode;
use super::{Broker, RocketMqError};
use crate::{Filter, PullRequest, Pulled, Subscription};

impl Broker {
    /// Pulls messages.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn pull(&self, pull: &PullRequest<'_>) -> Result<Pulled, RocketMqError> {
        const SUSPEND: u32 = 2;
        const WITH_SUBSCRIPTION: u32 = 4;
        self.understand(pull).await?;
        let (kind, expression) = expression(pull.filter);
        let fields = [
            ("consumerGroup", pull.group.to_owned()),
            ("topic", pull.topic.to_owned()),
            ("queueId", pull.queue.number.to_string()),
            ("queueOffset", pull.offset.to_string()),
            ("maxMsgNums", pull.count.to_string()),
            // Committing on the way is never asked for: only what is handled is committed.
            ("sysFlag", (SUSPEND | WITH_SUBSCRIPTION).to_string()),
            ("commitOffset", "0".to_owned()),
            ("suspendTimeoutMillis", pull.wait.as_millis().to_string()),
            ("subVersion", "0".to_owned()),
            ("subscription", expression.to_owned()),
            ("expressionType", kind.to_owned()),
        ];
        let request = Command::request(code::PULL, fields.map(|(name, value)| (name, Some(value))));
        // A broker looks only every five seconds whether a pull has been held back long enough.
        let answer = self.connection.ask(request, pull.wait + 2 * LIMIT).await?;
        // Found, nothing new, nothing that fits, and no such offset.
        if ![0, 19, 20, 21].contains(&answer.code) {
            return Err(self.unfit(answer));
        }
        Ok(Pulled {
            next: self.number(&answer, "nextBeginOffset")?,
            end: self.number(&answer, "maxOffset")?,
            messages: decode(&self.name, answer.body).map_err(|what| self.garbled(&what))?,
        })
    }

    /// Makes sure that a filter leaves something out: of a broker that has come since the consumer has asked
    /// all, too, and of one that came back configured otherwise.
    async fn understand(&self, pull: &PullRequest<'_>) -> Result<(), RocketMqError> {
        let Filter::Sql(sql) = pull.filter else { return Ok(()) };
        let understood = || self.understood.lock().unwrap_or_else(PoisonError::into_inner);
        if understood().contains(sql) {
            return Ok(());
        }
        let (topic, filter) = (pull.topic.to_owned(), pull.filter.clone());
        let subscription = Subscription { topic, filter, version: 0 };
        self.check(pull.group, pull.group, &subscription).await?;
        understood().insert(sql.clone());
        Ok(())
    }

    /// Asks whether it understands a filter; with a pull, what it cannot read leaves nothing out.
    ///
    /// # Errors
    ///
    /// See [`RocketMqError`].
    pub async fn check(
        &self,
        client: &str,
        group: &str,
        subscription: &Subscription,
    ) -> Result<(), RocketMqError> {
        let subscription = subscription_data(subscription);
        let body = json!({ "clientId": client, "group": group, "subscriptionData": subscription });
        let request = Command::request(code::CHECK, []).with_body(body.to_string());
        let answer = self.connection.ask(request, LIMIT).await?;
        if answer.code == 0 { Ok(()) } else { Err(self.unfit(answer)) }
    }

    /// Why it does not filter.
    fn unfit(&self, answer: Command) -> RocketMqError {
        if answer.remark.contains("filter message by SQL92") {
            let address = self.connection.address().to_owned();
            return RocketMqError::NoPropertyFilter { address };
        }
        self.refused(answer)
    }
}

pub(super) fn subscription_data(it: &Subscription) -> serde_json::Value {
    let (kind, expression) = expression(&it.filter);
    json!({
        "topic": it.topic, "subString": expression, "expressionType": kind,
        "subVersion": it.version, "classFilterMode": false, "tagsSet": [], "codeSet": [],
    })
}

fn expression(filter: &Filter) -> (&'static str, &str) {
    match filter {
        Filter::Tags(tags) => ("TAG", tags),
        Filter::Sql(sql) => ("SQL92", sql),
    }
}
