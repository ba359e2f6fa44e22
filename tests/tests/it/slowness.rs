//! Instances that do not take connections, do not go on, or do not read; clients that do not read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream;
use gray_tests::{Gateway, Stub, eventually};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::proxying::{Instance, client_of_h1, client_of_h2};

/// What may wait on the way: the buffers of four sockets, and the gateway's own.
const UNDERWAY: usize = 24 << 20;

/// How much the gateway itself may grow by what waits, in KiB.
const MEMORY: u64 = 16 << 10;

pub(crate) fn gateway(addrs: &[SocketAddr], more: &str) -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir()?;
    let instances: Vec<_> = addrs.iter().map(|addr| json!({ "address": addr })).collect();
    let registry = json!({ "services": { "app": instances } });
    std::fs::write(folder.path().join("registry.yaml"), registry.to_string())?;
    Gateway::start_in(
        folder,
        &format!(
            "routes: [{{service: app}}]\ndiscovery: {{files: ['{{dir}}/registry.yaml']}}\n{more}"
        ),
    )
}

/// A port whose queue of connections is full: whoever knocks is not answered, as when the network
/// drops every packet.
struct Deaf {
    addr: SocketAddr,
    _socket: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    async fn start() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let socket = socket.listen(1)?;
        let addr = socket.local_addr()?;
        let mut queue = Vec::new();
        while let Ok(taken) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(addr)).await
        {
            queue.push(taken?);
            ensure!(queue.len() < 10, "the queue does not fill");
        }
        Ok(Self { addr, _socket: socket, _queue: queue })
    }
}

#[tokio::test]
async fn an_instance_that_takes_no_connection_is_given_up_in_time() -> anyhow::Result<()> {
    let deaf = Deaf::start().await?;
    let alone = gateway(&[deaf.addr], "timeouts: {connect: 200ms}\nlimits: {attempts: 1}\n")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let began = Instant::now();
    let answer = client.get(alone.url("/")).send().await?;
    let (took, status, text) = (began.elapsed(), answer.status(), answer.text().await?);
    ensure!(status == 502 && text.contains("\"code\":\"connect-failed\""), "{status} {text}");
    ensure!(took >= Duration::from_millis(190), "after {took:?} only");
    ensure!(took < Duration::from_secs(2), "after {took:?}");

    // Where there is another one, that one serves; a payment is sent there too, since nothing of it
    // was sent before.
    let other = Stub::start("V1").await?;
    let both = gateway(&[deaf.addr, other.addr], "timeouts: {connect: 200ms}\n")?;
    for _ in 0..4 {
        ensure!(client.get(both.url("/")).send().await?.status() == 200);
        ensure!(client.post(both.url("/")).body("pay").send().await?.status() == 200);
    }
    ensure!(other.requests() == 8, "{} requests", other.requests());
    Ok(())
}

/// Begins an answer, and never goes on.
async fn stalls() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            let _ = stream.read(&mut read).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
            kept.push(stream);
        }
    });
    Ok(addr)
}

#[tokio::test]
async fn an_answer_that_does_not_go_on_is_cut_off() -> anyhow::Result<()> {
    let gateway = gateway(&[stalls().await?], "timeouts: {idle: 300ms}\n")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let began = Instant::now();
    let answer = client.get(gateway.url("/")).send().await?;
    ensure!(answer.status() == 200);
    let body = tokio::time::timeout(Duration::from_secs(5), answer.bytes()).await?;
    ensure!(body.is_err(), "half an answer passed for a whole one: {body:?}");
    ensure!(began.elapsed() >= Duration::from_millis(290), "after {:?}", began.elapsed());
    eventually(Duration::from_secs(5), async || {
        let cut = gateway.metric("graylane_responses_cut_short_total").await?;
        ensure!(cut >= 1.0, "not counted");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_that_does_not_go_on_is_given_up() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let gateway = gateway(&[stub.addr], "timeouts: {idle: 300ms}\n")?;
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), read).await??;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    ensure!(answer.contains("\"code\":\"request-stalled\""), "{answer}");
    // One that goes on, however slowly, is waited for, even where instances must answer at once.
    let patient = self::gateway(&[stub.addr], "timeouts: {idle: 3s, firstByte: 300ms}\n")?;
    let mut stream = TcpStream::connect(patient.addr).await?;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await?;
    for piece in [b"s", b"l", b"o", b"w"] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(piece).await?;
    }
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    ensure!(&first == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&first));
    Ok(())
}

/// Begins to answer at once, and goes on when the whole request has come.
async fn answers_early() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_early(stream));
        }
    });
    Ok(addr)
}

async fn answer_early(mut stream: TcpStream) -> std::io::Result<()> {
    let mut came = Vec::new();
    while !came.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut came).await? == 0 {
            return Ok(());
        }
    }
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
    stream.write_all(head).await?;
    came.clear();
    while !came.ends_with(b"0\r\n\r\n") {
        if stream.read_buf(&mut came).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(b"1\r\nb\r\n0\r\n\r\n").await
}

/// Streams both ways: while one side goes on, the other may be silent; where neither does, it ends.
#[tokio::test]
async fn a_stream_both_ways_ends_when_neither_side_goes_on() -> anyhow::Result<()> {
    let gateway = gateway(&[answers_early().await?], "timeouts: {idle: 1s}\n")?;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    for whole in [true, false] {
        let mut stream = TcpStream::connect(gateway.addr).await?;
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            stream.write_all(b"1\r\nx\r\n").await?;
        }
        if whole {
            stream.write_all(b"0\r\n\r\n").await?;
        }
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        // What is cut off may be reset.
        let ended = tokio::time::timeout(Duration::from_secs(10), reading).await?;
        ensure!(ended.is_ok() || !whole, "{ended:?}");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(answer.contains("1\r\na\r\n"), "{answer}");
        ensure!(answer.ends_with("1\r\nb\r\n0\r\n\r\n") == whole, "{whole}: {answer}");
    }
    Ok(())
}

/// Answers before the request has come, and reads on.
#[tokio::test]
async fn a_client_that_stalls_after_its_answer_occupies_nothing() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let ended = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut read = vec![0; 4096];
        let _ = stream.read(&mut read).await?;
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await?;
        while stream.read(&mut read).await? > 0 {}
        anyhow::Ok(())
    });
    let gateway = gateway(&[addr], "timeouts: {idle: 500ms}\n")?;
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    ensure!(&first == b"HTTP/1.1 401", "{}", String::from_utf8_lossy(&first));
    // The client keeps its connection, and says nothing more.
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    ensure!(ended.is_ok(), "the instance's connection is held for ever");
    Ok(())
}

/// What is spoken to the instance makes no difference to what the client is told.
#[tokio::test]
async fn a_client_is_blamed_over_http2_as_well() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let h2c =
        "services: {app: {protocol: h2c}}\nlimits: {bodySize: 10B}\ntimeouts: {idle: 500ms}\n";
    let gateway = gateway(&[addr], h2c)?;
    for (body, status) in [("5\r\nhalf", "408"), ("b\r\nhello world\r\n0\r\n\r\n", "413")] {
        let mut stream = TcpStream::connect(gateway.addr).await?;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut first = [0; 12];
        let reading = stream.read_exact(&mut first);
        tokio::time::timeout(Duration::from_secs(10), reading).await??;
        let first = String::from_utf8_lossy(&first).into_owned();
        ensure!(first.ends_with(status), "{first}, not {status}");
    }
    Ok(())
}

/// Writes for ever, or reads nothing, and counts what the other side has taken.
pub(crate) async fn endless(reads: bool) -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let written = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&written);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            let _ = stream.read(&mut read).await;
            if !reads {
                kept.push(stream);
                continue;
            }
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    let more = stream.write(&[b'x'; 16_384]).await?;
                    counted.fetch_add(more, Ordering::Relaxed);
                }
                #[allow(unreachable_code, reason = "it says what the task returns")]
                anyhow::Ok(())
            });
        }
    });
    Ok((addr, written))
}

/// Waits until a count stands still, and returns it.
async fn settled(count: &AtomicUsize) -> anyhow::Result<usize> {
    eventually(Duration::from_secs(20), async || {
        let before = count.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let after = count.load(Ordering::Relaxed);
        ensure!(after == before && after > 0, "it goes on: {before}, {after}");
        Ok(after)
    })
    .await
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_instance_up() -> anyhow::Result<()> {
    let (addr, written) = endless(true).await?;
    let gateway = gateway(&[addr], "")?;
    let before = gateway.process.peak_memory()?;
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    let held = settled(&written).await?;
    ensure!(held < UNDERWAY, "{held} bytes were taken that nobody reads");
    let grown = gateway.process.peak_memory()? - before;
    ensure!(grown < MEMORY, "the gateway keeps {grown} KiB");
    // It goes on as the client does.
    let mut read = vec![0; 1 << 20];
    for _ in 0..2 * (held >> 20) {
        stream.read_exact(&mut read).await?;
    }
    ensure!(settled(&written).await? > held, "the instance was not let go on");
    Ok(())
}

/// Or else a client could hold instances for as long as it likes.
#[tokio::test]
async fn a_client_that_takes_nothing_for_long_is_cut_off() -> anyhow::Result<()> {
    let (addr, written) = endless(true).await?;
    let gateway = gateway(&[addr], "limits: {writeTime: 2s}\n")?;
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    // Slow is not silent.
    let mut read = vec![0; 1 << 20];
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.read_exact(&mut read).await?;
    }
    ensure!(gateway.metric("graylane_connections").await? > 0.0, "a slow client was cut off");
    let held = settled(&written).await?;
    eventually(Duration::from_secs(10), async || {
        let open = gateway.metric("graylane_connections").await?;
        ensure!(open == 0.0, "{open} connections");
        Ok(())
    })
    .await?;
    let mut taken = 0;
    let error = loop {
        match stream.read(&mut read).await {
            Ok(0) => anyhow::bail!("what came looks like all of it"),
            Ok(count) => taken += count,
            Err(error) => break error,
        }
        ensure!(taken < UNDERWAY, "it goes on after {held} bytes");
    };
    ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
    Ok(())
}

#[tokio::test]
async fn an_instance_that_does_not_read_holds_its_client_up() -> anyhow::Result<()> {
    let (addr, _) = endless(false).await?;
    let gateway = gateway(&[addr], "")?;
    let before = gateway.process.peak_memory()?;
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n").await?;
    let sent = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        while let Ok(more) = stream.write(&[b'x'; 16_384]).await {
            counted.fetch_add(more, Ordering::Relaxed);
        }
    });
    let held = settled(&sent).await?;
    sending.abort();
    ensure!(held < UNDERWAY, "{held} bytes were taken that nobody reads");
    let grown = gateway.process.peak_memory()? - before;
    ensure!(grown < MEMORY, "the gateway keeps {grown} KiB");
    Ok(())
}

#[tokio::test]
async fn a_route_has_limits_of_its_own() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let routes = "routes:\n\
                  - {service: app, match: {path: {prefix: /never}, methods: [GET]}, timeouts: {total: 200ms}}\n\
                  - {name: b, service: app, match: {path: {prefix: /never}}, timeouts: {firstByte: 200ms}}\n\
                  - {name: c, service: app, match: {path: {prefix: /events}}}\n\
                  timeouts: {total: 2s, firstByte: 1s}\n";
    let gateway = instance.gateway_with(routes)?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for method in [http::Method::GET, http::Method::DELETE] {
        let began = Instant::now();
        let answer = client.request(method.clone(), gateway.url("/never")).send().await?;
        ensure!(answer.status() == 504, "{method}: {}", answer.status());
        // Neither the limits of all others nor what a request may be sent again for.
        ensure!(began.elapsed() < Duration::from_millis(900), "{method}: {:?}", began.elapsed());
    }
    // What a route does not say is as for all.
    let began = Instant::now();
    let answer = client.get(gateway.url("/events")).send().await?;
    ensure!(answer.bytes().await.is_err(), "the answer was not cut off");
    ensure!(began.elapsed() > Duration::from_millis(1500), "after {:?}", began.elapsed());
    Ok(())
}

/// Each piece comes back before the next one is sent, whatever is spoken on either side.
#[tokio::test]
async fn a_stream_goes_both_ways_at_once() -> anyhow::Result<()> {
    for (client, protocol) in
        [(client_of_h1()?, "http1"), (client_of_h2()?, "http1"), (client_of_h2()?, "h2c")]
    {
        let instance = Instance::start().await?;
        let gateway =
            instance.gateway(&format!("services: {{app: {{protocol: {protocol}}}}}\n"))?;
        let (send, receive) = mpsc::channel::<Result<Bytes, Infallible>>(1);
        let pieces = stream::unfold(receive, async |mut it| Some((it.recv().await?, it)));
        let asking = client.post(gateway.url("/echo")).body(reqwest::Body::wrap_stream(pieces));
        let asking = tokio::spawn(asking.send());
        send.send(Ok(Bytes::from_static(b"first"))).await?;
        let limit = Duration::from_secs(10);
        let mut answer = tokio::time::timeout(limit, asking).await???;
        let mut next = async || anyhow::Ok(tokio::time::timeout(limit, answer.chunk()).await??);
        ensure!(next().await?.context("ended")? == "first", "{protocol}: another piece");
        for piece in ["second", "third"] {
            send.send(Ok(Bytes::from_static(piece.as_bytes()))).await?;
            ensure!(next().await?.context("ended")? == piece, "{protocol}: another piece");
        }
        drop(send);
        // A last piece may be empty.
        let rest = next().await?.unwrap_or_default();
        ensure!(rest.is_empty() && next().await?.is_none(), "{protocol}: it does not end");
    }
    Ok(())
}
