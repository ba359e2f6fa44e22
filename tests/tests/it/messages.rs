//! Messages on Apache's own brokers: who handles what, in each mode and while lanes come and go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_config::{Publisher, live};
use gray_mq::rocketmq::{Connection, RocketMq, Transaction, TransactionProducer, route};
use gray_mq::{
    ConsumeMode, Consumer, ConsumerProperties, Delivery, Filtering, HandlerError, Ledger,
    MemoryStore, Message, MessageBroker, MessageSettings, Messaging, Order, OwnStatus, Producer,
    ReceivedMessage, Settings, Side,
};
use gray_propagation::{Context, GrayStatus, Lane, MessageCarrier, current_status, scope};
use gray_tests::{Release, RocketMq as Server, eventually};

const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);
const TOPIC: &str = "orders";
const GROUP: &str = "orders-svc";

/// How long anything may take that a switch or a retry is part of.
const PATIENCE: Duration = Duration::from_secs(40);

/// Who handled which message, in which lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Handled {
    by: String,
    body: String,
    lane: String,
}

type Log = Arc<Mutex<Vec<Handled>>>;

/// A broker, and processes that take part.
struct System {
    server: Server,
    cluster: Arc<RocketMq>,
    store: Arc<MemoryStore>,
    settings: Publisher<MessageSettings>,
    log: Log,
    /// What was handed to handlers.
    begun: Arc<Mutex<Vec<String>>>,
}

impl System {
    async fn start(release: Release, settings: Settings) -> anyhow::Result<Self> {
        Self::start_on(Server::start(release)?, settings).await
    }

    async fn start_on(server: Server, settings: Settings) -> anyhow::Result<Self> {
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

    fn messaging(&self, own: GrayStatus) -> Messaging {
        Messaging {
            application: "spring-cloud-a".to_owned(),
            own: OwnStatus::by(move || own),
            settings: self.settings.reader(),
            carrier: MessageCarrier::default(),
            store: Arc::clone(&self.store) as _,
        }
    }

    fn set(&self, mode: ConsumeMode, ignored: &[Lane]) {
        let settings = Settings { mode, ignored: ignored.iter().copied().collect() };
        self.settings.publish(MessageSettings::of_all(settings, [Lane::GRAY].into()));
    }

    /// Starts a process with a consumer whose handler fails for a body that says so the first `fails`
    /// times, or never ends.
    fn consumer(&self, name: &str, own: GrayStatus, fails: usize) -> anyhow::Result<Consumer> {
        self.consumer_with(name, own, fails, ConsumerProperties::default())
    }

    fn consumer_with(
        &self,
        name: &str,
        own: GrayStatus,
        fails: usize,
        more: ConsumerProperties,
    ) -> anyhow::Result<Consumer> {
        let properties = ConsumerProperties {
            group: GROUP.to_owned(),
            client: Some(name.to_owned()),
            topics: vec![TOPIC.to_owned()],
            poll: Duration::from_millis(200),
            lease: Duration::from_secs(2),
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
                if body.starts_with("hangs") && fails > 0 {
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

    fn producer(&self) -> Producer<RocketMq> {
        let messaging = self.messaging(GrayStatus::Prod);
        Producer::new(Arc::clone(&self.cluster), messaging, "producers")
    }

    /// Sends messages in a lane, as a request of that lane would.
    async fn send(&self, lane: GrayStatus, bodies: &[&str]) -> anyhow::Result<()> {
        let producer = self.producer();
        for body in bodies {
            let message = Message::new(TOPIC, (*body).to_owned());
            scope(Context::of(lane), producer.send(message)).await?;
        }
        Ok(())
    }

    /// Waits until exactly these have handled these messages, in any order.
    async fn handled(&self, expected: &[(&str, &str, &str)]) -> anyhow::Result<()> {
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
    async fn handled_by_anybody(&self, expected: &[(&str, &str)]) -> anyhow::Result<()> {
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

    /// Waits until a gray message is handled by each of these, and forgets it.
    async fn shares(&self, by: &[&str]) -> anyhow::Result<()> {
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
    async fn are_in_one_group(&self, count: usize) -> anyhow::Result<()> {
        let ledger = Ledger::new(Arc::clone(&self.store) as _, GROUP, TOPIC);
        eventually(PATIENCE, async || {
            let table = ledger.read().await?;
            let of_base = table.members().values().filter(|member| member.side == Side::Base);
            ensure!(of_base.count() == count, "{table:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the lane is open, or not.
    async fn is_open(&self, open: bool) -> anyhow::Result<()> {
        let ledger = Ledger::new(Arc::clone(&self.store) as _, GROUP, TOPIC);
        eventually(PATIENCE, async || {
            let table = ledger.read().await?;
            ensure!(table.is_open(Lane::GRAY) == open && table.intent().is_none(), "{table:?}");
            ensure!(!table.members().is_empty(), "nobody is there");
            Ok(())
        })
        .await
    }
}

fn auto() -> Settings {
    Settings::default()
}

/// The row of semantics 4.1, and off, and back on, without a restart.
async fn a_lane_comes_and_goes(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    system.is_open(false).await?;
    system.send(GrayStatus::Prod, &["p1"]).await?;
    system.send(GRAY, &["g1"]).await?;
    system.handled(&[("base", "p1", "PROD"), ("base", "g1", "GRAY")]).await?;

    let gray = system.consumer("gray", GRAY, 0)?;
    system.is_open(true).await?;
    system.send(GrayStatus::Prod, &["p2"]).await?;
    system.send(GRAY, &["g2", "g3"]).await?;
    let expected = [("base", "p2", "PROD"), ("gray", "g2", "GRAY"), ("gray", "g3", "GRAY")];
    system.handled(&expected).await?;

    gray.stop().await;
    system.is_open(false).await?;
    system.send(GRAY, &["g4"]).await?;
    system.handled(&[("base", "g4", "GRAY")]).await?;

    let gray = system.consumer("gray-2", GRAY, 0)?;
    system.is_open(true).await?;
    system.send(GRAY, &["g5"]).await?;
    system.handled(&[("gray-2", "g5", "GRAY")]).await?;
    gray.stop().await;
    base.stop().await;
    let listed = system.cluster.listed(GROUP, &system.cluster.brokers()).await?;
    ensure!(listed.is_empty(), "{listed:?}");
    Ok(())
}

/// The rows of the table, one after the other and without a restart.
async fn each_mode_gives_messages_to_whom_it_says(release: Release) -> anyhow::Result<()> {
    let excluded = Settings { ignored: [Lane::GRAY].into(), ..auto() };
    let system = System::start(release, excluded).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    // Excluded and nobody there: base leaves it alone, and it waits.
    system.is_open(true).await?;
    system.send(GrayStatus::Prod, &["p1"]).await?;
    system.send(GRAY, &["g1"]).await?;
    system.handled(&[("base", "p1", "PROD")]).await?;
    let gray = system.consumer("gray", GRAY, 0)?;
    system.handled(&[("gray", "g1", "GRAY")]).await?;

    // Base consumes everything, and gray its own too, where it is asked for.
    system.set(ConsumeMode::Base, &[]);
    system.is_open(false).await?;
    system.shares(&["base", "gray"]).await?;
    system.send(GrayStatus::Prod, &["p2"]).await?;
    system.send(GRAY, &["g2"]).await?;
    let expected = [("base", "p2", "PROD"), ("base", "g2", "GRAY"), ("gray", "g2", "GRAY")];
    system.handled(&expected).await?;

    // Back to each its own, and what was handled twice is not handled a third time.
    system.set(ConsumeMode::Auto, &[]);
    system.is_open(true).await?;
    system.send(GRAY, &["g3"]).await?;
    system.handled(&[("gray", "g3", "GRAY")]).await?;

    // Tagged, and handled by anybody, once, in its lane.
    system.set(ConsumeMode::Tag, &[]);
    system.is_open(false).await?;
    system.are_in_one_group(2).await?;
    system.send(GRAY, &["g4"]).await?;
    system.handled_by_anybody(&[("g4", "GRAY")]).await?;

    // Off: nothing is tagged, and everything handled once.
    system.set(ConsumeMode::Off, &[]);
    system.send(GRAY, &["g5"]).await?;
    system.send(GrayStatus::Prod, &["p5"]).await?;
    system.handled_by_anybody(&[("g5", "PROD"), ("p5", "PROD")]).await?;
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// A retry goes to the group that took the message, whatever becomes of the lane meanwhile.
async fn retries_stay_with_their_group(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let base = system.consumer("base", GrayStatus::Prod, 1)?;
    system.is_open(false).await?;
    system.send(GRAY, &["fails as base's"]).await?;
    eventually(PATIENCE, async || {
        ensure!(base.counts().all().values().sum::<u64>() > 0, "it has not failed yet");
        Ok(())
    })
    .await?;
    let gray = system.consumer("gray", GRAY, 1)?;
    system.is_open(true).await?;
    system.send(GRAY, &["fails as gray's"]).await?;
    let expected = [("base", "fails as base's", "GRAY"), ("gray", "fails as gray's", "GRAY")];
    system.handled(&expected).await?;
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// Gray dies, with messages in its hands and others not yet pulled: base handles them in its stead.
async fn what_gray_leaves_behind_is_handled_by_base(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    let gray = system.consumer("gray", GRAY, 1)?;
    system.is_open(true).await?;
    system.send(GRAY, &["hangs 1", "hangs 2"]).await?;
    eventually(PATIENCE, async || {
        ensure!(system.begun.lock().unwrap().len() == 2, "it has not begun");
        Ok(())
    })
    .await?;
    drop(gray);
    system.is_open(false).await?;
    system.send(GRAY, &["3"]).await?;
    let expected = ["hangs 1", "hangs 2", "3"].map(|body| ("base", body, "GRAY"));
    system.handled(&expected).await?;
    base.stop().await;
    Ok(())
}

/// Batches, messages that are not waited for, delayed, ordered and transactional ones.
async fn every_kind_of_message_keeps_its_lane(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    let gray = system.consumer("gray", GRAY, 0)?;
    system.is_open(true).await?;
    let producer = system.producer();
    let message = |body: &str| Message::new(TOPIC, body.to_owned());
    // Whoever is asked says that what it knows of was committed.
    let answer = async |message: ReceivedMessage| match &*message.body {
        b"asked" => Transaction::Committed,
        _ => Transaction::RolledBack,
    };
    let (cluster, topics) = (Arc::clone(&system.cluster), vec![TOPIC.to_owned()]);
    let transactions =
        TransactionProducer::start(producer.clone(), cluster, "producers", topics, answer);
    let send = async {
        producer.send_batch(vec![message("batch 1"), message("batch 2")]).await?;
        producer.send_one_way(message("one way")).await?;
        producer.send(message("delayed").with("DELAY", "1")).await?;
        producer.send_in_order(message("in order"), "key").await?;
        let outcomes = [
            ("committed", Transaction::Committed),
            ("rolled back", Transaction::RolledBack),
            ("asked", Transaction::Unknown),
            ("asked in vain", Transaction::Unknown),
        ];
        for (body, outcome) in outcomes {
            transactions.send(message(body), async { outcome }).await?;
        }
        anyhow::Ok(())
    };
    scope(Context::of(GRAY), send).await?;
    let bodies = ["batch 1", "batch 2", "one way", "delayed", "in order", "committed", "asked"];
    system.handled(&bodies.map(|body| ("gray", body, "GRAY"))).await?;
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// Where the broker does not filter by properties gray waits, and loses nothing; a consumer that is
/// told to filter by itself needs no broker that does.
async fn a_broker_that_does_not_filter_is_no_reason_to_lose_anything(
    release: Release,
) -> anyhow::Result<()> {
    let system = System::start_on(Server::start_with(release, false)?, auto()).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    let gray = system.consumer("gray", GRAY, 0)?;
    system.is_open(true).await?;
    system.send(GRAY, &["g1"]).await?;
    system.send(GrayStatus::Prod, &["p1"]).await?;
    system.handled(&[("base", "p1", "PROD")]).await?;
    gray.stop().await;
    let alone = ConsumerProperties { filtering: Filtering::Consumer, ..Default::default() };
    let gray = system.consumer_with("gray-2", GRAY, 0, alone)?;
    system.is_open(true).await?;
    system.send(GRAY, &["g2"]).await?;
    system.send(GrayStatus::Prod, &["p2"]).await?;
    let expected = [("gray-2", "g1", "GRAY"), ("gray-2", "g2", "GRAY"), ("base", "p2", "PROD")];
    system.handled(&expected).await?;
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// Nobody passes a fence in order before the other side has come up to it.
async fn order_is_kept_over_switches(release: Release) -> anyhow::Result<()> {
    const KEYS: usize = 3;
    let system = System::start(release, auto()).await?;
    let in_order = ConsumerProperties { order: Order::Queue, ..ConsumerProperties::default() };
    let base = system.consumer_with("base", GrayStatus::Prod, 0, in_order.clone())?;
    system.is_open(false).await?;
    let producer = system.producer();
    let mut count = 0;
    let mut send = async |more: usize| {
        for _ in 0..more {
            let body = format!("{} {count}", count % KEYS);
            let message = Message::new(TOPIC, body);
            let key = (count % KEYS).to_string();
            scope(Context::of(GRAY), producer.send_in_order(message, &key)).await?;
            count += 1;
        }
        anyhow::Ok(count)
    };
    send(100).await?;
    for round in 0..2 {
        let gray = system.consumer_with(&format!("gray-{round}"), GRAY, 0, in_order.clone())?;
        send(50).await?;
        system.is_open(true).await?;
        send(50).await?;
        gray.stop().await;
        send(50).await?;
        system.is_open(false).await?;
    }
    let all = send(20).await?;
    eventually(PATIENCE, async || {
        let handled = system.log.lock().unwrap().len();
        ensure!(handled == all, "{handled} of {all}");
        Ok(())
    })
    .await?;
    let mut last = [None; KEYS];
    let log = system.log.lock().unwrap().clone();
    ensure!(log.iter().any(|handled| handled.by != "base"), "gray has handled nothing");
    for handled in log {
        let (key, number) = handled.body.split_once(' ').context("no key")?;
        let (key, number): (usize, usize) = (key.parse()?, number.parse()?);
        ensure!(last[key] < Some(number), "{number} of {key} after {:?}", last[key]);
        last[key] = Some(number);
    }
    base.stop().await;
    Ok(())
}

macro_rules! on {
    ($module:ident, $release:expr, $($test:ident),*) => {
        mod $module {
            use super::*;

            $(
                #[tokio::test]
                async fn $test() -> anyhow::Result<()> {
                    super::$test($release).await
                }
            )*
        }
    };
    ($($test:ident),* $(,)?) => {
        on!(on_rocketmq_4, Release::Four, $($test),*);
        on!(on_rocketmq_5, Release::Five, $($test),*);
    };
}

on!(
    a_lane_comes_and_goes,
    each_mode_gives_messages_to_whom_it_says,
    retries_stay_with_their_group,
    what_gray_leaves_behind_is_handled_by_base,
    every_kind_of_message_keeps_its_lane,
    order_is_kept_over_switches,
    a_broker_that_does_not_filter_is_no_reason_to_lose_anything,
);
