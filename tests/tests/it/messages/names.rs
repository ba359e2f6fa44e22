//! Groups and lanes whose names have each other's in them: others look a lane's consumers up by a part of the name
//! of their group.

use gray_mq::ConsumerProperties;
use gray_propagation::{GrayStatus, Lane};
use gray_tests::Release;

use super::auto;
use super::system::{GRAY, GROUP, System};

async fn groups_are_known_by_their_whole_names(release: Release) -> anyhow::Result<()> {
    let second: Lane = "gray-2".parse()?;
    let other = format!("my-{GROUP}");
    let of_other = ConsumerProperties { group: other.clone(), ..ConsumerProperties::default() };
    let system = System::start(release, auto()).await?;
    system.set_lanes(&[Lane::GRAY, second]);
    let base = system.consumer("base", GrayStatus::Prod, 0)?;
    // Each of these is in a group with the name of the lane's twin in its own.
    let in_second = system.consumer("second", GrayStatus::Gray(second), 0)?;
    let others = system.consumer_with("others", GRAY, 0, of_other)?;
    system.is_open_to(second, true).await?;
    system.is_open_of(&other, Lane::GRAY, true).await?;
    system.is_open(false).await?;
    system.send(GRAY, &["g1"]).await?;
    system.handled(&[("base", "g1", "GRAY"), ("others", "g1", "GRAY")]).await?;

    let gray = system.consumer("gray", GRAY, 0)?;
    system.is_open(true).await?;
    system.send(GRAY, &["g2"]).await?;
    system.handled(&[("gray", "g2", "GRAY"), ("others", "g2", "GRAY")]).await?;

    // Theirs go, and its own stay.
    others.stop().await;
    in_second.stop().await;
    system.is_open_to(second, false).await?;
    system.is_open(true).await?;
    system.send(GRAY, &["g3"]).await?;
    system.handled(&[("gray", "g3", "GRAY")]).await?;
    gray.stop().await;
    base.stop().await;
    Ok(())
}

on_each_rocketmq!(groups_are_known_by_their_whole_names);
