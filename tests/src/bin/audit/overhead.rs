//! What the wrapped producer and consumer cost beside the bare client, in turns that alternate.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt};
use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    Consumer, ConsumerProperties, Filter, Message, MessageBroker, MessageSink, Messaging, Producer,
    PullRequest, QueueKey,
};
use gray_propagation::{Context as Lanes, GrayStatus, Lane, scope};
use gray_tests::{Release, RocketMq as Server, eventually};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::produce::messaging;

/// Messages that are produced in a turn, and consumed in one.
const MESSAGES: u64 = 20_000;
const BACKLOG: u64 = 200_000;

/// Turns of each kind.
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

/// When something began, and what CPU time this process had had by then.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: Duration,
}

impl Mark {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = Duration::from_secs(cpu.tv_sec.try_into().unwrap_or_default());
        let nanos = Duration::from_nanos(cpu.tv_nsec.try_into().unwrap_or_default());
        Self { at: Instant::now(), cpu: seconds + nanos }
    }

    /// What so many messages have cost since, each.
    #[allow(clippy::cast_precision_loss, reason = "a figure")]
    fn each(self, count: u64) -> Cost {
        let now = Self::now();
        let each = |all: Duration| all.as_secs_f64() * 1e6 / count as f64;
        Cost { wall: each(now.at - self.at), cpu: each(now.cpu.saturating_sub(self.cpu)) }
    }
}

/// Counts messages that were handled, and measures from the first of them to the last: neither how a
/// consumer starts nor how it stops.
#[derive(Default)]
struct Seen {
    count: AtomicU64,
    first: OnceLock<Mark>,
    cost: OnceLock<Cost>,
}

impl Seen {
    fn handled(&self) {
        let first = *self.first.get_or_init(Mark::now);
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == BACKLOG {
            let _ = self.cost.set(first.each(BACKLOG));
        }
    }

    async fn cost(&self) -> anyhow::Result<Cost> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(cost) = self.cost.get() {
                return Ok(*cost);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::bail!("{:?} of {BACKLOG} messages came", self.count)
    }
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

    /// Produces what is consumed in every turn, by another group each time.
    async fn produce_backlog(&self, topic: &str) -> anyhow::Result<()> {
        const BATCH: u64 = 100;
        for number in 0..BACKLOG / BATCH {
            let message = Message::new(topic, BODY).with("gray", "GRAY");
            let batch = vec![message; usize::try_from(BATCH)?];
            let queue = self.queues.iter().cycle().nth(usize::try_from(number % 4)?);
            self.cluster.send_batch("bare", &batch, queue.context("no queue")?).await?;
        }
        Ok(())
    }

    /// Reads every queue to its end as an application does that uses the client alone: each message is
    /// handled in a task of its own, and what was pulled is committed when all of it has been.
    async fn consume_bare(&self, topic: &str, group: &str) -> anyhow::Result<Cost> {
        let seen = Arc::new(Seen::default());
        let read = self.queues.iter().map(|queue| {
            let (cluster, queue) = (Arc::clone(&self.cluster), queue.clone());
            let (topic, group) = (topic.to_owned(), group.to_owned());
            tokio::spawn(read_bare(cluster, topic, group, queue, Arc::clone(&seen)))
        });
        for reading in read.collect::<Vec<_>>() {
            reading.await??;
        }
        seen.cost().await
    }

    async fn consume_wrapped(&self, topic: &str, group: &str) -> anyhow::Result<Cost> {
        let seen = Arc::new(Seen::default());
        let counted = Arc::clone(&seen);
        let properties = ConsumerProperties {
            group: group.to_owned(),
            topics: vec![topic.to_owned()],
            // As many as the bare client handles at a time.
            concurrency: 4 * 32,
            ..ConsumerProperties::default()
        };
        let (cluster, messaging) = (Arc::clone(&self.cluster), self.messaging.clone());
        let consumer = Consumer::start(cluster, messaging, properties, move |_| {
            counted.handled();
            async { Ok(()) }
        })?;
        let cost = seen.cost().await;
        consumer.stop().await;
        cost
    }
}

async fn read_bare(
    cluster: Arc<RocketMq>,
    topic: String,
    group: String,
    queue: QueueKey,
    seen: Arc<Seen>,
) -> anyhow::Result<()> {
    let (mut offset, mut end, filter) = (0, 1, Filter::default());
    while offset < end {
        let request = PullRequest {
            group: &group,
            topic: &topic,
            queue: &queue,
            offset,
            count: 32,
            wait: Duration::from_millis(100),
            filter: &filter,
        };
        let pulled = cluster.pull(&request).await?;
        let mut handling = JoinSet::new();
        for message in pulled.messages {
            let seen = Arc::clone(&seen);
            handling.spawn(async move {
                seen.handled();
                drop(message);
            });
        }
        while handling.join_next().await.is_some() {}
        (offset, end) = (pulled.next, pulled.end);
        cluster.commit(&group, &topic, &queue, offset).await?;
    }
    Ok(())
}

/// Measures, and says what was found.
pub(crate) async fn run(report: Option<PathBuf>) -> anyhow::Result<()> {
    let server = Server::start(Release::Five)?;
    let cluster = Arc::new(RocketMq::new(vec![server.names()]));
    eventually(PATIENCE, async || {
        ensure!(!cluster.route("TBW102").await?.brokers.is_empty(), "no broker");
        Ok(())
    })
    .await?;
    let broker = cluster.brokers().into_iter().next().context("no broker")?;
    let queues = (0..4).map(|number| QueueKey { broker: broker.clone(), number }).collect();
    let messaging = messaging("overhead");
    let bench = Bench { cluster, messaging, queues };
    let (mut produced, mut consumed) = (Vec::new(), Vec::new());
    bench.create("backlog").await?;
    bench.produce_backlog("backlog").await?;
    // The first turn warms the broker up.
    for turn in 0..=TURNS {
        let (bare, wrapped) = (format!("bare-{turn}"), format!("wrapped-{turn}"));
        bench.create(&bare).await?;
        bench.create(&wrapped).await?;
        // Whoever comes second finds another broker: each comes second as often.
        let (made, used) = if turn % 2 == 0 {
            let bare_made = produced_by(bench.produce_bare(&bare)).await?;
            let made = (bare_made, produced_by(bench.produce_wrapped(&wrapped)).await?);
            let bare_used = bench.consume_bare("backlog", &bare).await?;
            (made, (bare_used, bench.consume_wrapped("backlog", &wrapped).await?))
        } else {
            let wrapped_made = produced_by(bench.produce_wrapped(&wrapped)).await?;
            let made = (produced_by(bench.produce_bare(&bare)).await?, wrapped_made);
            let wrapped_used = bench.consume_wrapped("backlog", &wrapped).await?;
            (made, (bench.consume_bare("backlog", &bare).await?, wrapped_used))
        };
        produced.push(made);
        consumed.push(used);
        println!("turn {turn} of {TURNS}: {:.1} us and {:.1} us", used.0.cpu, used.1.cpu);
    }
    let text = format!(
        "{TURNS} turns of {MESSAGES} messages produced and {BACKLOG} consumed, bare and wrapped in turns, \
         RocketMQ 5, CPU of the client's process\n{}{}",
        show("producing, 32 at once", &produced.split_off(1)),
        show("consuming, 4 queues, each message handled in a task", &consumed.split_off(1)),
    );
    println!("{text}");
    report.map_or(Ok(()), |path| Ok(std::fs::write(path, text)?))
}

async fn produced_by(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Cost> {
    let began = Mark::now();
    run.await?;
    Ok(began.each(MESSAGES))
}

fn show(what: &str, turns: &[(Cost, Cost)]) -> String {
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let of = |part: fn(&(Cost, Cost)) -> f64| median(turns.iter().map(part).collect());
    format!(
        "{what}: bare {:.1} us and {:.1} us of CPU a message, wrapped {:.1} us and {:.1} us; \
         wrapped / bare: {:.3} of the time, {:.3} of the CPU\n",
        of(|it| it.0.wall),
        of(|it| it.0.cpu),
        of(|it| it.1.wall),
        of(|it| it.1.cpu),
        of(|it| it.1.wall / it.0.wall),
        of(|it| it.1.cpu / it.0.cpu),
    )
}
