use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gray_config::live;
use gray_mq::rocketmq::RocketMq;
use gray_mq::{MemoryStore, Message, MessageSettings, Messaging, OwnStatus, Producer, Settings};
use gray_propagation::{Context, GrayStatus, Lane, MessageCarrier, scope};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::events::now;

/// How many messages may be on their way.
const AT_ONCE: usize = 64;

/// What an application of base says of itself that produces, in two lanes.
pub(crate) fn messaging(application: &str) -> Messaging {
    let (_, settings) = live(MessageSettings::of_all(Settings::default(), [Lane::GRAY].into()));
    Messaging {
        application: application.to_owned(),
        own: OwnStatus::by(|| GrayStatus::Prod),
        settings,
        carrier: MessageCarrier::default(),
        store: Arc::new(MemoryStore::default()),
    }
}

/// Whether a message is produced in the lane.
pub(crate) const fn is_of_lane(id: u64) -> bool {
    !id.is_multiple_of(2)
}

/// Produces messages in both lanes at a rate, and logs those that the broker has acknowledged.
pub(crate) struct Produce {
    producer: Producer<RocketMq>,
    topic: String,
    log: File,
    /// How many were acknowledged.
    pub(crate) acknowledged: AtomicU64,
    permits: Arc<Semaphore>,
}

impl Produce {
    pub(crate) fn new(names: &str, topic: &str, log: &Path) -> anyhow::Result<Self> {
        let messaging = messaging("audit");
        let broker = Arc::new(RocketMq::new(vec![names.to_owned()]));
        Ok(Self {
            producer: Producer::new(broker, messaging, "audit-producers"),
            topic: topic.to_owned(),
            log: File::create(log)?,
            acknowledged: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Produces until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, rate: u64) {
        let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut sending = JoinSet::new();
        for id in 0_u64.. {
            tick.tick().await;
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            let this = Arc::clone(&self);
            sending.spawn(async move {
                this.send(id).await;
                drop(permit);
            });
            while sending.try_join_next().is_some() {}
        }
    }

    async fn send(&self, id: u64) {
        let lane = if is_of_lane(id) { GrayStatus::Gray(Lane::GRAY) } else { GrayStatus::Prod };
        // Not in step with the lanes.
        let fails = if id % 10 < 2 && id % 20 < 10 { " !" } else { " ." };
        let message = Message::new(self.topic.as_str(), format!("{id}{fails}"));
        let begun = now();
        // To one queue only, so that nothing is sent twice.
        let key = id.to_string();
        let sent = scope(Context::of(lane), self.producer.send_in_order(message, &key)).await;
        // Whether a message is there that was not acknowledged nobody knows; it is not counted.
        if let Ok(receipt) = sent {
            let word = lane.lane().map_or("-", |_| "gray");
            let (queue, offset) = (receipt.queue, receipt.offset);
            let text = format!("{begun}\t{id}\t{word}\t{queue}\t{offset}\n");
            let _ = (&self.log).write_all(text.as_bytes());
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}
