//! How long it takes from what a Nacos server pushes to the first request that sees it.

mod nacos;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gray_config::nacos::{ConfigKey, Link, Module, NacosProperties, Push};
use gray_tests::{Echo, Gateway, Kind, Nacos, Stub};
use tokio::sync::broadcast;

use crate::{quantile, report};

const ROUNDS: u32 = 60;

fn rules(version: &str) -> String {
    format!("base: {{version: {version}}}\n")
}

/// Waits until the server tells another client of the change.
async fn pushed(pushes: &mut broadcast::Receiver<Push>) -> anyhow::Result<Instant> {
    loop {
        let push = tokio::time::timeout(Duration::from_secs(10), pushes.recv()).await??;
        if matches!(push, Push::Config(_)) {
            return Ok(Instant::now());
        }
    }
}

/// Publishes back and forth; returns the times from the publishing, from the push to another client, and
/// from the answer to that client, which asks at once for what has changed, to the first request that went
/// where it should, in milliseconds. A push says only that something has changed.
async fn measure(kind: Kind) -> anyhow::Result<[Vec<f64>; 3]> {
    let server = Nacos::start(kind).await?;
    server.publish("rules.yaml", &rules("V1")).await?;
    let (one, other) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let folder = tempfile::tempdir()?;
    let lines = one.registry_line() + &other.registry_line();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "nacos: {{servers: ['{}']}}\nroutes: [{{service: app}}]\n\
             discovery: {{files: ['{{dir}}/registry.yaml']}}\n\
             rules: {{nacos: {{dataIds: [rules.yaml]}}}}\n",
            server.address()
        ),
    )?;
    gateway.ready().await?;
    let servers = vec![server.address()];
    let link = Link::new(NacosProperties { servers, ..Default::default() }, Module::Config);
    link.state().wait_for(|state| state.connected).await?;
    let key = ConfigKey { data_id: "rules.yaml".into(), group: "DEFAULT_GROUP".into() };
    let mut pushes = link.pushes();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let [mut whole, mut pushing, mut own] = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        let (_, md5) = link.config(&key).await?.context("no document")?;
        link.listen(&[(key.clone(), md5)]).await?;
        let version = if round % 2 == 0 { "V2" } else { "V1" };
        let began = Instant::now();
        server.publish("rules.yaml", &rules(version)).await?;
        let seen = async {
            loop {
                let answer = client.get(gateway.url("/")).send().await?;
                if Echo::read(answer).await?.version == version {
                    return anyhow::Ok(Instant::now());
                }
            }
        };
        let known = async {
            let pushed = pushed(&mut pushes).await?;
            link.config(&key).await?.context("no document")?;
            Ok((pushed, Instant::now()))
        };
        let (seen, (pushed, known)) = tokio::try_join!(seen, known)?;
        for (values, from) in [(&mut whole, began), (&mut pushing, pushed), (&mut own, known)] {
            values.push(seen.saturating_duration_since(from).as_secs_f64() * 1e3);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok([whole, pushing, own])
}

#[tokio::test]
async fn a_pushed_rule_takes_effect_at_once() -> anyhow::Result<()> {
    let mut text = format!("{ROUNDS} rule documents published on each server, in milliseconds\n");
    for (kind, name) in [(Kind::Rnacos, "rnacos"), (Kind::Java, "Java Nacos")] {
        let [mut whole, mut pushing, mut own] = measure(kind).await?;
        for (what, values) in [
            ("from publishing to the first request by the new rules", &mut whole),
            ("from the push, as another client sees it, to that request", &mut pushing),
            ("from the answer to that client, which asks at once, to that request", &mut own),
        ] {
            text += &format!(
                "{name}, {what}: p50 {:.1}, p99 {:.1}\n",
                quantile(values, 0.5),
                quantile(values, 0.99)
            );
        }
        let late = quantile(&mut pushing, 0.99);
        ensure!(late <= 100.0, "{name}: p99 is {late} ms after the push\n{text}");
    }
    report("latency", &text)
}
