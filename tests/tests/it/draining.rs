//! What a gateway that is told to stop does with what is still going on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gray_tests::{Gateway, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::proxying::{Instance, client_of_h1, client_of_h2, upgraded};

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

/// Requests that arrive together with the word to stop, and until nobody is accepted any more: each that
/// was sent on a connection that was taken is answered (N10).
#[tokio::test]
async fn what_arrives_with_the_word_to_stop_is_answered() -> anyhow::Result<()> {
    let mut gateway = gateway(instance().await?, "unready: 200ms, drain: 30s")?;
    gateway.ready().await?;
    let addr = gateway.addr;
    let mut requests = JoinSet::new();
    for number in 0..100 {
        // Some before, some after, some in the very millisecond.
        if number == 50 {
            gateway.process.terminate()?;
        }
        let stream = TcpStream::connect(addr).await?;
        requests.spawn(one_request(stream));
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer??;
        ensure!(answer.ends_with("slow"), "{answer}");
    }
    ensure!(gateway.process.wait(Duration::from_secs(20))? == Some(0));
    ensure!(TcpStream::connect(addr).await.is_err(), "it is still there");
    Ok(())
}

async fn one_request(mut stream: TcpStream) -> anyhow::Result<String> {
    let request = b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
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

/// Neither an upgraded connection nor a stream of HTTP/2 outlives the limit, and who stops the gateway
/// learns that they were cut.
#[tokio::test]
async fn what_never_ends_is_cut_at_the_limit() -> anyhow::Result<()> {
    for h2 in [false, true] {
        let instance = Instance::start().await?;
        let mut gateway = instance.gateway("limits: {unready: 0s, drain: 300ms}\n")?;
        let (mut stream, mut events) = (None, None);
        if h2 {
            let mut answer =
                client_of_h2()?.get(gateway.url("/events")).send().await?.bytes_stream();
            answer.next().await.context("ended")??;
            events = Some(answer);
        } else {
            stream = Some(upgraded(gateway.addr).await?.0);
        }
        gateway.process.terminate()?;
        let code = gateway.process.wait(Duration::from_secs(10))?;
        ensure!(code == Some(1), "{code:?}");
        if let Some(mut stream) = stream {
            let mut rest = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
            ensure!(!matches!(read.await?, Ok(1..)), "{rest:?}");
        }
        if let Some(mut events) = events {
            let next = tokio::time::timeout(Duration::from_secs(5), events.next()).await?;
            ensure!(matches!(next, Some(Err(_))), "{next:?}");
        }
    }
    Ok(())
}

/// A connection on which nothing is going on keeps nobody waiting.
#[tokio::test]
async fn idle_connections_are_not_waited_for() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let mut gateway = instance.gateway("limits: {unready: 0s, drain: 20s}\n")?;
    for client in [client_of_h1()?, client_of_h2()?] {
        let answer = client.get(gateway.url("/")).send().await?.text().await?;
        ensure!(answer == "hello world", "{answer}");
        // Its connection stays open.
        std::mem::forget(client);
    }
    let _silent = TcpStream::connect(gateway.addr).await?;
    gateway.process.terminate()?;
    ensure!(gateway.process.wait(Duration::from_secs(8))? == Some(0), "they were waited for");
    Ok(())
}

#[tokio::test]
async fn upgraded_connections_are_waited_for_when_it_is_told_to_stop() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let mut gateway = instance.gateway("limits: {unready: 0s, drain: 20s}\n")?;
    let (mut stream, _) = upgraded(gateway.addr).await?;
    gateway.process.terminate()?;
    // It has been told when nobody is accepted any more.
    eventually(Duration::from_secs(10), async || {
        ensure!(TcpStream::connect(gateway.addr).await.is_err(), "still accepting");
        Ok(())
    })
    .await?;
    stream.write_all(b"ping").await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
    ensure!(answer == "ping", "{answer}");
    drop(stream);
    ensure!(gateway.process.wait(Duration::from_secs(10))? == Some(0), "not drained");
    Ok(())
}
