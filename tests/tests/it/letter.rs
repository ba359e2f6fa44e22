//! What an instance is sent for requests that are odd, byte by byte: each thing is said once, and in one way
//! (RFC 9110, 9112 and 9113 by the letter).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Gateway, eventually};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::proxying::{Instance, upgraded};

/// An instance that keeps what it is sent, and answers each head, or end of chunks, with the same bytes.
struct Recorder {
    addr: SocketAddr,
    sent: Arc<Mutex<String>>,
}

impl Recorder {
    async fn start(answer: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let sent = Arc::<Mutex<String>>::default();
        let kept = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, Arc::clone(&kept), answer));
            }
        });
        Ok(Self { addr, sent })
    }

    fn gateway(&self, more: &str) -> anyhow::Result<Gateway> {
        let folder = tempfile::tempdir()?;
        let registry = json!({ "services": { "app": [{ "address": self.addr }] } });
        std::fs::write(folder.path().join("registry.yaml"), registry.to_string())?;
        Gateway::start_in(
            folder,
            &format!(
                "routes: [{{service: app}}]\ndiscovery: {{files: ['{{dir}}/registry.yaml']}}\n{more}"
            ),
        )
    }

    /// Returns what it was sent since it was asked last, in lower case.
    fn sent(&self) -> anyhow::Result<String> {
        let mut sent = self.sent.lock().map_err(|_| anyhow::anyhow!("it panicked"))?;
        Ok(std::mem::take(&mut *sent).to_ascii_lowercase())
    }
}

async fn record(
    mut stream: TcpStream,
    kept: Arc<Mutex<String>>,
    answer: &'static str,
) -> anyhow::Result<()> {
    let mut read = [0; 4096];
    loop {
        let count = stream.read(&mut read).await?;
        ensure!(count > 0, "the gateway ended it");
        let text = String::from_utf8_lossy(read.get(..count).unwrap_or_default());
        let ends = text.ends_with("\r\n\r\n") || text.ends_with("hello");
        kept.lock().map_err(|_| anyhow::anyhow!("it panicked"))?.push_str(&text);
        if ends {
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

const NO_BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Sends bytes, and returns the head of what comes back.
async fn ask(addr: SocketAddr, text: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await??;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// What is asked, what the instance is sent of it, and what it is not.
const SENT: [(&str, &[&str], &[&str]); 14] = [
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        &["\r\ncontent-length: 5\r\n"],
        &["5, 5"],
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 005\r\n\r\nhello",
        &["\r\ncontent-length: 5\r\n"],
        &["005", "content-length: 5\r\ncontent-length"],
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        &["\r\ncontent-length: 5\r\n"],
        &["transfer-encoding"],
    ),
    ("GET / HTTP/1.0\r\n\r\n", &["get / http/1.1\r\n", "\r\nhost: 127.0.0.1:"], &[]),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        &["\r\nhost: a\r\n"],
        &["expect"],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: host, x\r\nX: 1\r\n\r\n",
        &["\r\nhost: a\r\n"],
        &["\r\nx: 1"],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        &["get / http/1.1\r\n"],
        &["upgrade", "http2-settings"],
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
        &["\r\ncontent-length: 5\r\n"],
        &["upgrade"],
    ),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        &["get / http/1.1\r\n"],
        &["upgrade"],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, TE\r\nUpgrade: x\r\nTE: trailers\r\n\r\n",
        &["\r\nupgrade: x\r\n", "\r\nconnection: upgrade, te\r\n", "\r\nte: trailers\r\n"],
        &[],
    ),
    (
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n",
        &["options * http/1.1\r\n", "\r\nmax-forwards: 4\r\n"],
        &[],
    ),
    ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", &["options * http/1.1\r\n"], &[]),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nX_Request_Id: evil\r\nX-Forwarded-User: evil\r\n\
         X_Forwarded-Ssl: evil\r\nTransfer_Encoding: evil\r\nContent_Length: evil\r\nX_Other: kept\r\n\
         Content-Length: 5\r\n\r\nhello",
        &["\r\nx_other: kept\r\n", "\r\nx-request-id: "],
        &["evil"],
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\
         X-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nHost: b\r\nContent-Length: 9\r\nAuthorization: c\r\n\r\n",
        &["\r\nx-sum: 1\r\n"],
        &["6.6.6.6", "host: b", "content-length", "authorization"],
    ),
];

#[tokio::test]
async fn what_is_said_in_several_ways_is_passed_on_in_one() -> anyhow::Result<()> {
    let recorder = Recorder::start(NO_BODY).await?;
    let gateway = recorder.gateway("")?;
    for (text, expected, never) in SENT {
        let answer = ask(gateway.addr, text).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{text:?}: {answer}");
        let sent = recorder.sent()?;
        for part in expected {
            ensure!(sent.contains(part), "{text:?} was sent without {part:?}: {sent:?}");
        }
        for part in never {
            ensure!(!sent.contains(part), "{text:?} was sent with {part:?}: {sent:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_or_what_is_asked_must_be_clear() -> anyhow::Result<()> {
    let recorder = Recorder::start(NO_BODY).await?;
    let gateway = recorder.gateway("")?;
    for (text, status) in [
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x@y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 200),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 200),
    ] {
        let answer = ask(gateway.addr, text).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}: {answer}");
        ensure!(
            recorder.sent()?.is_empty() == (status != 200),
            "{text:?}: the instance heard of it"
        );
    }
    // Over HTTP/2 by a client that does not mind what it asks for.
    for (target, host, status) in [
        ("http://internal@public.example/", None, 400),
        ("http://public.example/", None, 200),
        ("http://public.example/", Some("Public.example"), 200),
        ("http://public.example/", Some("internal"), 400),
        ("http://[::1]:80/", None, 200),
    ] {
        let stream = TcpStream::connect(gateway.addr).await?;
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await?;
        tokio::spawn(connection);
        let mut request = http::Request::get(target).body(Empty::<bytes::Bytes>::new())?;
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse()?);
        }
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == status, "{target}: {}", answer.status());
    }
    Ok(())
}

/// What is behind a request of which nobody knows whom it is for may be part of it.
#[tokio::test]
async fn nothing_behind_what_is_ambiguous_is_a_request() -> anyhow::Result<()> {
    let recorder = Recorder::start(NO_BODY).await?;
    let gateway = recorder.gateway("")?;
    for lines in ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n"] {
        let mut stream = TcpStream::connect(gateway.addr).await?;
        let two = format!("GET / HTTP/1.1\r\n{lines}\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(two.as_bytes()).await?;
        let mut answers = String::new();
        let reading = stream.read_to_string(&mut answers);
        tokio::time::timeout(Duration::from_secs(10), reading).await.context(lines)??;
        ensure!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
        ensure!(
            answers.matches("HTTP/1.1 ").count() == 1 && recorder.sent()?.is_empty(),
            "{answers}"
        );
    }
    Ok(())
}

/// Whoever reads the rest of it would take for a request what the other side takes for something else.
#[tokio::test]
async fn a_connection_is_given_away_only_where_that_was_asked_for() -> anyhow::Result<()> {
    let granted =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let recorder = Recorder::start(granted).await?;
    let gateway = recorder.gateway("")?;
    let upgrade = "Connection: upgrade\r\nUpgrade:";
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.0\r\nHost: a\r\n{upgrade} websocket\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{upgrade} websocket\r\nContent-Length: 5\r\n\r\nhello"
        ),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade} h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade} TLS/1.2\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade} other\r\n\r\n"),
    ] {
        let answer = ask(gateway.addr, &text).await?;
        ensure!(answer.starts_with("HTTP/1.1 502 "), "{text:?}: {answer}");
    }
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade} websocket\r\n\r\n");
    let answer = ask(gateway.addr, &text).await?;
    ensure!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    Ok(())
}

#[tokio::test]
async fn connections_that_are_given_away_count_until_they_end() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {connections: 2}\n")?;
    let (one, _) = upgraded(gateway.addr).await?;
    let (two, _) = upgraded(gateway.addr).await?;
    let mut third = TcpStream::connect(gateway.addr).await?;
    let mut read = [0; 1];
    let ended = tokio::time::timeout(Duration::from_secs(10), third.read(&mut read)).await?;
    ensure!(matches!(ended, Ok(0) | Err(_)), "a third connection was taken");
    drop((one, two));
    eventually(Duration::from_secs(10), async || {
        let answer = ask(gateway.addr, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(())
    })
    .await
}

/// Nobody may hold a connection by saying nothing on it, or no more.
#[tokio::test]
async fn silence_over_http2_has_an_end() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {headTime: 500ms, keepAlive: 1s}\n")?;
    let stream = TcpStream::connect(gateway.addr).await?;
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    let ended = tokio::spawn(connection);
    for _ in 0..3 {
        let request = http::Request::get("http://a/a").body(Empty::<bytes::Bytes>::new())?;
        ensure!(sender.send_request(request).await?.status() == 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    ensure!(!ended.is_finished(), "it ended between two requests");
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    ended.context("a connection without a stream stays")??.context("it broke off")?;
    Ok(())
}
