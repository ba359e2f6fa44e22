use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use gray_config::{HumanDuration, live};
use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    Consumer, ConsumerProperties, Delivery, HandlerError, MessageSettings, Messaging, Order,
    OwnStatus, Settings,
};
use gray_propagation::{GrayStatus, Lane, MessageCarrier};

use crate::store::open;
use crate::system::LEASE;

/// A consumer of its own process.
#[derive(Debug, Args)]
pub(crate) struct Member {
    /// The name server.
    #[arg(long)]
    names: String,
    /// Where the tables are.
    #[arg(long)]
    store: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    topic: String,
    /// What it is known by to brokers.
    #[arg(long)]
    client: String,
    /// Whether it is in the lane.
    #[arg(long)]
    gray: bool,
    /// The file that says what was handled.
    #[arg(long)]
    log: PathBuf,
    /// How long it may be missed before it is gone.
    #[arg(long)]
    lease: Option<HumanDuration>,
    /// Whether the messages of a queue are handled in their order.
    #[arg(long)]
    in_order: bool,
    /// How often it reads the table.
    #[arg(long, default_value = "200ms")]
    poll: HumanDuration,
}

impl Member {
    /// Consumes until it is told to stop.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
        // Fail points are in the environment.
        let _points = fail::FailScenario::setup();
        let (_publisher, settings) =
            live(MessageSettings::of_all(Settings::default(), [Lane::GRAY].into()));
        let own = if self.gray { GrayStatus::Gray(Lane::GRAY) } else { GrayStatus::Prod };
        let messaging = Messaging {
            application: "audit".to_owned(),
            own: OwnStatus::by(move || own),
            settings,
            carrier: MessageCarrier::default(),
            store: open(&self.store).await?,
        };
        let properties = ConsumerProperties {
            group: self.group,
            client: Some(self.client.clone()),
            topics: vec![self.topic],
            poll: self.poll.0,
            lease: self.lease.map_or(LEASE, |lease| lease.0),
            drain: Duration::from_secs(20),
            order: if self.in_order { Order::Queue } else { Order::default() },
            ..ConsumerProperties::default()
        };
        let log = Arc::new(Log::open(&self.log, self.client)?);
        let broker = Arc::new(RocketMq::new(vec![self.names]));
        let handler = move |delivery| {
            let log = Arc::clone(&log);
            async move {
                if self.in_order {
                    handle_in_order(&log, &delivery)
                } else {
                    handle(&log, &delivery)
                }
            }
        };
        let consumer = Consumer::start(broker, messaging, properties, handler)?;
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        stop.recv().await;
        consumer.stop().await;
        Ok(())
    }
}

/// Says what was handled, before the broker hears of it: one write for each message, behind all
/// others.
struct Log {
    file: File,
    client: String,
    /// What has failed here before.
    failed: Mutex<HashSet<u64>>,
}

impl Log {
    fn open(path: &Path, client: String) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, client, failed: Mutex::default() })
    }

    fn write(&self, delivery: &Delivery, fails: bool) -> std::io::Result<()> {
        let message = &delivery.message;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let source = match (fails, message.properties.contains_key("RETRY_TOPIC")) {
            (true, _) => "failed",
            (false, true) => "retry",
            (false, false) => "topic",
        };
        let (client, group) = (&self.client, &delivery.group);
        let (queue, offset) = (&message.queue, message.offset);
        let id = String::from_utf8_lossy(&message.body);
        let id = id.split(' ').next().unwrap_or_default();
        let line = format!("{now}\t{client}\t{group}\t{source}\t{queue}\t{offset}\t{id}\n");
        (&self.file).write_all(line.as_bytes())
    }
}

/// One message in ten fails at first, which is noted too, and comes round by way of the retries.
fn handle(log: &Log, delivery: &Delivery) -> Result<(), HandlerError> {
    let fails = delivery.message.body.last() == Some(&b'!');
    let fails = fails && delivery.message.attempts == 0;
    log.write(delivery, fails)?;
    if fails { Err("it comes again".into()) } else { Ok(()) }
}

/// One message in five hundred fails at first, and is tried again while all behind it wait.
fn handle_in_order(log: &Log, delivery: &Delivery) -> Result<(), HandlerError> {
    let text = String::from_utf8_lossy(&delivery.message.body);
    let id: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    let fails =
        id % 500 == 1 && log.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    log.write(delivery, fails)?;
    if fails { Err("once more".into()) } else { Ok(()) }
}
