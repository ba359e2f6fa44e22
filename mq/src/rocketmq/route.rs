use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::answer::{json_of, succeeded};
use super::command::Command;
use super::{Connection, RocketMqError};
use crate::QueueKey;

/// `GET_ROUTEINFO_BY_TOPIC` of the protocol.
const ROUTE: i32 = 105;

const LIMIT: Duration = Duration::from_secs(5);

/// Where a topic's queues are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRoute {
    /// For each broker that holds queues its address and how many may be read, and written.
    pub brokers: BTreeMap<String, (String, u32, u32)>,
}

impl TopicRoute {
    /// Returns the queues, so many of each broker as a function says.
    pub(super) fn queues(
        &self,
        count: impl Fn(&(String, u32, u32)) -> u32,
    ) -> impl Iterator<Item = QueueKey> {
        self.brokers.iter().flat_map(move |(name, broker)| {
            (0..count(broker)).map(|number| QueueKey { broker: name.clone(), number })
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RouteBody {
    broker_datas: Vec<BrokerBody>,
    queue_datas: Vec<QueueBody>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BrokerBody {
    broker_name: String,
    broker_addrs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct QueueBody {
    broker_name: String,
    read_queue_nums: u32,
    write_queue_nums: u32,
    perm: u32,
}

impl Default for QueueBody {
    fn default() -> Self {
        let (broker_name, read_queue_nums, write_queue_nums) = (String::new(), 0, 0);
        // Where nothing is said, both are allowed.
        Self { broker_name, read_queue_nums, write_queue_nums, perm: 6 }
    }
}

/// Asks a name server where a topic's queues are; `None` where nobody knows the topic.
///
/// Only masters are named: what a slave has may be behind, and fences are drawn at what a master has.
///
/// # Errors
///
/// See [`RocketMqError`].
pub async fn route(names: &Connection, topic: &str) -> Result<Option<TopicRoute>, RocketMqError> {
    const NO_TOPIC: i32 = 17;
    let fields =
        [("topic", Some(topic.to_owned())), ("acceptStandardJsonOnly", Some("true".to_owned()))];
    let answer = names.ask(Command::request(ROUTE, fields), LIMIT).await?;
    if answer.code == NO_TOPIC {
        return Ok(None);
    }
    let body: RouteBody = json_of(names, &succeeded(names, answer)?)?;
    let mut route = TopicRoute::default();
    for queues in body.queue_datas {
        let of_name = |broker: &&BrokerBody| broker.broker_name == queues.broker_name;
        let master = body.broker_datas.iter().find(of_name).and_then(|it| it.broker_addrs.get("0"));
        if let Some(address) = master {
            // The permissions of org.apache.rocketmq.common.constant.PermName.
            let may = |flag: u32| queues.perm & flag != 0;
            let readable = if may(4) { queues.read_queue_nums } else { 0 };
            let writable = if may(2) { queues.write_queue_nums } else { 0 };
            let numbers = (address.clone(), readable, writable);
            route.brokers.insert(queues.broker_name, numbers);
        }
    }
    Ok(Some(route))
}
