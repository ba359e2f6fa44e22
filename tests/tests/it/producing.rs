//! What producers say about messages while the rules change: each message is said of by one reading of the
//! documents (M8).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_mq::rocketmq::RocketMq;
use gray_mq::{Filter, MemoryStore, Message, MessageBroker, Messaging, Producer, PullRequest};
use gray_propagation::{GrayStatus, Lane};
use gray_starter::{Starter, StarterProperties};
use gray_tests::{Release, RocketMq as Server, eventually};

const TOPIC: &str = "orders";
const FLIPS: usize = 60;

/// By the first document this process is gray, and messages are tagged; by the second it is blue, and none
/// is. A message that says blue was sent by half of each.
const DOCUMENTS: [&str; 2] = [
    "base: {version: V1}
lanes: [{name: gray, version: V2}, {name: blue, version: V3}]
messages: {consumeMode: AUTO}
",
    "base: {version: V1}
lanes: [{name: gray, version: V3}, {name: blue, version: V2}]
messages: {consumeMode: \"OFF\"}
",
];

/// Puts a document into the place of the one before, at once.
fn put(folder: &Path, document: &str) -> anyhow::Result<()> {
    let (new, place) = (folder.join("new"), folder.join("rules.yaml"));
    std::fs::write(&new, document)?;
    Ok(std::fs::rename(&new, &place)?)
}

/// Sends messages while the rules flip; returns how many.
async fn send_through_flips(
    folder: &Path,
    starter: &Starter,
    producer: &Producer<RocketMq>,
) -> anyhow::Result<usize> {
    let flips = async {
        for number in 1..=FLIPS {
            put(folder, DOCUMENTS[number % 2])?;
            let gray = number % 2 == 0;
            eventually(Duration::from_secs(20), async || {
                ensure!((starter.own_status() == GrayStatus::Gray(Lane::GRAY)) == gray, "not yet");
                Ok(())
            })
            .await?;
        }
        anyhow::Ok(())
    };
    let mut flips = std::pin::pin!(flips);
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            flipped = &mut flips => return flipped.map(|()| sent),
            receipt = producer.send(Message::new(TOPIC, "m")) => {
                receipt?;
                sent += 1;
            }
        }
    }
}

/// Reads the lanes of all messages of a topic.
async fn lanes(cluster: &RocketMq, topic: &str) -> anyhow::Result<Vec<Option<String>>> {
    let mut lanes = Vec::new();
    for queue in &cluster.queues(topic).await? {
        let (mut offset, end) = (0, cluster.end(topic, queue).await?);
        while offset < end {
            let pulled = cluster
                .pull(&PullRequest {
                    group: "readers",
                    topic,
                    queue,
                    offset,
                    count: 32,
                    wait: Duration::from_millis(100),
                    filter: &Filter::default(),
                })
                .await?;
            let lane = |message: &gray_mq::ReceivedMessage| message.properties.get("gray").cloned();
            lanes.extend(pulled.messages.iter().map(lane));
            offset = pulled.next;
        }
    }
    Ok(lanes)
}

/// A copy with the version V2, by the first of the documents.
fn starter(folder: &Path) -> anyhow::Result<Starter> {
    std::fs::write(folder.join("registry.yaml"), "services: {}\n")?;
    put(folder, DOCUMENTS[0])?;
    let mut properties = StarterProperties::of("order-app");
    properties.version = Some("V2".to_owned());
    properties.registry = Some(folder.join("registry.yaml"));
    properties.rules = vec![folder.join("rules.yaml")];
    Ok(Starter::start(properties)?)
}

/// What cannot be read of messages stays as it was; the lane of a process follows what can.
#[tokio::test]
async fn a_wrong_word_about_messages_keeps_nobody_in_its_lane() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let starter = starter(folder.path())?;
    let messaging = Messaging::of(&starter, Arc::new(MemoryStore::default())).await;
    ensure!(
        messaging.own.current() == GrayStatus::Gray(Lane::GRAY),
        "{:?}",
        messaging.own.current()
    );
    // Gray has become base, and a word is wrong.
    let promoted = "base: {version: V2}\nlanes: [{name: gray, version: V3}]\n";
    put(folder.path(), &format!("{promoted}messages: {{consumeMode: AUT0}}\n"))?;
    eventually(Duration::from_secs(20), async || {
        let own = messaging.own.current();
        ensure!(own == GrayStatus::Prod, "{own:?}");
        Ok(())
    })
    .await
}

mod on_rocketmq_5 {
    use super::*;

    #[tokio::test]
    async fn each_message_is_sent_by_one_reading_of_the_documents() -> anyhow::Result<()> {
        let server = Server::start(Release::Five)?;
        let cluster = Arc::new(RocketMq::new(vec![server.names()]));
        eventually(Duration::from_secs(20), async || {
            ensure!(!cluster.route("TBW102").await?.brokers.is_empty(), "no broker");
            let broker = cluster.brokers().into_iter().next().context("no broker")?;
            Ok(cluster.broker(&broker).await?.create_topic(TOPIC, 2).await?)
        })
        .await?;
        let folder = tempfile::tempdir()?;
        let starter = starter(folder.path())?;
        let messaging = Messaging::of(&starter, Arc::new(MemoryStore::default())).await;
        let producer = Producer::new(Arc::clone(&cluster), messaging, "producers");
        eventually(Duration::from_secs(20), async || {
            producer.send(Message::new(TOPIC, "first")).await?;
            Ok(())
        })
        .await?;
        let sent = send_through_flips(folder.path(), &starter, &producer).await?;
        let lanes = lanes(&cluster, TOPIC).await?;
        // One may have been on its way at the end.
        ensure!(lanes.len() > sent && sent > FLIPS, "{} of {sent}", lanes.len());
        let count = |lane: Option<&str>| lanes.iter().filter(|it| it.as_deref() == lane).count();
        let (gray, untagged) = (count(Some("GRAY")), count(None));
        ensure!(gray > 0 && untagged > 0, "{gray} gray, {untagged} untagged: nothing has flipped");
        ensure!(gray + untagged == lanes.len(), "of {}: {gray}, {untagged}", lanes.len());
        Ok(())
    }
}
