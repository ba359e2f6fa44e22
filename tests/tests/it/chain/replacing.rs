//! Copies that come and go while requests are under way, and that go while nobody can be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Kind, eventually};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::{ALL, BASE_WAY, Chain, GRAY_WAY, over_grpc, way};

/// Posts something that nobody else has posted, and takes it off the way that is answered.
async fn posted(
    client: &reqwest::Client,
    url: &str,
    gray: bool,
    number: usize,
) -> anyhow::Result<String> {
    let body = format!("{gray} {number}");
    let request = client.post(format!("{url}/A/http")).body(body.clone());
    let answer = request.header("x-canary", if gray { "1" } else { "0" }).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    let way = text.strip_suffix(&format!(" <- {body}\n"));
    ensure!(status == 200, "{body} by POST: {status} {text}");
    Ok(format!("{}\n", way.with_context(|| format!("{body} by POST: {text}"))?))
}

/// Waits until the server knows so many copies of a service.
async fn has_copies(chain: &Chain, role: &str, count: usize) -> anyhow::Result<()> {
    let service = format!("spring-cloud-{role}");
    eventually(Duration::from_secs(30), async || {
        let text = chain.server.instances(&service).await?;
        let found = text.matches("\"ip\"").count();
        ensure!(found == count, "{found} instances of {service}, not {count}: {text}");
        Ok(())
    })
    .await
}

/// Every copy is replaced by a new one under load.
async fn replacing_every_copy_fails_no_request(kind: Kind) -> anyhow::Result<()> {
    let mut chain = Chain::start(kind, &ALL).await?;
    chain.goes(BASE_WAY, GRAY_WAY).await?;
    let done = Arc::<AtomicBool>::default();
    let mut clients = JoinSet::new();
    for gray in [false, true, false, true] {
        let (client, url) = (chain.client.clone(), chain.gateway.url(""));
        let done = Arc::clone(&done);
        clients.spawn(async move {
            let mut count = 0_usize;
            let channel = Endpoint::from_shared(url.clone())?.connect().await?;
            while !done.load(Ordering::Relaxed) {
                let (path, text) = match count % 4 {
                    0 => ("/A/http", way(&client, &format!("{url}/A/http"), gray).await?),
                    1 => ("/A/grpc", way(&client, &format!("{url}/A/grpc"), gray).await?),
                    2 => ("by POST", posted(&client, &url, gray, count).await?),
                    _ => ("by gRPC", over_grpc(&channel, gray).await? + "\n"),
                };
                ensure!(text == if gray { GRAY_WAY } else { BASE_WAY }, "{path} {gray}: {text}");
                count += 1;
            }
            Ok(count)
        });
    }
    for (role, version) in ALL {
        let mut old = chain.services.remove(&(role, version)).context("it is not there")?;
        chain.run(role, version, &[])?;
        has_copies(&chain, role, 3).await?;
        old.terminate()?;
        ensure!(old.wait(Duration::from_secs(20))? == Some(0), "{}", old.printed());
        has_copies(&chain, role, 2).await?;
    }
    done.store(true, Ordering::Relaxed);
    let mut count = 0;
    while let Some(client) = clients.join_next().await {
        count += client??;
    }
    ensure!(count > 1_000, "only {count} requests");
    Ok(())
}

/// A copy that is told to stop while Nacos is silent or gone ends well, and soon; and when Nacos is back, it
/// does not know the copy any more.
async fn stopping_does_not_wait_for_a_server_that_is_away(kind: Kind) -> anyhow::Result<()> {
    for gone in [false, true] {
        let mut chain = Chain::start(kind, &[("c", "V1"), ("c", "V2")]).await?;
        has_copies(&chain, "c", 2).await?;
        let mut old = chain.services.remove(&("c", "V1")).context("it is not there")?;
        if gone {
            chain.server.kill();
        } else {
            chain.server.silence(true)?;
        }
        old.terminate()?;
        let code = old.wait(Duration::from_secs(15))?;
        ensure!(code == Some(0), "{code:?}, gone: {gone}: {}", old.printed());
        ensure!(old.printed().contains("not deregistered"), "gone: {gone}: {}", old.printed());
        if gone {
            chain.server.run().await?;
        } else {
            chain.server.silence(false)?;
        }
        has_copies(&chain, "c", 1).await?;
    }
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn replacing_every_copy_fails_no_request() -> anyhow::Result<()> {
        super::replacing_every_copy_fails_no_request(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_a_server_that_is_away() -> anyhow::Result<()> {
        super::stopping_does_not_wait_for_a_server_that_is_away(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn replacing_every_copy_fails_no_request() -> anyhow::Result<()> {
        super::replacing_every_copy_fails_no_request(Kind::Java).await
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_a_server_that_is_away() -> anyhow::Result<()> {
        super::stopping_does_not_wait_for_a_server_that_is_away(Kind::Java).await
    }
}
