//! What a gateway that is told to stop does with what is still going on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gray_tests::{Gateway, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The size of the download, in mebibytes.
const DOWNLOAD: usize = 1024;

/// An instance that takes two seconds to answer, or has much to say.
async fn instance() -> anyhow::Result<SocketAddr> {
    let slow = get(async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        "slow"
    });
    let large = get(async || {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let pieces = stream::repeat(piece).take(DOWNLOAD).map(Ok::<_, std::io::Error>);
        Body::from_stream(pieces)
    });
    let router = Router::new().route("/slow", slow).route("/large", large);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(addr)
}

fn gateway(addr: SocketAddr, limits: &str) -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir()?;
    let registry = format!("services: {{app: [{{address: '{addr}'}}]}}");
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    Gateway::start_in(
        folder,
        &format!(
            "routes: [{{service: app}}]\ndiscovery: {{files: ['{{dir}}/registry.yaml']}}\n\
             limits: {{{limits}}}\n"
        ),
    )
}

/// Waits until the gateway has passed on so many requests.
async fn in_flight(gateway: &Gateway, count: usize) -> anyhow::Result<()> {
    eventually(Duration::from_secs(10), async || {
        let text = gateway.ask("/api/v1/services").await?;
        ensure!(text.contains(&format!("\"requests\":{count},")), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_has_begun_is_brought_to_its_end() -> anyhow::Result<()> {
    let mut gateway = gateway(instance().await?, "unready: 500ms, drain: 30s")?;
    gateway.ready().await?;
    let h1 = reqwest::Client::builder().no_proxy().build()?;
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let request = if number % 2 == 0 { &h1 } else { &h2 }.get(gateway.url("/slow"));
        requests.spawn(async move { request.send().await?.text().await });
    }
    let mut download = h1.get(gateway.url("/large")).send().await?.bytes_stream();
    in_flight(&gateway, 51).await?;
    gateway.process.terminate()?;
    eventually(Duration::from_secs(5), async || {
        let text = gateway.ask("/readyz").await?;
        ensure!(text.contains("the gateway is stopping"), "{text}");
        Ok(())
    })
    .await?;
    // What arrives before load balancers have noticed is still served.
    let late = h1.get(gateway.url("/slow")).send();
    ensure!(late.await?.text().await? == "slow", "the late one was not served");
    while let Some(answer) = requests.join_next().await {
        ensure!(answer?? == "slow");
    }
    let mut length = 0;
    while let Some(piece) = download.next().await {
        length += piece?.len();
    }
    ensure!(length == DOWNLOAD << 20, "{length} bytes came");
    ensure!(gateway.process.wait(Duration::from_secs(20))? == Some(0));
    Ok(())
}

#[tokio::test]
async fn nothing_lasts_longer_than_the_limit() -> anyhow::Result<()> {
    let mut gateway = gateway(instance().await?, "unready: 0s, drain: 300ms")?;
    gateway.ready().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(gateway.url("/slow")).send();
    let request = tokio::spawn(request);
    in_flight(&gateway, 1).await?;
    gateway.process.terminate()?;
    let code = gateway.process.wait(Duration::from_secs(10))?;
    ensure!(code == Some(1), "{code:?}: who stops it must learn that a request was cut");
    ensure!(request.await?.is_err(), "the request was answered");
    Ok(())
}
