//! What the wrapped producer and consumer cost beside the bare client, in turns that alternate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt};
use gray_config::live;
use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    Consumer, ConsumerProperties, Filter, MemoryStore, Message, MessageBroker, MessageSettings,
    MessageSink, Messaging, OwnStatus, Producer, PullRequest, QueueKey, Settings,
};
use gray_propagation::{Context as Lanes, GrayStatus, Lane, MessageCarrier, scope};
use gray_tests::{Release, RocketMq as Server, eventually};
use tokio::time::Instant;

/// Messages of a turn, and turns of each kind.
const MESSAGES: u64 = 10_000;
const TURNS: usize = 10;

const BODY: &str = "a message of some thirty-two byte";

/// How many messages are on their way at a time.
const AT_ONCE: usize = 32;

const PATIENCE: Duration = Duration::from_secs(90);

/// What a turn took, for one message.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

struct Bench {
    cluster: Arc<RocketMq>,
    messaging: Messaging,
    queues: Vec<QueueKey>,
}

/// The CPU time that this process has had, in microseconds.
fn cpu() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<f64>().ok());
    let all = ticks(11).zip(ticks(12)).context("no times in /proc/self/stat")?;
    // A hundred ticks a second.
    Ok((all.0 + all.1) * 10_000.0)
}

async fn measured(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Cost> {
    let (began, before) = (Instant::now(), cpu()?);
    run.await?;
    #[allow(clippy::cast_precision_loss, reason = "a figure")]
    let count = MESSAGES as f64;
    let wall = began.elapsed().as_secs_f64() * 1e6 / count;
    Ok(Cost { wall, cpu: (cpu()? - before) / count })
}

impl Bench {
    async fn create(&self, topic: &str) -> anyhow::Result<()> {
        for name in self.cluster.brokers() {
            self.cluster.broker(&name).await?.create_topic(topic, 4).await?;
        }
        eventually(PATIENCE, async || {
            ensure!(!self.cluster.queues(topic).await?.is_empty(), "no topic yet");
            Ok(())
        })
        .await
    }

    async fn produce_bare(&self, topic: &str) -> anyhow::Result<()> {
        let send = async |number: u64| {
            let queue = self.queues.iter().cycle().nth(usize::try_from(number % 4)?);
            let message = Message::new(topic, BODY).with("gray", "GRAY");
            self.cluster.send("bare", &message, queue.context("no queue")?).await?;
            anyhow::Ok(())
        };
        let mut all = stream::iter(0..MESSAGES).map(send).buffer_unordered(AT_ONCE);
        while let Some(sent) = all.next().await {
            sent?;
        }
        Ok(())
    }

    async fn produce_wrapped(&self, topic: &str) -> anyhow::Result<()> {
        let producer = Producer::new(Arc::clone(&self.cluster), self.messaging.clone(), "wrapped");
        let send = async |_| {
            producer.send(Message::new(topic, BODY)).await?;
            anyhow::Ok(())
        };
        let all = async {
            let mut all = stream::iter(0..MESSAGES).map(send).buffer_unordered(AT_ONCE);
            while let Some(sent) = all.next().await {
                sent?;
            }
            anyhow::Ok(())
        };
        scope(Lanes::of(GrayStatus::Gray(Lane::GRAY)), all).await
    }

    /// Reads every queue to its end, as the reader does, and commits.
    async fn consume_bare(&self, topic: &str) -> anyhow::Result<()> {
        let seen = Arc::new(AtomicU64::new(0));
        let read = self.queues.iter().map(|queue| {
            let (cluster, queue) = (Arc::clone(&self.cluster), queue.clone());
            tokio::spawn(read_bare(cluster, topic.to_owned(), queue, Arc::clone(&seen)))
        });
        for reading in read.collect::<Vec<_>>() {
            reading.await??;
        }
        ensure!(seen.load(Ordering::Relaxed) == MESSAGES, "{seen:?}");
        Ok(())
    }

    /// Starts a consumer before the clock does, and reads what is then produced for it.
    async fn consume_wrapped(&self, topic: &str) -> anyhow::Result<()> {
        let seen = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&seen);
        let properties = ConsumerProperties {
            group: "wrapped".to_owned(),
            topics: vec![topic.to_owned()],
            ..ConsumerProperties::default()
        };
        let (broker, messaging) = (Arc::clone(&self.cluster), self.messaging.clone());
        let consumer = Consumer::start(broker, messaging, properties, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        })?;
        while seen.load(Ordering::Relaxed) < MESSAGES {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        consumer.stop().await;
        Ok(())
    }
}

async fn read_bare(
    cluster: Arc<RocketMq>,
    topic: String,
    queue: QueueKey,
    seen: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let (mut offset, mut end, filter) = (0, 1, Filter::default());
    while offset < end {
        let request = PullRequest {
            group: "bare",
            topic: &topic,
            queue: &queue,
            offset,
            count: 32,
            wait: Duration::from_millis(100),
            filter: &filter,
        };
        let pulled = cluster.pull(&request).await?;
        seen.fetch_add(pulled.messages.len() as u64, Ordering::Relaxed);
        (offset, end) = (pulled.next, pulled.end);
    }
    cluster.commit("bare", &topic, &queue, offset).await?;
    Ok(())
}

/// Measures, and says what was found.
pub(crate) async fn run() -> anyhow::Result<()> {
    let server = Server::start(Release::Five)?;
    let cluster = Arc::new(RocketMq::new(vec![server.names()]));
    eventually(PATIENCE, async || {
        ensure!(!cluster.route("TBW102").await?.brokers.is_empty(), "no broker");
        Ok(())
    })
    .await?;
    let broker = cluster.brokers().into_iter().next().context("no broker")?;
    let queues = (0..4).map(|number| QueueKey { broker: broker.clone(), number }).collect();
    let settings = MessageSettings::of_all(Settings::default(), [Lane::GRAY].into());
    let (_publisher, settings) = live(settings);
    let messaging = Messaging {
        application: "overhead".to_owned(),
        own: OwnStatus::by(|| GrayStatus::Prod),
        settings,
        carrier: MessageCarrier::default(),
        store: Arc::new(MemoryStore::default()),
    };
    let bench = Bench { cluster, messaging, queues };
    let (mut produced, mut consumed) = (Vec::new(), Vec::new());
    // The first turn warms the broker up.
    for turn in 0..=TURNS {
        let (bare, wrapped) = (format!("bare-{turn}"), format!("wrapped-{turn}"));
        bench.create(&bare).await?;
        bench.create(&wrapped).await?;
        let one = measured(bench.produce_bare(&bare)).await?;
        let other = measured(bench.produce_wrapped(&wrapped)).await?;
        produced.push((one, other));
        let one = measured(bench.consume_bare(&bare)).await?;
        let other = measured(bench.consume_wrapped(&wrapped)).await?;
        consumed.push((one, other));
    }
    println!("{TURNS} turns of {MESSAGES} messages each, bare and wrapped in turns, RocketMQ 5");
    show("producing, 32 at once", &produced.split_off(1));
    show("consuming, 4 queues", &consumed.split_off(1));
    Ok(())
}

fn show(what: &str, turns: &[(Cost, Cost)]) {
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let of = |part: fn(&(Cost, Cost)) -> f64| median(turns.iter().map(part).collect());
    println!(
        "{what}: bare {:.1} us and {:.1} us of CPU a message, wrapped {:.1} us and {:.1} us; \
         wrapped / bare: {:.3} of the time, {:.3} of the CPU",
        of(|it| it.0.wall),
        of(|it| it.0.cpu),
        of(|it| it.1.wall),
        of(|it| it.1.cpu),
        of(|it| it.1.wall / it.0.wall),
        of(|it| it.1.cpu / it.0.cpu),
    );
}
