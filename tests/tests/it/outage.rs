//! A broker that is gone, that hangs up on everybody, and that says nothing: who produces and who consumes
//! goes on where they were, and neither fills its memory nor knocks without end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_config::live;
use gray_mq::rocketmq::{Connection, RocketMq, route};
use gray_mq::{
    Consumer, ConsumerProperties, Delivery, MemoryStore, Message, MessageSettings, Messaging,
    OwnStatus, Producer, Settings,
};
use gray_propagation::{GrayStatus, Lane, MessageCarrier};
use gray_tests::{Release, RocketMq as Server, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

const TOPIC: &str = "orders";
const PATIENCE: Duration = Duration::from_secs(90);

/// How many messages may be on their way at a time.
const AT_ONCE: usize = 16;

/// How long each kind of outage lasts: a minute where it is proved.
fn outage() -> Duration {
    let seconds = std::env::var("GRAYLANE_OUTAGE").ok().and_then(|it| it.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// How much memory this process has, in KiB.
fn memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn messaging() -> Messaging {
    let settings = MessageSettings::of_all(Settings::default(), [Lane::GRAY].into());
    Messaging {
        application: "outage".to_owned(),
        own: OwnStatus::by(|| GrayStatus::Prod),
        settings: live(settings).1,
        carrier: MessageCarrier::default(),
        store: Arc::new(MemoryStore::default()),
    }
}

/// Produces without end; what was acknowledged is noted.
async fn produce(producer: Producer<RocketMq>, acknowledged: Arc<Mutex<BTreeSet<String>>>) {
    let mut sending = JoinSet::new();
    for number in 0_u64.. {
        let (producer, acknowledged) = (producer.clone(), Arc::clone(&acknowledged));
        sending.spawn(async move {
            let body = number.to_string();
            if producer.send(Message::new(TOPIC, body.clone())).await.is_ok() {
                acknowledged.lock().unwrap().insert(body);
            }
        });
        if sending.len() >= AT_ONCE {
            sending.join_next().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Takes the broker's place: counts who knocks, and hangs up on them.
async fn hang_up(address: &str) -> anyhow::Result<usize> {
    let listener = eventually(PATIENCE, async || Ok(TcpListener::bind(address).await?)).await?;
    let mut knocks = 0;
    let knock = async {
        while listener.accept().await.is_ok() {
            knocks += 1;
        }
    };
    // It ends by this only.
    let _ = tokio::time::timeout(outage(), knock).await;
    Ok(knocks)
}

/// The broker is there, and says nothing; the name server does not notice. Returns how many connections
/// were made to it meanwhile.
async fn say_nothing(server: &Server, address: &str) -> anyhow::Result<usize> {
    server.pause(true)?;
    let before = connections(address)?;
    let (mut all, began) = (BTreeSet::new(), Instant::now());
    while began.elapsed() < outage() {
        all.append(&mut connections(address)?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.pause(false)?;
    Ok(all.difference(&before).count())
}

/// The connections of this machine to an address, by their own ports.
fn connections(to: &str) -> anyhow::Result<BTreeSet<u16>> {
    let port: u16 = to.rsplit(':').next().context("no port")?.parse()?;
    let text = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let port_of = |field: &str| u16::from_str_radix(field.rsplit(':').next()?, 16).ok();
    let own = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (own, other) = (port_of(fields.next()?)?, port_of(fields.next()?)?);
        (other == port).then_some(own)
    };
    Ok(text.iter().flatten().flat_map(|text| text.lines()).filter_map(own).collect())
}

/// Creates the topic, and returns where the broker is.
async fn set_up(server: &Server) -> anyhow::Result<String> {
    let admin = RocketMq::new(vec![server.names()]);
    let names = Connection::open(&server.names(), PATIENCE).await?;
    eventually(PATIENCE, async || {
        ensure!(!admin.route("TBW102").await?.brokers.is_empty(), "no broker");
        let broker = admin.brokers().into_iter().next().context("no broker")?;
        admin.broker(&broker).await?.create_topic(TOPIC, 4).await?;
        let route = route(&names, TOPIC).await?.context("no topic")?;
        Ok(route.brokers.into_values().next().context("no broker")?.0)
    })
    .await
}

/// A process that produces, and one that consumes; each with connections of its own.
struct Traffic {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    handled: Arc<Mutex<BTreeSet<String>>>,
    consumer: Consumer,
    producing: tokio::task::JoinHandle<()>,
}

impl Traffic {
    fn start(server: &Server) -> anyhow::Result<Self> {
        let cluster = || Arc::new(RocketMq::new(vec![server.names()]));
        let (acknowledged, handled) = (Arc::default(), Arc::<Mutex<BTreeSet<String>>>::default());
        let log = Arc::clone(&handled);
        let properties = ConsumerProperties {
            group: "orders-svc".to_owned(),
            topics: vec![TOPIC.to_owned()],
            ..ConsumerProperties::default()
        };
        let note = move |delivery: Delivery| {
            let body = String::from_utf8_lossy(&delivery.message.body).into_owned();
            log.lock().unwrap().insert(body);
            async { Ok(()) }
        };
        let consumer = Consumer::start(cluster(), messaging(), properties, note)?;
        let producer = Producer::new(cluster(), messaging(), "producers");
        let producing = tokio::spawn(produce(producer, Arc::clone(&acknowledged)));
        Ok(Self { acknowledged, handled, consumer, producing })
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more have been acknowledged; returns how long that took.
    async fn more(&self, count: usize) -> anyhow::Result<Duration> {
        let (began, before) = (Instant::now(), self.acknowledged());
        eventually(PATIENCE, async || {
            ensure!(self.acknowledged() >= before + count, "nothing is produced");
            Ok(())
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Ends, when everything that was acknowledged has been handled; returns how much that was.
    async fn end(self) -> anyhow::Result<usize> {
        self.producing.abort();
        // It was told to end.
        let _ = self.producing.await;
        let (acknowledged, handled) = (self.acknowledged, self.handled);
        eventually(PATIENCE, async || {
            let all = acknowledged.lock().unwrap().clone();
            let lost = all.difference(&handled.lock().unwrap()).count();
            ensure!(lost == 0, "{lost} of {} are still to come", all.len());
            Ok(())
        })
        .await?;
        self.consumer.stop().await;
        let count = acknowledged.lock().unwrap().len();
        Ok(count)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_costs_no_message() -> anyhow::Result<()> {
    let mut server = Server::start(Release::Five)?;
    let address = set_up(&server).await?;
    let traffic = Traffic::start(&server)?;
    traffic.more(200).await?;
    let (before, sent) = (memory()?, traffic.acknowledged());
    let silent = say_nothing(&server, &address).await?;
    let while_silent = traffic.acknowledged() - sent;
    // A name server that says that the broker is gone leaves nobody a reason to knock.
    server.pause_names(true)?;
    server.kill();
    let hung_up = hang_up(&address).await?;
    server.pause_names(false)?;
    tokio::time::sleep(outage()).await;
    let grown = memory()?.saturating_sub(before);
    let during = traffic.acknowledged() - sent;
    server.run()?;
    let again = traffic.more(200).await?;
    let count = traffic.end().await?;
    let text = format!(
        "a broker (RocketMQ 5) that says nothing for {:?}, then hangs up on everybody as long, then is \
         away as long; one process that produces, one that consumes four queues\n\
         acknowledged: {count}, lost: 0; acknowledged while it said nothing: {while_silent}, until it was \
         back: {during}\n\
         connections in that time: {silent} where it says nothing, {hung_up} where it hangs up\n\
         growth of both together meanwhile: {grown} KiB\n\
         200 messages produced {again:.1?} after it was back\n",
        outage(),
    );
    // One a second of each, and one that was due already.
    let most = usize::try_from(2 * (outage().as_secs() + 1))?;
    ensure!(silent <= most && hung_up <= most, "{text}");
    ensure!(hung_up > 0, "nobody has knocked: {text}");
    if std::env::var_os("GRAYLANE_OUTAGE").is_some() {
        ensure!(silent > 0, "nobody has knocked at the silent one: {text}");
        ensure!(grown < 64 << 10, "{text}");
        let report = std::env::var("GRAYLANE_REPORT").context("GRAYLANE_REPORT")?;
        std::fs::write(report, text)?;
    }
    Ok(())
}
