//! HTTP/1.1 as clients speak it, byte by byte: what is answered, what the connection is good for after it,
//! and that nothing ambiguous reaches an instance (RFC 9112).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Gateway, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::proxying::Instance;

const PATIENCE: Duration = Duration::from_secs(10);

/// A client's connection.
struct Client(TcpStream);

impl Client {
    async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(TcpStream::connect(addr).await?))
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.0.write_all(text.as_bytes()).await?)
    }

    /// Reads until it ends with these bytes.
    async fn until(&mut self, end: &str) -> anyhow::Result<String> {
        let mut read = Vec::new();
        let reading = async {
            while !read.ends_with(end.as_bytes()) {
                read.push(self.0.read_u8().await?);
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(PATIENCE, reading).await;
        let text = String::from_utf8_lossy(&read).into_owned();
        match ended {
            Ok(Ok(())) => Ok(text),
            other => anyhow::bail!("{other:?} after {text:?}, waiting for {end:?}"),
        }
    }

    /// Reads until the gateway ends the connection.
    async fn rest(&mut self) -> anyhow::Result<String> {
        let mut read = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut read)).await??;
        Ok(String::from_utf8_lossy(&read).into_owned())
    }
}

/// Sends bytes, and returns everything that comes back.
async fn exchange(gateway: &Gateway, text: &str) -> anyhow::Result<String> {
    let mut client = Client::connect(gateway.addr).await?;
    client.send(text).await?;
    client.rest().await
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let body = "x".repeat(20_000);
    let text = format!(
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\nPOST /length HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n\
         {body}POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n\
         GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        body.len()
    );
    let answer = exchange(&gateway, &text).await?;
    ensure!(answer.matches("HTTP/1.1 200 OK\r\n").count() == 4, "{answer}");
    let at = |what: &str| answer.find(what).with_context(|| format!("no {what} in {answer}"));
    let order = [at("hello")?, at("20000")?, at("\r\n\r\n3")?, at("connection: close")?];
    ensure!(order.is_sorted(), "{order:?}: {answer}");
    for expected in ["GET /a", "POST /length", "POST /length", "GET /c"] {
        let event = instance.event().await?;
        ensure!(event == expected, "{event}, not {expected}");
    }
    ensure!(instance.silent().await, "what stood behind the last request was sent");
    Ok(())
}

/// Requests that two readers could read in two ways: refused, and the rest of the connection with them.
const AMBIGUOUS: [&str; 20] = [
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nFoo: bar\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[tokio::test]
async fn nothing_ambiguous_is_passed_on() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("accessLog: {enabled: true, file: '{dir}/access.log'}\n")?;
    for text in AMBIGUOUS {
        let answer = exchange(&gateway, text).await?;
        ensure!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text:?}: {answer}");
        ensure!(answer.matches("HTTP/1.1").count() == 1, "{text:?}: {answer}");
        for part in [
            "connection: close\r\n",
            "application/problem+json",
            "x-request-id: ",
            "\"bad-request\"",
        ] {
            ensure!(answer.contains(part), "no {part}: {answer}");
        }
    }
    ensure!(instance.silent().await, "one of them was passed on");
    eventually(PATIENCE, async || {
        let log = std::fs::read_to_string(gateway.folder.path().join("access.log"))?;
        let lines = log.lines().filter(|line| line.contains("\"bad-request\"")).count();
        ensure!(lines == AMBIGUOUS.len(), "{lines} of them were logged");
        Ok(())
    })
    .await
}

/// A body that goes wrong on its way ends the connection; the instance gets no end of it.
#[tokio::test]
async fn a_body_that_goes_wrong_is_not_completed() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    for chunks in [
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n0\r\n\r\n",
    ] {
        let head =
            "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let answer = exchange(&gateway, &format!("{head}{chunks}")).await?;
        ensure!(answer.starts_with("HTTP/1.1 400"), "{chunks:?}: {answer}");
        ensure!(answer.contains("connection: close\r\n"), "{chunks:?}: {answer}");
    }
    // Where the request had been passed on before that, the instance never got the end of it.
    let mut client = Client::connect(gateway.addr).await?;
    client
        .send(
            "POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        )
        .await?;
    while instance.event().await? != "POST /trailers" {}
    client.send("3\r\nabcd\r\n0\r\n\r\n").await?;
    let answer = client.rest().await?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    ensure!(instance.event().await? == "a broken body", "it came to an end");
    Ok(())
}

#[tokio::test]
async fn too_much_is_told_apart() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {headSize: 2KiB, headers: 10, targetSize: 200B}\n")?;
    let long = |count| "x".repeat(count);
    for (text, status, code) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(300)), 414, "target-too-long"),
        (format!("GET /{}", long(4000)), 414, "target-too-long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(3000)), 431, "head-too-large"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10)),
            431,
            "head-too-large",
        ),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505, "version-not-served"),
    ] {
        let answer = exchange(&gateway, &text).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        ensure!(answer.contains(&format!("\"code\":\"{code}\"")), "{code}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_head_is_given_up_and_a_silent_client_too() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {headTime: 500ms, keepAlive: 1500ms}\n")?;
    let began = Instant::now();
    let mut slow = Client::connect(gateway.addr).await?;
    slow.send("GET / HTTP/1.1\r\n").await?;
    let answer = slow.rest().await?;
    ensure!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ensure!(began.elapsed() < Duration::from_millis(1400), "after {:?}", began.elapsed());
    // Between requests it may be silent for longer, and nothing is said when it is not heard of again.
    let mut idle = Client::connect(gateway.addr).await?;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    idle.until("0\r\n\r\n").await?;
    let began = Instant::now();
    ensure!(idle.rest().await?.is_empty(), "something was said");
    let waited = began.elapsed();
    ensure!(waited > Duration::from_millis(1400), "after {waited:?}");
    // A drop at a time does not keep a head alive.
    let mut drops = Client::connect(gateway.addr).await?;
    let began = Instant::now();
    for _ in 0..30 {
        // Until it has been given up.
        if drops.send("GET ").await.is_err() || began.elapsed() > Duration::from_secs(2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(drops.rest().await.unwrap_or_default().starts_with("HTTP/1.1 4"), "it was waited for");
    Ok(())
}

#[tokio::test]
async fn old_clients_are_answered_in_their_way() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    // A body without a length ends with the connection.
    let answer = exchange(&gateway, "GET / HTTP/1.0\r\n\r\n").await?;
    ensure!(
        answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\nhello world"),
        "{answer}"
    );
    ensure!(!answer.contains("transfer-encoding"), "{answer}");
    let mut client = Client::connect(gateway.addr).await?;
    for _ in 0..2 {
        client
            .send("POST /length HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
            .await?;
        let answer = client.until("\r\n\r\n3").await?;
        ensure!(answer.contains("connection: keep-alive\r\n"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_have_a_date_and_one_end() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let mut client = Client::connect(gateway.addr).await?;
    for (text, expected, end) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "transfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n", "content-length: 1234\r\n", "\r\n\r\n"),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\n", "\r\n\r\n"),
        ("GET http://a/length HTTP/1.1\r\nHost: b\r\n\r\n", "content-length: 1\r\n", "\r\n\r\n0"),
    ] {
        client.send(text).await?;
        let answer = client.until(end).await?;
        ensure!(answer.contains(expected), "{text}: {answer}");
        ensure!(answer.matches("\r\ndate: ").count() == 1, "{text}: {answer}");
    }
    Ok(())
}

/// Fields behind the body are for those who know them (RFC 9110, section 6.5.1).
#[tokio::test]
async fn fields_behind_an_answer_are_for_those_who_ask_for_them() -> anyhow::Result<()> {
    let (addr, mut told) = crate::forging::instance().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("r.yaml"),
        format!("services: {{app: [{{address: '{addr}'}}]}}"),
    )?;
    let config = "routes: [{service: app}]\ndiscovery: {files: ['{dir}/r.yaml']}\n";
    let gateway = Gateway::start_in(folder, config)?;
    let mut client = Client::connect(gateway.addr).await?;
    for (te, end, asked) in [("", "\r\n0\r\n\r\n", 0), ("TE: trailers\r\n", "x-kept: 1\r\n\r\n", 1)]
    {
        client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{te}\r\n")).await?;
        client.until(end).await?;
        let told = told.recv().await.context("no instance")?;
        let lines =
            told.split("\r\n").filter(|line| ["te: trailers", "connection: te"].contains(line));
        ensure!(lines.count() == asked * 2, "{told}");
    }
    Ok(())
}

/// A request whose body nobody wants leaves the connection usable if it is there already, and else the
/// answer can be read before the connection ends.
#[tokio::test]
async fn a_body_that_nobody_wants_costs_no_answer() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {bodySize: 100KiB}\n")?;
    let mut client = Client::connect(gateway.addr).await?;
    let passed = "Via: 1.1 graylane\r\n".repeat(10);
    for _ in 0..2 {
        let small = format!("POST / HTTP/1.1\r\nHost: a\r\n{passed}Content-Length: 5\r\n\r\nhello");
        client.send(&small).await?;
        let answer = client.until("}").await?;
        ensure!(answer.contains("round in a loop"), "{answer}");
    }
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n";
    client.send(head).await?;
    let sending = async {
        // Until the gateway has had enough.
        while client.0.write_all(&[b'x'; 10_000]).await.is_ok() {}
    };
    let _ = tokio::time::timeout(Duration::from_millis(300), sending).await;
    let answer = client.until("}").await?;
    ensure!(answer.contains("HTTP/1.1 413 ") && answer.contains("body-too-large"), "{answer}");
    Ok(())
}

/// Nobody is told to go on whose body is not wanted.
#[tokio::test]
async fn who_waits_to_be_asked_is_asked_once_or_not_at_all() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {bodySize: 100B}\n")?;
    let ask = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut client = Client::connect(gateway.addr).await?;
    for _ in 0..2 {
        client.send(&ask("/length", 5)).await?;
        let invited = client.until("\r\n\r\n").await?;
        ensure!(invited == "HTTP/1.1 100 Continue\r\n\r\n", "{invited}");
        client.send("hello").await?;
        ensure!(client.until("\r\n\r\n5").await?.starts_with("HTTP/1.1 200"), "not answered");
    }
    client.send(&ask("/length", 1000)).await?;
    let answer = client.until("}").await?;
    ensure!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Who does not wait is not asked.
    let mut client = Client::connect(gateway.addr).await?;
    client.send(&format!("{}hello", ask("/length", 5))).await?;
    let answer = client.until("\r\n\r\n5").await?;
    ensure!(!answer.contains("100 Continue"), "{answer}");
    Ok(())
}

/// What is sent in the hope of an upgrade that is not granted is not taken for a request.
#[tokio::test]
async fn hope_for_an_upgrade_is_no_request() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
                GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = exchange(&gateway, text).await?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello"), "{answer}");
    ensure!(instance.event().await? == "GET /", "another request");
    ensure!(instance.silent().await, "what was behind it was taken for a request");
    // With the upgrade granted it belongs to the other protocol.
    let text =
        "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nping";
    let answer = exchange(&gateway, text).await?;
    ensure!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\nping"), "{answer}");
    Ok(())
}
