//! How long it takes from what a Nacos server pushes about an instance to the first request on it, and
//! to the last.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use gray_config::nacos::{Link, Module, NacosInstance, NacosProperties, Push};
use gray_tests::{Gateway, Kind, Nacos, Stub, eventually};
use tokio::sync::broadcast;

use crate::{quantile, report};

/// How often an instance comes and goes.
const ROUNDS: u32 = 30;

fn instance(addr: SocketAddr) -> NacosInstance {
    NacosInstance {
        ip: addr.ip().to_string(),
        port: addr.port().into(),
        ..NacosInstance::default()
    }
}

/// Waits until the server tells another client that a service has so many instances.
async fn pushed_instances(
    pushes: &mut broadcast::Receiver<Push>,
    count: usize,
) -> anyhow::Result<Instant> {
    loop {
        let push = tokio::time::timeout(Duration::from_secs(20), pushes.recv()).await??;
        if let Push::Service(service) = push
            && service.read()?.hosts.len() == count
        {
            return Ok(Instant::now());
        }
    }
}

/// Registers an instance and takes it off again; returns, in milliseconds, the times from the push to
/// another client to the first request on the instance, and to the last one.
async fn measure_instances(kind: Kind) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let server = Nacos::start(kind).await?;
    let (stays, comes) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let properties = NacosProperties { servers: vec![server.address()], ..Default::default() };
    let link = || Link::new(properties.clone(), Module::Naming);
    let (first, second, watcher) = (link(), link(), link());
    for link in [&first, &second, &watcher] {
        link.state().wait_for(|state| state.connected).await?;
    }
    first.register("app", "DEFAULT_GROUP", &instance(stays.addr)).await?;
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['{}']}}\nroutes: [{{service: app}}]\ndiscovery: {{nacos: [{{}}]}}\n",
        server.address()
    ))?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let served =
        async || anyhow::Ok(client.get(gateway.url("/")).send().await?.status().is_success());
    let is_served = async || {
        ensure!(served().await?, "not served yet");
        anyhow::Ok(())
    };
    eventually(Duration::from_secs(30), is_served).await?;
    let mut pushes = watcher.pushes();
    watcher.subscribe("app", "DEFAULT_GROUP").await?;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (times, count) in [(&mut on, 2), (&mut off, 1)] {
            let own = instance(comes.addr);
            if count == 2 {
                second.register("app", "DEFAULT_GROUP", &own).await?;
            } else {
                second.deregister("app", "DEFAULT_GROUP", &own).await?;
            }
            let pushed = pushed_instances(&mut pushes, count);
            let asking = watch(&gateway, &client, &comes, count == 2);
            let (pushed, seen) = tokio::try_join!(pushed, asking)?;
            times.push(seen.saturating_duration_since(pushed).as_secs_f64() * 1e3);
        }
    }
    Ok((on, off))
}

/// Sends requests until the instance has served one, or has served none for a while; returns when it
/// served the first, or the last.
async fn watch(
    gateway: &Gateway,
    client: &reqwest::Client,
    instance: &Stub,
    until_served: bool,
) -> anyhow::Result<Instant> {
    const QUIET: Duration = Duration::from_secs(2);
    let began = Instant::now();
    let mut last = began;
    loop {
        let before = instance.requests();
        client.get(gateway.url("/")).send().await?.error_for_status()?;
        let now = Instant::now();
        if instance.requests() > before {
            last = now;
            if until_served {
                return Ok(now);
            }
        }
        if !until_served && now - last > QUIET {
            return Ok(last);
        }
        ensure!(now - began < Duration::from_secs(30), "the change does not arrive");
    }
}

#[tokio::test]
async fn a_pushed_instance_is_called_at_once_and_one_that_is_gone_no_more() -> anyhow::Result<()> {
    let mut text = format!(
        "{ROUNDS} times an instance registered and taken off on each server, in milliseconds \
         from the push, as another client sees it\n"
    );
    for (kind, name) in [(Kind::Rnacos, "rnacos"), (Kind::Java, "Java Nacos")] {
        let (mut on, mut off) = measure_instances(kind).await?;
        for (what, values) in [
            ("to the first request on the instance", &mut on),
            ("to the last request on it", &mut off),
        ] {
            let (half, late) = (quantile(values, 0.5), quantile(values, 0.99));
            text += &format!("{name}, {what}: p50 {half:.1}, p99 {late:.1}\n");
            ensure!(late <= 100.0, "{name}: p99 is {late} ms after the push\n{text}");
        }
    }
    report("latency-instances", &text)
}
