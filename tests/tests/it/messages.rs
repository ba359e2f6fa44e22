//! Messages on Apache's own brokers: who handles what, in each mode and while lanes come and go.

mod filters;
mod names;
mod switching;
mod system;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use gray_mq::rocketmq::{Transaction, TransactionProducer};
use gray_mq::{
    ConsumeMode, ConsumerProperties, From, Message, MessageBroker, Reading, ReceivedMessage,
    Settings,
};
use gray_propagation::{Context, GrayStatus, Lane, scope};
use gray_tests::{Release, eventually};

use system::{GRAY, GROUP, PATIENCE, System, TOPIC};

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
    eventually(PATIENCE, async || {
        let behind = gray.counts().behind();
        ensure!(!behind.is_empty() && behind.values().all(|behind| *behind == 0), "{behind:?}");
        Ok(())
    })
    .await?;
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

/// The rest of the table's rows: what is ignored waits in the mode BASE as well, and is handled by gray
/// only.
async fn what_base_ignores_waits_in_each_mode(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    system.set(ConsumeMode::Base, &[]);
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    system.is_open(false).await?;
    system.send(GRAY, &["g1"]).await?;
    system.handled(&[("base", "g1", "GRAY")]).await?;

    system.set(ConsumeMode::Base, &[Lane::GRAY]);
    system.is_open(true).await?;
    system.send(GrayStatus::Prod, &["p2"]).await?;
    system.send(GRAY, &["g2"]).await?;
    system.handled(&[("base", "p2", "PROD")]).await?;

    let gray = system.consumer("gray", GRAY, 0)?;
    system.handled(&[("gray", "g2", "GRAY")]).await?;
    system.send(GrayStatus::Prod, &["p3"]).await?;
    system.send(GRAY, &["g3"]).await?;
    system.handled(&[("base", "p3", "PROD"), ("gray", "g3", "GRAY")]).await?;
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// Who begins with what comes from now on, and ends before anything has come, misses nothing of what comes
/// until it is back.
async fn what_comes_after_a_first_start_is_not_lost(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    system.send(GrayStatus::Prod, &["too early", "too early", "too early", "too early"]).await?;
    let from_now = || ConsumerProperties { from: From::Last, ..ConsumerProperties::default() };
    // What a broker has acknowledged can be seen in its queues a moment later.
    let ends = eventually(PATIENCE, async || {
        let mut ends = Vec::new();
        for queue in system.cluster.queues(TOPIC).await? {
            let end = system.cluster.end(TOPIC, &queue).await?;
            ends.push((queue, end));
        }
        ensure!(ends.iter().all(|(_, end)| *end == 2), "{ends:?}");
        Ok(ends)
    })
    .await?;
    let base = system.consumer_with("base", GrayStatus::Prod, 0, from_now())?;
    // What each of them holds is passed over.
    eventually(PATIENCE, async || {
        for (queue, end) in &ends {
            let committed = system.cluster.committed(GROUP, TOPIC, queue).await?;
            ensure!(committed == Some(*end), "{queue}: {committed:?}");
        }
        Ok(())
    })
    .await?;
    base.stop().await;
    if matches!(release, Release::Four) {
        // It says of a group that it has never seen that it stands at the beginning, where that is still there.
        system.handled(&[("base", "too early", "PROD"); 4]).await?;
    }
    system.send(GrayStatus::Prod, &["p1", "p2", "p3", "p4"]).await?;
    let base = system.consumer_with("base-2", GrayStatus::Prod, 0, from_now())?;
    let expected = ["p1", "p2", "p3", "p4"].map(|body| ("base-2", body, "PROD"));
    system.handled(&expected).await?;
    base.stop().await;
    Ok(())
}

/// What cannot be handled comes back as often as it may, and is then put aside, where it can be found.
async fn what_always_fails_is_put_aside(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let once = ConsumerProperties { attempts: 1, ..ConsumerProperties::default() };
    let base = system.consumer_with("base", GrayStatus::Prod, usize::MAX, once)?;
    system.is_open(false).await?;
    system.send(GRAY, &["fails"]).await?;
    let aside = format!("%DLQ%{GROUP}");
    eventually(PATIENCE, async || {
        let queues = system.cluster.queues(&aside).await?;
        let mut count = 0;
        for queue in &queues {
            count += system.cluster.end(&aside, queue).await?;
        }
        ensure!(count == 1, "{count} messages in {queues:?}");
        Ok(())
    })
    .await?;
    let put_aside = system.first_of(&aside).await?;
    ensure!(put_aside.properties["gray"] == "GRAY", "{put_aside:?}");
    // Messages are counted a little later than they end.
    eventually(PATIENCE, async || {
        let failed: u64 = base.counts().all().values().sum();
        ensure!(failed == 2, "{:?}", base.counts().all());
        Ok(())
    })
    .await?;
    base.stop().await;
    Ok(())
}

/// A handler that hangs is given up after its time, and its message comes again; others go on meanwhile.
async fn a_handler_that_hangs_is_given_up(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let limit = Duration::from_secs(1);
    let soon = ConsumerProperties { limit, ..ConsumerProperties::default() };
    let base = system.consumer_with("base", GrayStatus::Prod, 1, soon)?;
    system.is_open(false).await?;
    system.send(GRAY, &["hangs at first", "goes on"]).await?;
    let expected = [("base", "hangs at first", "GRAY"), ("base", "goes on", "GRAY")];
    system.handled(&expected).await?;
    ensure!(system.begun.lock().unwrap().iter().filter(|it| *it == "hangs at first").count() == 2);
    base.stop().await;
    Ok(())
}

/// How much is still to come is told as well while a reader has taken as much as it may.
async fn the_lag_is_told_while_nothing_more_is_taken(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let soon =
        ConsumerProperties { drain: Duration::from_secs(1), ..ConsumerProperties::default() };
    let base = system.consumer_with("base", GrayStatus::Prod, usize::MAX, soon)?;
    system.is_open(false).await?;
    let is_behind = async |offsets: u64| {
        eventually(PATIENCE, async || {
            let of_topic = |(reading, count): (_, u64)| {
                let reading: Reading = reading;
                (reading.topic == TOPIC).then_some(count)
            };
            let behind: u64 = base.counts().behind().into_iter().filter_map(of_topic).sum();
            ensure!(behind == offsets, "{behind}, not {offsets}");
            Ok(())
        })
        .await
    };
    // Of each of the two queues no more than 256 are taken, and none of these ever ends.
    let bodies: Vec<String> = (0..700).map(|number| format!("hangs {number}")).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    system.send(GrayStatus::Prod, &bodies).await?;
    is_behind(700).await?;
    system.send(GrayStatus::Prod, &bodies[..10]).await?;
    is_behind(710).await?;
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

on_each_rocketmq!(
    a_lane_comes_and_goes,
    each_mode_gives_messages_to_whom_it_says,
    retries_stay_with_their_group,
    what_base_ignores_waits_in_each_mode,
    what_comes_after_a_first_start_is_not_lost,
    what_always_fails_is_put_aside,
    a_handler_that_hangs_is_given_up,
    the_lag_is_told_while_nothing_more_is_taken,
    every_kind_of_message_keeps_its_lane,
);
