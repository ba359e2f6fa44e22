//! Every instance is replaced under load, by the book and by the axe (N1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Gateway, Kind, Nacos};
use http::Method;
use tokio::task::JoinHandle;

use super::registry::{Registered, knows, start};

/// What happens while requests are sent.
#[derive(Debug, Default)]
struct Phase {
    done: AtomicBool,
    /// Whether an instance has just been killed.
    killing: AtomicBool,
}

/// Sends requests until it is told to stop, and counts those that were served and those that failed.
///
/// Each GET must be served. A payment may fail only where part of it had been sent, to an instance that
/// was killed.
fn load(
    gateway: &Gateway,
    method: Method,
    phase: &Arc<Phase>,
) -> JoinHandle<anyhow::Result<(usize, usize)>> {
    let (url, phase) = (gateway.url("/"), Arc::clone(phase));
    tokio::spawn(async move {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let (mut served, mut failed) = (0, 0);
        while !phase.done.load(Ordering::Relaxed) {
            let request = client.request(method.clone(), &url);
            let request = if method == Method::POST { request.body("pay") } else { request };
            let answer = request.send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            if status == 200 {
                served += 1;
                continue;
            }
            let sent = text.contains("\"code\":\"upstream-failed\"");
            let killing = phase.killing.load(Ordering::Relaxed);
            ensure!(
                method == Method::POST && sent && killing,
                "{method} after {served}: {status} {text}"
            );
            failed += 1;
        }
        Ok((served, failed))
    })
}

/// How many instances there are, and how often all of them are replaced: more where it is a long proof.
fn extent() -> (usize, usize) {
    let rounds = std::env::var("GRAYLANE_ROUNDS").ok().and_then(|text| text.parse().ok());
    rounds.map_or((3, 1), |rounds| (6, rounds))
}

/// Replaces every instance by the book, and then by stopping it before it is deregistered; so often.
async fn instances_are_replaced_without_a_failed_request(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let mut instances = Vec::new();
    let (size, rounds) = extent();
    for _ in 0..size {
        instances.push(Registered::start(&server).await?);
    }
    let gateway = start(&server, "nacos: [{}]", "")?;
    let addrs = |instances: &[Registered]| -> Vec<SocketAddr> {
        instances.iter().map(|it| it.stub.addr).collect()
    };
    knows(&gateway, &addrs(&instances)).await?;
    let phase = Arc::<Phase>::default();
    let methods = [Method::GET, Method::POST, Method::GET, Method::POST];
    let clients: Vec<_> = methods.map(|method| load(&gateway, method, &phase)).into();
    for turn in 0..2 * rounds * size {
        let polite = turn / size % 2 == 0;
        let old = instances.remove(0);
        if polite {
            old.deregister().await?;
            knows(&gateway, &addrs(&instances)).await?;
            // What was sent to it before has to be served.
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(old);
        } else {
            // Its process is killed: connections are reset with requests under way on them.
            phase.killing.store(true, Ordering::Relaxed);
            drop(old.stub);
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(old.link);
        }
        instances.push(Registered::start(&server).await?);
        knows(&gateway, &addrs(&instances)).await?;
        phase.killing.store(false, Ordering::Relaxed);
    }
    phase.done.store(true, Ordering::Relaxed);
    let (mut gets, mut posts, mut failed) = (0, 0, 0);
    for (number, client) in clients.into_iter().enumerate() {
        let (answered, lost) = client.await??;
        *(if number % 2 == 0 { &mut gets } else { &mut posts }) += answered;
        failed += lost;
    }
    ensure!(gets > 250 && posts > 250, "only {gets} and {posts} requests");
    // At most what the two clients had under way when an instance was killed.
    let kills = rounds * size;
    ensure!(failed <= 2 * kills, "{failed} payments failed at {kills} kills");
    for one in &instances {
        ensure!(one.stub.requests() > 0, "{} was never called", one.stub.addr);
    }
    if let Some(report) = std::env::var_os("GRAYLANE_REPORT") {
        let text = format!(
            "{size} instances on {kind:?}, all replaced {rounds} times politely (deregistered, then \
             stopped) and {rounds} times rudely (killed first, their connections reset)\n\
             requests by GET meanwhile: {gets}; failed: 0\n\
             requests by POST meanwhile: {posts}; failed: {failed}, each with part of it sent\n"
        );
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(report)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
    }
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn instances_are_replaced_without_a_failed_request() -> anyhow::Result<()> {
        super::instances_are_replaced_without_a_failed_request(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn instances_are_replaced_without_a_failed_request() -> anyhow::Result<()> {
        super::instances_are_replaced_without_a_failed_request(Kind::Java).await
    }
}
