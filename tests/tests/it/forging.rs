//! Lanes that clients forge, and lanes that instances give away, byte by byte (G6, G9).

mod http2;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream;
use gray_tests::{Echo, Gateway, Stub};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const CONFIG: &str = "\
routes: [{service: app}]
discovery: {files: ['{dir}/registry.yaml']}
rules: {files: ['{dir}/rules.yaml']}
propagation: {headers: [x-mse-tag], baggage: true}
";

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules: [{name: canary, when: {header: {name: x-canary, equal: '1'}}}]
";

/// Answers with a lane in every place where one can stand.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nGray: GRAY\r\nX-Mse-Tag: gray\r\ngray_: GRAY\r\n\
                      Connection: X-Inner\r\nX-Inner: 1\r\nTransfer-Encoding: chunked\r\n\
                      Trailer: Gray\r\n\r\n1\r\nx\r\n0\r\nGray: GRAY\r\nx-mse-tag: gray\r\n\
                      X-Kept: 1\r\n\r\n";

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\nGray: GRAY\r\nX-Mse-Tag: gray\r\n\r\n";

/// An instance that tells the bytes of each request: one request per connection.
pub(crate) async fn instance() -> anyhow::Result<(SocketAddr, mpsc::UnboundedReceiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !is_whole(&bytes) && stream.read_buf(&mut bytes).await? > 0 {}
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let upgrades = text.to_ascii_lowercase().contains("\r\nupgrade:");
                let answer = if upgrades { SWITCHED } else { ANSWER };
                let _ = tell.send(text);
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    Ok((addr, told))
}

/// A head, and where it is chunked, its last chunk with the trailers.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if !head.contains("transfer-encoding: chunked") {
        return true;
    }
    let end = body.strip_prefix("0\r\n").or_else(|| Some(body.split_once("\r\n0\r\n")?.1));
    end.is_some_and(|end| end == "\r\n" || end.ends_with("\r\n\r\n"))
}

struct Edge {
    gateway: Gateway,
    told: mpsc::UnboundedReceiver<String>,
}

impl Edge {
    async fn start() -> anyhow::Result<Self> {
        let (addr, told) = instance().await?;
        let folder = tempfile::tempdir()?;
        let registry =
            format!("services: {{app: [{{address: '{addr}', metadata: {{version: V1}}}}]}}");
        std::fs::write(folder.path().join("registry.yaml"), registry)?;
        std::fs::write(folder.path().join("rules.yaml"), RULES)?;
        let gateway = Gateway::start_in(folder, CONFIG)?;
        gateway.ready().await?;
        Ok(Self { gateway, told })
    }

    /// Sends bytes; returns what the instance and the client got.
    async fn send(&mut self, bytes: &str) -> anyhow::Result<(String, String)> {
        let mut stream = TcpStream::connect(self.gateway.addr).await?;
        stream.write_all(bytes.as_bytes()).await?;
        let limit = Duration::from_secs(10);
        let told = tokio::time::timeout(limit, self.told.recv()).await?.context("no instance")?;
        let mut answer = Vec::new();
        tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await??;
        Ok((told, String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// The lines that name a lane, or that something could take for one that does.
fn lanes(text: &str) -> Vec<String> {
    let names = ["gray", "x-mse-tag", "x_mse_tag", "baggage", "x-graylane"];
    let lines = text.split("\r\n").map(str::to_ascii_lowercase);
    lines.filter(|line| names.iter().any(|name| line.starts_with(name))).collect()
}

/// What the gateway itself says to a service, and nothing else.
const VERDICT: [&str; 2] = ["gray: prod", "x-graylane-hop: from=graylane; to=app"];

fn only_the_verdict(told: &str) -> anyhow::Result<()> {
    let mut lines = lanes(told);
    lines.sort();
    ensure!(lines == VERDICT, "{lines:?} in\n{told}");
    Ok(())
}

const FORGED: [&str; 13] = [
    "gray: GRAY",
    "Gray: GRAY",
    "GRAY: GRAY",
    "gRaY: GRAY\r\nGray: blue",
    "gray:GRAY\r\ngray: PROD",
    "Gray_: GRAY",
    "gray : GRAY",
    "X-Mse-Tag: gray",
    "x_MSE_tag: gray",
    "Baggage: gray=gray",
    "baggage: a=1,gray=gray;p=1",
    "X-Graylane-Hop: from=a; to=app; fallback=base",
    "X-Graylane-Tag: 1;k;GRAY;99999999999;p;AAAA",
];

#[tokio::test]
async fn no_spelling_of_a_lane_comes_in() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    for forged in FORGED {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{forged}\r\nConnection: close\r\n\r\n");
        if forged.contains(" :") {
            // No field name ends with a blank (RFC 9112, section 5.1): it must not come through.
            let mut stream = TcpStream::connect(edge.gateway.addr).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            continue;
        }
        let (told, _) = edge.send(&request).await?;
        let told = told.replace("baggage: a=1\r\n", "");
        only_the_verdict(&told).with_context(|| forged)?;
    }
    Ok(())
}

/// The same where the instance speaks HTTP/2, whatever the client does.
#[tokio::test]
async fn no_spelling_of_a_lane_comes_in_over_http2() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let registry = format!("services:\n  app:\n{}", stub.registry_line());
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let config = format!("{CONFIG}services: {{app: {{protocol: h2c}}}}\n");
    let gateway = Gateway::start_in(folder, &config)?;
    gateway.ready().await?;
    for client in [
        reqwest::Client::builder().no_proxy().build()?,
        reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?,
    ] {
        for forged in FORGED.into_iter().filter(|forged| !forged.contains(" :")) {
            let mut request = client.get(gateway.url("/"));
            for (name, value) in forged.split("\r\n").filter_map(|line| line.split_once(':')) {
                request = request.header(name, value.trim());
            }
            let echo = Echo::read(request.send().await?).await?;
            ensure!(echo.header("via").len() == 1, "{}", echo.lines());
            let told = echo.lines().replace("baggage: a=1\r\n", "");
            only_the_verdict(&told).with_context(|| forged)?;
        }
    }
    Ok(())
}

/// Named in `Connection`, a field is removed before the gateway writes its own, not after.
#[tokio::test]
async fn connection_removes_no_verdict() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    for named in ["gray", "Gray, x-mse-tag", "close, gray, X-Forwarded-For, x-graylane-hop"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: {named}\r\ngray: GRAY\r\nConnection: close\r\n\r\n"
        );
        let (told, _) = edge.send(&request).await?;
        only_the_verdict(&told)?;
        ensure!(told.to_ascii_lowercase().contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn no_lane_comes_in_by_trailers() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    let (told, _) = edge
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
             Trailer: Gray, X-Mse-Tag, X-Sent\r\nConnection: close, TE\r\n\r\n\
             1\r\nx\r\n0\r\nGray: GRAY\r\nX-Mse-Tag: gray\r\nx_mse_tag: gray\r\n\
             Gray_: GRAY\r\nBaggage: gray=gray\r\nX-Sent: 1\r\n\r\n",
        )
        .await?;
    only_the_verdict(&told)?;
    ensure!(told.contains("\r\nx-sent: 1\r\n"), "trailers did not come through: {told}");
    Ok(())
}

/// From HTTP/2 to an instance of HTTP/1.1, which is told the trailers that were announced.
#[tokio::test]
async fn no_lane_comes_in_by_trailers_of_http2() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("gray", "GRAY"),
        ("gray", "blue"),
        ("gray_", "GRAY"),
        ("x-mse-tag", "gray"),
        ("x_mse_tag", "gray"),
        ("baggage", "gray=gray"),
        ("x-graylane-hop", "from=a; to=app"),
        ("x-sent", "1"),
    ] {
        trailers.append(name, HeaderValue::from_static(value));
    }
    let stream = TcpStream::connect(edge.gateway.addr).await?;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let request = Request::post("http://a/").header("gray", "GRAY").header("gray_", "GRAY");
    let answer = client
        .send_request(
            request.header("te", "trailers").header("trailer", "gray, x-sent").body(body)?,
        )
        .await?;
    ensure!(answer.status() == 200, "{answer:?}");
    let limit = Duration::from_secs(10);
    let told = tokio::time::timeout(limit, edge.told.recv()).await?.context("no instance")?;
    only_the_verdict(&told)?;
    ensure!(told.contains("\r\nx-sent: 1\r\n"), "trailers did not come through: {told}");
    Ok(())
}

#[tokio::test]
async fn no_lane_comes_in_by_an_upgrade() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    for forged in
        ["Gray: GRAY\r\ngray: blue", "X-Mse-Tag: gray", "gray_: GRAY", "Baggage: gray=gray"]
    {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, gray\r\nUpgrade: websocket\r\n{forged}\r\n\r\n"
        );
        let (told, answer) = edge.send(&request).await?;
        ensure!(told.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n"), "{told}");
        only_the_verdict(&told)?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        ensure!(lanes(&answer).is_empty(), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn no_lane_goes_out() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    for more in ["", "TE: trailers\r\nConnection: TE\r\n"] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\n{more}x-canary: 1\r\nConnection: close\r\n\r\n");
        let (told, answer) = edge.send(&request).await?;
        // A gray request that base serves is gray still.
        ensure!(lanes(&told).contains(&"gray: gray".to_owned()), "{told}");
        ensure!(lanes(&answer).is_empty(), "{answer}");
        ensure!(!answer.contains("X-Inner") && !answer.contains("x-inner"), "{answer}");
        ensure!(answer.contains("\r\nx\r\n"), "{answer}");
    }
    Ok(())
}
