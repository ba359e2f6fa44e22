//! The lane of a request, from HTTP into a message, out of it into HTTP, and into the next message: many at
//! a time, of all lanes, on one worker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::Path as Segment;
use axum::routing::{get, post};
use futures_util::stream::{self, StreamExt};
use gray_mq::rocketmq::RocketMq;
use gray_mq::{Consumer, ConsumerProperties, Delivery, MemoryStore, Message, Messaging, Producer};
use gray_starter::{GrayClient, Starter, StarterProperties, current_status};
use gray_tests::{Release, RocketMq as Server, eventually};
use tokio::net::TcpListener;

/// What is produced by requests, and by the handlers of those messages.
const TOPICS: [&str; 2] = ["orders", "invoices"];

/// What requests say in the header `gray`, and what that means to everything that follows.
const LANES: [(Option<&str>, &str); 4] =
    [(Some("GRAY"), "GRAY"), (Some("blue"), "blue"), (Some("PROD"), "PROD"), (None, "PROD")];

const PATIENCE: Duration = Duration::from_secs(90);

/// How many requests are under way at a time.
const AT_ONCE: usize = 64;

/// How many requests are made.
fn traces() -> usize {
    let count = std::env::var("GRAYLANE_TRACES").ok().and_then(|it| it.parse().ok());
    count.unwrap_or(1_000)
}

/// The lanes in which each request was seen, at each place.
type Seen = Arc<Mutex<BTreeMap<(usize, &'static str), Vec<String>>>>;

fn note(seen: &Seen, number: usize, place: &'static str) {
    let lane = current_status().map_or_else(|| "none".to_owned(), |status| status.to_string());
    seen.lock().unwrap().entry((number, place)).or_default().push(lane);
}

fn starter(folder: &Path, service: &str) -> anyhow::Result<Starter> {
    let mut properties = StarterProperties::of(service);
    properties.version = Some("V1".to_owned());
    properties.registry = Some(folder.join("registry.yaml"));
    properties.rules = vec![folder.join("rules.yaml")];
    Ok(Starter::start(properties)?)
}

/// Serves in the background, for as long as the test runs.
async fn serve(router: Router, starter: &Starter) -> anyhow::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let router = router.layer(starter.layer());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(addr)
}

/// Handles a message: one of a request calls the next service and produces another.
async fn handle(
    delivery: Delivery,
    seen: Seen,
    client: GrayClient,
    producer: Producer<RocketMq>,
) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&delivery.message.body).into_owned();
    let number = text.parse()?;
    if delivery.message.topic == TOPICS[1] {
        note(&seen, number, "the message of a message");
        return Ok(());
    }
    note(&seen, number, "the message");
    let answer = client.get(&format!("http://b/b/{number}")).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    producer.send(Message::new(TOPICS[1], text)).await?;
    Ok(())
}

async fn create_topics(server: &Server) -> anyhow::Result<()> {
    let admin = RocketMq::new(vec![server.names()]);
    eventually(PATIENCE, async || {
        ensure!(!admin.route("TBW102").await?.brokers.is_empty(), "no broker");
        let broker = admin.brokers().into_iter().next().context("no broker")?;
        for topic in TOPICS {
            admin.broker(&broker).await?.create_topic(topic, 4).await?;
            ensure!(!admin.route(topic).await?.brokers.is_empty(), "no topic");
        }
        Ok(())
    })
    .await
}

async fn ask(url: String, lane: Option<&str>, client: &reqwest::Client) -> anyhow::Result<()> {
    let request = client.post(url);
    let request = match lane {
        Some(lane) => request.header("gray", lane),
        None => request,
    };
    request.send().await?.error_for_status()?;
    Ok(())
}

#[tokio::test]
async fn every_trace_keeps_its_lane() -> anyhow::Result<()> {
    let server = Server::start(Release::Five)?;
    create_topics(&server).await?;
    let (folder, seen) = (tempfile::tempdir()?, Seen::default());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write(
        "rules.yaml",
        "base: {version: V1}\nlanes: [{name: gray, version: V2}, {name: blue, version: V3}]\n",
    )?;
    write("registry.yaml", "services: {}\n")?;
    let (a, b) = (starter(folder.path(), "a")?, starter(folder.path(), "b")?);

    let at_b = Arc::clone(&seen);
    let called =
        async move |Segment(number): Segment<usize>| note(&at_b, number, "the service called");
    let addr = serve(Router::new().route("/b/{number}", get(called)), &b).await?;
    write(
        "registry.yaml",
        &format!("services: {{b: [{{address: '{addr}', metadata: {{version: V1}}}}]}}\n"),
    )?;

    let messaging = Messaging::of(&a, Arc::new(MemoryStore::default())).await;
    let cluster = Arc::new(RocketMq::new(vec![server.names()]));
    let producer = Producer::new(Arc::clone(&cluster), messaging.clone(), "a-producers");
    let properties = ConsumerProperties {
        group: "a".to_owned(),
        topics: TOPICS.map(str::to_owned).to_vec(),
        ..ConsumerProperties::default()
    };
    let (at_a, client, sink) = (Arc::clone(&seen), a.client(), producer.clone());
    let consumer = Consumer::start(cluster, messaging, properties, move |delivery| {
        let handled = handle(delivery, Arc::clone(&at_a), client.clone(), sink.clone());
        async { Ok(handled.await?) }
    })?;
    let produce = async move |Segment(number): Segment<usize>| {
        producer.send(Message::new(TOPICS[0], number.to_string())).await.unwrap();
    };
    let addr = serve(Router::new().route("/a/{number}", post(produce)), &a).await?;

    let client = reqwest::Client::builder().no_proxy().build()?;
    let asked: Vec<anyhow::Result<()>> = stream::iter(0..traces())
        .map(|number| {
            ask(format!("http://{addr}/a/{number}"), LANES[number % LANES.len()].0, &client)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    asked.into_iter().collect::<anyhow::Result<Vec<()>>>()?;
    let places = 3;
    eventually(PATIENCE, async || {
        let count = seen.lock().unwrap().len();
        ensure!(count == places * traces(), "{count} of {}", places * traces());
        Ok(())
    })
    .await?;
    consumer.stop().await;
    for ((number, place), lanes) in &*seen.lock().unwrap() {
        let expected = LANES[number % LANES.len()].1;
        ensure!(lanes.iter().all(|lane| lane == expected), "{number} at {place}: {lanes:?}");
    }
    report(&seen.lock().unwrap())
}

fn report(seen: &BTreeMap<(usize, &'static str), Vec<String>>) -> anyhow::Result<()> {
    let Some(path) = std::env::var_os("GRAYLANE_REPORT") else { return Ok(()) };
    let twice = seen.values().filter(|lanes| lanes.len() > 1).count();
    let text = format!(
        "{} requests in three lanes or none, {AT_ONCE} at a time: HTTP -> message on RocketMQ 5 -> HTTP, and \
         -> another message\nseen in a lane other than the request's, at any of the three places: 0\nseen \
         more than once: {twice}\n",
        traces(),
    );
    Ok(std::fs::write(path, text)?)
}
