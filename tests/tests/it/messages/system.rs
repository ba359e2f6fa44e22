//! A broker with processes that take part, and what their handlers saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_config::{Publisher, live};
use gray_mq::rocketmq::{Connection, RocketMq, route};
use gray_mq::{
    ConsumeMode, Consumer, ConsumerProperties, Delivery, Filter, HandlerError, Ledger, MemoryStore,
    Message, MessageBroker as _, MessageSettings, Messaging, OwnStatus, Producer, PullRequest,
    ReceivedMessage, Settings, Side,
};
use gray_propagation::{Context, GrayStatus, Lane, MessageCarrier, current_status, scope};
use gray_tests::{Release, RocketMq as Server, eventually};

pub(super) const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);
pub(super) const TOPIC: &str = "orders";
pub(super) const GROUP: &str = "orders-svc";

/// How long anything may take that a switch or a retry is part of.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// Who handled which message, in which lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handled {
    pub(super) by: String,
    pub(super) body: String,
    pub(super) lane: String,
}

type Log = Arc<Mutex<Vec<Handled>>>;

/// A broker, and processes that take part.
pub(super) struct System {
    server: Server,
    pub(super) cluster: Arc<RocketMq>,
    store: Arc<MemoryStore>,
    settings: Publisher<MessageSettings>,
    pub(super) log: Log,
    /// What was handed to handlers.
    pub(super) begun: Arc<Mutex<Vec<String>>>,
}

impl System {
    pub(super) async fn start(release: Release, settings: Settings) -> anyhow::Result<Self> {
        Self::start_on(Server::start(release)?, settings).await
    }

    pub(super) async fn start_on(server: Server, settings: Settings) -> anyhow::Result<Self> {
        // Shown where a test fails. Another test may have set it up.
        let _ = tracing_subscriber::fmt()
            .with_env_filter("info,gray_mq=debug")
            .with_test_writer()
            .with_ansi(false)
            .try_init();
        let cluster = Arc::new(RocketMq::new(vec![server.names()]));
        let names = Connection::open(&server.names(), PATIENCE).await?;
        eventually(PATIENCE, async || {
            ensure!(!cluster.route("TBW102").await?.brokers.is_empty(), "no broker");
            let broker = cluster.brokers().into_iter().next().context("no broker")?;
            cluster.broker(&broker).await?.create_topic(TOPIC, 2).await?;
            ensure!(route(&names, TOPIC).await?.is_some(), "no topic");
            Ok(())
        })
        .await?;
        let settings = MessageSettings::of_all(settings, [Lane::GRAY].into());
        let (settings, _) = live(settings);
        let (store, log) = (Arc::default(), Log::default());
        Ok(Self { server, cluster, store, settings, log, begun: Arc::default() })
    }

    pub(super) fn messaging(&self, own: GrayStatus) -> Messaging {
        Messaging {
            application: "spring-cloud-a".to_owned(),
            own: OwnStatus::by(move || own),
            settings: self.settings.reader(),
            carrier: MessageCarrier::default(),
            store: Arc::clone(&self.store) as _,
        }
    }

    pub(super) fn set(&self, mode: ConsumeMode, ignored: &[Lane]) {
        let settings = Settings { mode, ignored: ignored.iter().copied().collect() };
        self.settings.publish(MessageSettings::of_all(settings, [Lane::GRAY].into()));
    }

    /// Starts a process with a consumer whose handler fails for a body that says so the first `fails`
    /// times, or does not end.
    pub(super) fn consumer(
        &self,
        name: &str,
        own: GrayStatus,
        fails: usize,
    ) -> anyhow::Result<Consumer> {
        self.consumer_with(name, own, fails, ConsumerProperties::default())
    }

    pub(super) fn consumer_with(
        &self,
        name: &str,
        own: GrayStatus,
        fails: usize,
        more: ConsumerProperties,
    ) -> anyhow::Result<Consumer> {
        let properties = ConsumerProperties {
            group: if more.group.is_empty() { GROUP.to_owned() } else { more.group.clone() },
            client: Some(name.to_owned()),
            topics: vec![TOPIC.to_owned()],
            poll: Duration::from_millis(200),
            ..more
        };
        let (log, by) = (Arc::clone(&self.log), name.to_owned());
        let begun = Arc::clone(&self.begun);
        let seen = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
        let handler = move |delivery: Delivery| {
            let (log, by, seen) = (Arc::clone(&log), by.clone(), Arc::clone(&seen));
            let begun = Arc::clone(&begun);
            async move {
                let body = String::from_utf8_lossy(&delivery.message.body).into_owned();
                *seen.lock().unwrap().entry(body.clone()).or_default() += 1;
                let times = seen.lock().unwrap()[&body];
                if body.starts_with("fails") && times <= fails {
                    return Err(HandlerError::from("not this time"));
                }
                begun.lock().unwrap().push(body.clone());
                if body.starts_with("hangs") && times <= fails {
                    std::future::pending::<()>().await;
                }
                let lane = current_status().map_or_else(String::new, |it| it.to_string());
                log.lock().unwrap().push(Handled { by, body, lane });
                Ok(())
            }
        };
        // Connections of its own, that end with it.
        let cluster = Arc::new(RocketMq::new(vec![self.server.names()]));
        Ok(Consumer::start(cluster, self.messaging(own), properties, handler)?)
    }

    pub(super) fn producer(&self) -> Producer<RocketMq> {
        let messaging = self.messaging(GrayStatus::Prod);
        Producer::new(Arc::clone(&self.cluster), messaging, "producers")
    }

    /// Sends messages in a lane, as a request of that lane would.
    pub(super) async fn send(&self, lane: GrayStatus, bodies: &[&str]) -> anyhow::Result<()> {
        let producer = self.producer();
        for body in bodies {
            let message = Message::new(TOPIC, (*body).to_owned());
            scope(Context::of(lane), producer.send(message)).await?;
        }
        Ok(())
    }

    /// Waits until exactly these have handled these messages, in any order.
    pub(super) async fn handled(&self, expected: &[(&str, &str, &str)]) -> anyhow::Result<()> {
        let handled = |(by, body, lane): &(&str, &str, &str)| Handled {
            by: (*by).to_owned(),
            body: (*body).to_owned(),
            lane: (*lane).to_owned(),
        };
        let mut expected: Vec<_> = expected.iter().map(handled).collect();
        expected.sort();
        eventually(PATIENCE, async || {
            let mut log = self.log.lock().unwrap().clone();
            log.sort();
            ensure!(log == expected, "{log:?}, not {expected:?}");
            Ok(())
        })
        .await?;
        // Nobody else comes late.
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(self.log.lock().unwrap().len() == expected.len(), "{:?}", self.log);
        self.log.lock().unwrap().clear();
        Ok(())
    }

    /// Waits until these messages have been handled once each.
    pub(super) async fn handled_by_anybody(&self, expected: &[(&str, &str)]) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let log = self.log.lock().unwrap().clone();
            ensure!(log.len() >= expected.len(), "{log:?}, not {expected:?}");
            Ok(())
        })
        .await?;
        let mut by = self.log.lock().unwrap().clone();
        by.sort_by(|one, other| one.body.cmp(&other.body));
        let expected: Vec<_> = expected
            .iter()
            .zip(&by)
            .map(|((body, lane), handled)| (handled.by.as_str(), *body, *lane))
            .collect();
        self.handled(&expected).await
    }

    /// Waits until a process has handled something.
    pub(super) async fn has_handled(&self, name: &str) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let handled = self.log.lock().unwrap().iter().any(|it| it.by == name);
            ensure!(handled, "{name} has handled nothing");
            Ok(())
        })
        .await
    }

    /// Waits until a gray message is handled by each of these, and forgets it.
    pub(super) async fn shares(&self, by: &[&str]) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let body = format!("probe {}", self.begun.lock().unwrap().len());
            self.send(GRAY, &[&body]).await?;
            let all = async || {
                let log = self.log.lock().unwrap().clone();
                let has = |name: &&str| log.iter().any(|it| it.body == body && it.by == *name);
                ensure!(by.iter().all(has), "{log:?}");
                Ok(())
            };
            eventually(Duration::from_secs(2), all).await
        })
        .await?;
        self.log.lock().unwrap().clear();
        Ok(())
    }

    /// Waits until so many members read the topic as base's group.
    pub(super) async fn are_in_one_group(&self, count: usize) -> anyhow::Result<()> {
        self.are_members(Side::Base, count).await
    }

    /// Waits until so many members read the topic for a side.
    pub(super) async fn are_members(&self, side: Side, count: usize) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let table = self.ledger().read().await?;
            let of_side = table.members().values().filter(|member| member.side == side);
            ensure!(of_side.count() == count, "{table:?}");
            Ok(())
        })
        .await
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(Arc::clone(&self.store) as _, GROUP, TOPIC)
    }

    /// Returns how many fences there are.
    pub(super) async fn fences(&self) -> anyhow::Result<usize> {
        let table = self.ledger().read().await?;
        let of = |queue| table.fences().of(queue, Lane::GRAY).len();
        Ok(table.fences().queues().map(of).sum())
    }

    /// Returns the first message of a topic with one queue.
    pub(super) async fn first_of(&self, topic: &str) -> anyhow::Result<ReceivedMessage> {
        let queues = self.cluster.queues(topic).await?;
        let queue = queues.first().context("no queue")?;
        let (filter, wait) = (Filter::default(), Duration::from_millis(100));
        let pull = PullRequest {
            group: "readers",
            topic,
            queue,
            offset: 0,
            count: 1,
            wait,
            filter: &filter,
        };
        self.cluster.pull(&pull).await?.messages.pop().context("no message")
    }

    /// Names the lanes that there are.
    pub(super) fn set_lanes(&self, lanes: &[Lane]) {
        let lanes = lanes.iter().copied().collect();
        self.settings.publish(MessageSettings::of_all(Settings::default(), lanes));
    }

    pub(super) fn kill_broker(&mut self) {
        self.server.kill();
    }

    pub(super) fn run_broker(&mut self) -> anyhow::Result<()> {
        self.server.run()
    }

    /// Waits until gray is open, or not.
    pub(super) async fn is_open(&self, open: bool) -> anyhow::Result<()> {
        self.is_open_to(Lane::GRAY, open).await
    }

    /// Waits until the lane is open, or not.
    pub(super) async fn is_open_to(&self, lane: Lane, open: bool) -> anyhow::Result<()> {
        self.is_open_of(GROUP, lane, open).await
    }

    /// Waits until the lane of a group is open, or not.
    pub(super) async fn is_open_of(
        &self,
        group: &str,
        lane: Lane,
        open: bool,
    ) -> anyhow::Result<()> {
        let ledger = Ledger::new(Arc::clone(&self.store) as _, group, TOPIC);
        eventually(PATIENCE, async || {
            let table = ledger.read().await?;
            ensure!(table.is_open(lane) == open && table.intent().is_none(), "{table:?}");
            ensure!(!table.members().is_empty(), "nobody is there");
            Ok(())
        })
        .await
    }
}
