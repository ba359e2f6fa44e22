//! Clients of HTTP/2 that do not take what they ask for, or take it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use gray_tests::eventually;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use crate::slowness::{endless, gateway};

type Sender = http2::SendRequest<Empty<Bytes>>;

/// Connects as a client that makes room for so many bytes of each answer.
async fn connect(gateway: &gray_tests::Gateway, window: u32) -> anyhow::Result<Sender> {
    let stream = TokioIo::new(TcpStream::connect(gateway.addr).await?);
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(window);
    let (sender, connection) = client.handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request() -> anyhow::Result<http::Request<Empty<Bytes>>> {
    Ok(http::Request::get("http://a/").body(Empty::new())?)
}

/// A client that made no room for its answers once held an instance's connection for each for as long as it liked.
#[tokio::test]
async fn an_answer_that_its_client_makes_no_room_for_is_given_up() -> anyhow::Result<()> {
    let (addr, _) = endless(true).await?;
    let gateway = gateway(&[addr], "limits: {writeTime: 1s}\n")?;
    let mut sender = connect(&gateway, 1).await?;
    let mut held = Vec::new();
    for _ in 0..5 {
        let answer = sender.send_request(request()?).await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        held.push(answer);
    }
    eventually(Duration::from_secs(20), async || {
        let cut = gateway.metric("graylane_responses_cut_short_total").await?;
        ensure!(cut >= 5.0, "{cut} answers were given up");
        Ok(())
    })
    .await?;
    // Others on the connection go on.
    ensure!(sender.send_request(request()?).await?.status() == 200);
    Ok(())
}

/// Takes connections and says nothing on them, and counts them.
async fn mute() -> anyhow::Result<(std::net::SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            kept.push(stream);
        }
    });
    Ok((addr, count))
}

/// Each request that is taken back as soon as it has been passed on costs a connection to an instance
/// (CVE-2023-44487).
#[tokio::test]
async fn who_takes_back_nearly_all_that_it_asks_for_is_sent_away() -> anyhow::Result<()> {
    const MOST: usize = 250;
    let (addr, count) = mute().await?;
    let gateway = gateway(&[addr], "")?;
    let mut sender = connect(&gateway, 65_535).await?;
    let mut asked = 0;
    while !sender.is_closed() {
        ensure!(asked < MOST, "it goes on after {asked} of them");
        let before = count.load(Ordering::Relaxed);
        let asking = sender.send_request(request()?);
        let passed_on = eventually(Duration::from_secs(10), async || {
            let now = count.load(Ordering::Relaxed);
            ensure!(now > before, "it has not been passed on");
            Ok(())
        });
        tokio::select! {
            answer = asking => ensure!(answer.is_err(), "a mute instance has answered"),
            passed = passed_on => passed.context("no instance heard of it")?,
        }
        asked += 1;
    }
    ensure!(asked > 100, "it was sent away after {asked}");
    // Nobody else is.
    ensure!(connect(&gateway, 65_535).await.is_ok());
    Ok(())
}
