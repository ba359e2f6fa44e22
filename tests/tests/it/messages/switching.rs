//! What each side handles, and in which order, while lanes are given and taken away.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_mq::{ConsumerProperties, Message, Order, Side};
use gray_propagation::{Context, GrayStatus, Lane, scope};
use gray_tests::{Release, eventually};

use super::auto;
use super::system::{GRAY, Handled, PATIENCE, System, TOPIC};

/// Each lane is its own consumers' only, and one that is named while all run is as the others from then on.
async fn lanes_are_told_apart_from_each_other(release: Release) -> anyhow::Result<()> {
    let blue: Lane = "blue".parse()?;
    let of_blue = GrayStatus::Gray(blue);
    let system = System::start(release, auto()).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    let gray = system.consumer("gray", GRAY, 0)?;
    system.is_open(true).await?;
    // Nobody has named the lane: its messages are base's, in their own lane.
    system.send(of_blue, &["b1"]).await?;
    system.handled(&[("base", "b1", "blue")]).await?;

    system.set_lanes(&[Lane::GRAY, blue]);
    let of_blues = system.consumer("blue", of_blue, 0)?;
    system.is_open_to(blue, true).await?;
    system.send(of_blue, &["b2"]).await?;
    system.send(GRAY, &["g2"]).await?;
    system.send(GrayStatus::Prod, &["p2"]).await?;
    let expected = [("blue", "b2", "blue"), ("gray", "g2", "GRAY"), ("base", "p2", "PROD")];
    system.handled(&expected).await?;

    gray.stop().await;
    system.is_open(false).await?;
    system.send(GRAY, &["g3"]).await?;
    system.send(of_blue, &["b3"]).await?;
    system.handled(&[("base", "g3", "GRAY"), ("blue", "b3", "blue")]).await?;
    of_blues.stop().await;
    system.is_open_to(blue, false).await?;
    base.stop().await;
    Ok(())
}

/// Others take a question that was not answered for "nobody is there", give gray's messages to base, and back
/// again.
async fn a_broker_that_does_not_answer_is_no_reason_to_switch(
    release: Release,
) -> anyhow::Result<()> {
    let mut system = System::start(release, auto()).await?;
    let soon = ConsumerProperties { lease: Duration::from_secs(3), ..Default::default() };
    let base = system.consumer_with("base", GrayStatus::Prod, 0, soon.clone())?;
    let gray = system.consumer_with("gray", GRAY, 0, soon.clone())?;
    system.is_open(true).await?;
    let before = system.fences().await?;
    system.kill_broker();
    // Longer than it takes until who is not listed is gone.
    tokio::time::sleep(soon.lease * 2).await;
    system.run_broker()?;
    eventually(PATIENCE, async || system.send(GRAY, &["g1"]).await).await?;
    system.handled(&[("gray", "g1", "GRAY")]).await?;
    let after = system.fences().await?;
    ensure!(before == after, "{after} fences, {before} before");
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// What was produced before gray owned anything is base's, and counted where gray is there by then.
async fn what_base_handles_of_a_lane_that_is_alive_is_counted(
    release: Release,
) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    system.send(GRAY, &["early"]).await?;
    let gray = system.consumer("gray", GRAY, 0)?;
    system.is_open(true).await?;
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    system.send(GRAY, &["late"]).await?;
    system.handled(&[("base", "early", "GRAY"), ("gray", "late", "GRAY")]).await?;
    eventually(PATIENCE, async || {
        let text = base.counts().to_prometheus();
        let escaped = text.lines().find(|line| line.contains("outcome=\"escaped\""));
        let escaped = escaped.context("no escape is counted")?;
        ensure!(escaped.contains("lane=\"gray\"") && escaped.ends_with(" 1"), "{escaped}");
        Ok(())
    })
    .await?;
    ensure!(!gray.counts().to_prometheus().contains("escaped"), "gray counts its own");
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// Gray dies, with messages in its hands and others not yet pulled: base handles them in its stead.
async fn what_gray_leaves_behind_is_handled_by_base(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let soon = ConsumerProperties { lease: Duration::from_secs(3), ..Default::default() };
    let base = system.consumer_with("base", GrayStatus::Prod, 0, soon.clone())?;
    let gray = system.consumer_with("gray", GRAY, 1, soon)?;
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

/// How many keys there are.
const KEYS: usize = 6;

/// Tells whether what was handled of each key was handled in order, and once.
fn in_order_by_key(log: &[Handled]) -> anyhow::Result<()> {
    let mut last = [None; KEYS];
    for handled in log {
        let (key, number) = handled.body.split_once(' ').context("no key")?;
        let (key, number): (usize, usize) = (key.parse()?, number.parse()?);
        ensure!(last[key] < Some(number), "{number} of {key} after {:?}", last[key]);
        last[key] = Some(number);
    }
    Ok(())
}

/// Nobody passes a fence in order before the other side has come up to it.
async fn order_is_kept_over_switches(release: Release) -> anyhow::Result<()> {
    let system = System::start(release, auto()).await?;
    let (order, lease) = (Order::Queue, Duration::from_secs(3));
    // Longer than this test waits: whoever gives a queue up must not need it.
    let drain = Duration::from_mins(2);
    let in_order = ConsumerProperties { order, lease, drain, ..ConsumerProperties::default() };
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
        // Whoever joins takes queues over, and whoever leaves gives them back.
        let more = system.consumer_with(&format!("more-{round}"), GRAY, 0, in_order.clone())?;
        send(50).await?;
        system.are_members(Side::Lane(Lane::GRAY), 2).await?;
        send(50).await?;
        system.has_handled(&format!("gray-{round}")).await?;
        gray.stop().await;
        send(50).await?;
        system.has_handled(&format!("more-{round}")).await?;
        more.stop().await;
        let name = format!("base-{round}");
        let another = system.consumer_with(&name, GrayStatus::Prod, 0, in_order.clone())?;
        send(50).await?;
        system.is_open(false).await?;
        system.are_members(Side::Base, 2).await?;
        send(50).await?;
        system.has_handled(&name).await?;
        another.stop().await;
    }
    let all = send(20).await?;
    eventually(PATIENCE, async || {
        let handled = system.log.lock().unwrap().len();
        ensure!(handled == all, "{handled} of {all}");
        Ok(())
    })
    .await?;
    in_order_by_key(&system.log.lock().unwrap())?;
    base.stop().await;
    Ok(())
}

on_each_rocketmq!(
    lanes_are_told_apart_from_each_other,
    a_broker_that_does_not_answer_is_no_reason_to_switch,
    what_base_handles_of_a_lane_that_is_alive_is_counted,
    what_gray_leaves_behind_is_handled_by_base,
    order_is_kept_over_switches,
);
