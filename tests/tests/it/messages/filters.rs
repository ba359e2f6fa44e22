//! What the broker leaves out, what the application wants, and what comes of it where that cannot be had.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_mq::{ConsumerProperties, Filter, Filtering, Message, MessageBroker, PullRequest};
use gray_propagation::{Context, GrayStatus, scope};
use gray_tests::{Release, RocketMq as Server, eventually};

use super::auto;
use super::system::{GRAY, GROUP, PATIENCE, System, TOPIC};

/// What an application wants only a part of, it gets that part of in each lane: its SQL may say "or", and
/// its tags are several.
async fn an_applications_own_filter_holds_in_each_lane(release: Release) -> anyhow::Result<()> {
    for filter in [
        Filter::Sql("color = 'red' or color = 'blue'".to_owned()),
        Filter::Tags("red || blue".to_owned()),
    ] {
        let system = System::start(release, auto()).await?;
        let wants =
            || ConsumerProperties { filter: filter.clone(), ..ConsumerProperties::default() };
        let base = system.consumer_with("base", GrayStatus::Prod, 0, wants())?;
        let gray = system.consumer_with("gray", GRAY, 0, wants())?;
        system.is_open(true).await?;
        let producer = system.producer();
        for lane in [GrayStatus::Prod, GRAY] {
            for color in ["red", "green", "blue"] {
                let message = Message::new(TOPIC, format!("{color} {lane}"));
                let message = message.with("color", color).with("TAGS", color);
                scope(Context::of(lane), producer.send(message)).await?;
            }
        }
        let expected = [
            ("base", "red PROD", "PROD"),
            ("base", "blue PROD", "PROD"),
            ("gray", "red GRAY", "GRAY"),
            ("gray", "blue GRAY", "GRAY"),
        ];
        system.handled(&expected).await?;
        gray.stop().await;
        base.stop().await;
    }
    Ok(())
}

/// A filter of the application's own that brokers cannot read would let everything pass: nothing is read
/// until there is one that they can.
async fn a_filter_that_brokers_cannot_read_reads_nothing(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let wants = |sql: &str| ConsumerProperties {
        filter: Filter::Sql(sql.to_owned()),
        ..ConsumerProperties::default()
    };
    let wrong = system.consumer_with("wrong", GrayStatus::Prod, 0, wants("color ==="))?;
    let producer = system.producer();
    for color in ["red", "green"] {
        let message = Message::new(TOPIC, color).with("color", color);
        producer.send(message).await?;
    }
    // Brokers list it, so that it has begun.
    eventually(PATIENCE, async || {
        let listed = system.cluster.listed(GROUP, &system.cluster.brokers()).await?;
        ensure!(listed.contains("wrong"), "{listed:?}");
        Ok(())
    })
    .await?;
    // A broker that the consumer has not asked before, such as one that came later, is asked all the same.
    let queue = system.cluster.queues(TOPIC).await?.pop_first().context("no queue")?;
    for (sql, is_fine) in [("color ===", false), ("color = 'red'", true)] {
        let filter = &Filter::Sql(sql.to_owned());
        let (group, topic, wait) = (GROUP, TOPIC, Duration::ZERO);
        let pull = PullRequest { group, topic, queue: &queue, offset: 0, count: 32, wait, filter };
        let pulled = system.cluster.pull(&pull).await;
        ensure!(pulled.is_ok() == is_fine, "{sql}: {pulled:?}");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    wrong.stop().await;
    let right = system.consumer_with("right", GrayStatus::Prod, 0, wants("color = 'red'"))?;
    system.handled(&[("right", "red", "PROD")]).await?;
    right.stop().await;
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

on_each_rocketmq!(
    an_applications_own_filter_holds_in_each_lane,
    a_filter_that_brokers_cannot_read_reads_nothing,
    a_broker_that_does_not_filter_is_no_reason_to_lose_anything,
);
