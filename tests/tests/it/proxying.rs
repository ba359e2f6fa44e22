//! What must survive the way through the gateway, byte by byte and piece by piece.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gray_tests::{Gateway, eventually};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Body = BoxBody<Bytes, Infallible>;

/// An instance that tells what happens to it.
pub(crate) struct Instance {
    addr: SocketAddr,
    events: mpsc::UnboundedReceiver<String>,
}

impl Instance {
    /// Speaks HTTP/1.1 or HTTP/2, whatever it is spoken to in.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Ok(Self::start_counting().await?.0)
    }

    /// Also counts the connections that are made.
    async fn start_counting() -> anyhow::Result<(Self, Arc<AtomicUsize>)> {
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (tell, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let tell = tell.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, tell.clone()));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ =
                        server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok((Self { addr, events }, connections))
    }

    pub(crate) fn gateway(&self, more: &str) -> anyhow::Result<Gateway> {
        self.gateway_with(&format!("routes: [{{service: app}}]\n{more}"))
    }

    pub(crate) fn gateway_with(&self, config: &str) -> anyhow::Result<Gateway> {
        let folder = tempfile::tempdir()?;
        let registry = format!("services: {{app: [{{address: '{}'}}]}}", self.addr);
        std::fs::write(folder.path().join("registry.yaml"), registry)?;
        let discovery = "discovery: {files: ['{dir}/registry.yaml']}\n";
        Gateway::start_in(folder, &format!("{discovery}{config}"))
    }

    /// Tells whether nothing has happened to it that was not told yet.
    pub(crate) async fn silent(&mut self) -> bool {
        let more = tokio::time::timeout(Duration::from_millis(300), self.events.recv());
        more.await.is_err()
    }

    pub(crate) async fn event(&mut self) -> anyhow::Result<String> {
        let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await?;
        event.context("the instance ended")
    }
}

/// Grants the protocol that is asked for.
fn granting(request: &Request<Incoming>) -> HeaderMap {
    let upgrade = HeaderValue::from_static("upgrade");
    let protocol = request.headers().get("upgrade").cloned().unwrap_or_else(|| upgrade.clone());
    let lines = [(http::header::CONNECTION, upgrade), (http::header::UPGRADE, protocol)];
    lines.into_iter().collect()
}

/// Tells when it is dropped.
struct Told(mpsc::UnboundedSender<String>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send("nobody waits".to_owned());
    }
}

fn pieces(pieces: Vec<&'static str>) -> Body {
    let frames =
        pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

async fn answer(
    mut request: Request<Incoming>,
    tell: mpsc::UnboundedSender<String>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let version = format!("{:?}", request.version());
    let _ = tell.send(format!("{} {path}", request.method()));
    let mut response = Response::new(Empty::new().boxed());
    match path.as_str() {
        "/echo" => *response.body_mut() = request.into_body().map_err(|_| unreachable(())).boxed(),
        "/length" => {
            let mut length = 0;
            while let Some(Ok(frame)) = request.body_mut().frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
            }
            *response.body_mut() = Full::new(Bytes::from(length.to_string())).boxed();
        }
        "/trailers" => {
            let sent = request.into_body().collect().await.ok();
            let _ =
                tell.send(match sent.map(|body| body.trailers().cloned().unwrap_or_default()) {
                    Some(seen) => format!("{version} trailers {seen:?}"),
                    None => "a broken body".to_owned(),
                });
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(trailers)];
            *response.body_mut() = BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok))));
        }
        "/events" => {
            let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
            tokio::spawn(async move {
                let _ = send.send(Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))).await;
                send.closed().await;
                let _ = tell.send("client gone".to_owned());
            });
            let frames = stream::unfold(receive, async |mut it| Some((it.recv().await?, it)));
            *response.body_mut() = BodyExt::boxed(StreamBody::new(frames));
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", kind);
        }
        "/never" => {
            // Told when nobody waits for it any more.
            let _waiting = Told(tell);
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        "/upgrade" => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = granting(&request);
            tokio::spawn(say_it_again(request));
        }
        "/nothing" => *response.status_mut() = StatusCode::NO_CONTENT,
        "/refuse" => *response.status_mut() = StatusCode::EXPECTATION_FAILED,
        "/head" => {
            response.headers_mut().insert("content-length", HeaderValue::from_static("1234"));
        }
        _ => *response.body_mut() = pieces(vec!["hello ", "world"]),
    }
    Ok(response)
}

/// Takes the upgrade, answers four bytes by themselves, and ends.
async fn say_it_again(request: Request<Incoming>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let mut upgraded = TokioIo::new(upgraded);
    let mut said = [0; 4];
    let _ = upgraded.read_exact(&mut said).await;
    let _ = upgraded.write_all(&said).await;
    let _ = upgraded.shutdown().await;
}

fn unreachable<T>((): ()) -> T {
    panic!("a body broke that should not")
}

/// Sends bytes, and returns what comes back until the connection ends or the time is up.
async fn raw(addr: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), reading).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn bodies_of_any_size_pass_both_ways() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let body: Vec<u8> = (0..32_u32 << 20).map(|it| u8::try_from(it % 251).unwrap_or(0)).collect();
    let answer = client.post(gateway.url("/echo")).body(body.clone()).send().await?;
    ensure!(answer.bytes().await? == body, "the body was changed");
    let chunked = stream::iter((0..100).map(|_| Ok::<_, Infallible>(vec![b'x'; 1000])));
    let answer = client.post(gateway.url("/length")).body(reqwest::Body::wrap_stream(chunked));
    ensure!(answer.send().await?.text().await? == "100000", "pieces were lost");
    Ok(())
}

#[tokio::test]
async fn the_target_and_head_requests_pass() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let text =
        raw(gateway.addr, "HEAD /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    ensure!(text.contains("content-length: 1234"), "{text}");
    ensure!(text.ends_with("\r\n\r\n"), "{text}");
    ensure!(instance.event().await? == "HEAD /head", "another method came");
    let text = raw(
        gateway.addr,
        "GET http://other.example/x/%2e%2e/y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    ensure!(instance.event().await? == "GET /x/%2e%2e/y", "the path was changed");
    Ok(())
}

#[tokio::test]
async fn answers_without_a_body_keep_their_connection() -> anyhow::Result<()> {
    let (instance, connections) = Instance::start_counting().await?;
    let gateway = instance.gateway("")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for _ in 0..10 {
        ensure!(client.head(gateway.url("/head")).send().await?.status() == 200);
        ensure!(client.get(gateway.url("/nothing")).send().await?.status() == 204);
    }
    let connections = connections.load(Ordering::Relaxed);
    ensure!(connections <= 2, "{connections} connections for one request at a time");
    ensure!(
        gateway.metric("graylane_responses_cut_short_total").await? < 0.5,
        "noted as cut short"
    );
    Ok(())
}

/// Asks for an upgrade, and returns the connection with the head of the answer.
pub(crate) async fn upgraded(addr: SocketAddr) -> anyhow::Result<(TcpStream, String)> {
    upgraded_to(addr, "websocket").await
}

async fn upgraded_to(addr: SocketAddr, protocol: &str) -> anyhow::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!(
        "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok((stream, String::from_utf8_lossy(&head).into_owned()))
}

#[tokio::test]
async fn events_arrive_as_they_come_and_a_gone_client_is_noticed() -> anyhow::Result<()> {
    for (client, protocol) in
        [(client_of_h1()?, "http1"), (client_of_h2()?, "http1"), (client_of_h2()?, "h2c")]
    {
        let mut instance = Instance::start().await?;
        let gateway =
            instance.gateway(&format!("services: {{app: {{protocol: {protocol}}}}}\n"))?;
        let answer = client.get(gateway.url("/events")).send().await?;
        let mut events = answer.bytes_stream();
        let first = tokio::time::timeout(Duration::from_secs(10), events.next()).await?;
        ensure!(first.context("ended")?? == "data: 1\n\n", "another event");
        // Over HTTP/2 the connection stays, and only its stream is reset.
        drop(events);
        ensure!(instance.event().await? == "GET /events", "another request");
        ensure!(instance.event().await? == "client gone", "the instance goes on: {protocol}");
    }
    Ok(())
}

pub(crate) fn client_of_h1() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().build()
}

pub(crate) fn client_of_h2() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()
}

#[tokio::test]
async fn a_request_that_is_given_up_over_http2_is_logged_as_such() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("accessLog: {enabled: true, file: '{dir}/access.log'}\n")?;
    let client = client_of_h2()?;
    let asking = tokio::spawn(client.get(gateway.url("/never")).send());
    ensure!(instance.event().await? == "GET /never", "another request");
    asking.abort();
    ensure!(instance.event().await? == "nobody waits", "the instance works for nobody");
    eventually(Duration::from_secs(10), async || {
        let log = std::fs::read_to_string(gateway.folder.path().join("access.log"))?;
        let given_up = log.contains("\"status\":499") && log.contains("\"error\":\"client-gone\"");
        ensure!(given_up, "{log}");
        Ok(())
    })
    .await?;
    // Its connection goes on.
    let answer = client.get(gateway.url("/")).send().await?.text().await?;
    ensure!(answer == "hello world", "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_is_logged_as_such() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("accessLog: {enabled: true, file: '{dir}/access.log'}\n")?;
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    ensure!(instance.event().await? == "GET /never", "another request");
    drop(stream);
    ensure!(instance.event().await? == "nobody waits", "the instance works for nobody");
    eventually(Duration::from_secs(10), async || {
        let log = std::fs::read_to_string(gateway.folder.path().join("access.log"))?;
        let given_up = log.contains("\"status\":499") && log.contains("\"error\":\"client-gone\"");
        ensure!(given_up, "{log}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn upgraded_connections_pass_bytes_both_ways() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    for protocol in ["websocket", "mine/1.0"] {
        let (mut stream, head) = upgraded_to(gateway.addr, protocol).await?;
        ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        ensure!(head.contains(&format!("upgrade: {protocol}\r\n")), "{head}");
        stream.write_all(b"ping").await?;
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
        ensure!(answer == "ping", "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_waits_for_100_continue() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
    };
    // Refused: no body is asked for.
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(ask("/refuse").as_bytes()).await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    ensure!(&first == b"HTTP/1.1 417", "{}", String::from_utf8_lossy(&first));
    // Wanted: the client is told to go on, then the body goes through.
    let mut stream = TcpStream::connect(gateway.addr).await?;
    stream.write_all(ask("/length").as_bytes()).await?;
    let mut first = [0; 25];
    stream.read_exact(&mut first).await?;
    ensure!(&first == b"HTTP/1.1 100 Continue\r\n\r\n", "{}", String::from_utf8_lossy(&first));
    stream.write_all(b"body").await?;
    let mut second = [0; 12];
    stream.read_exact(&mut second).await?;
    ensure!(&second == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&second));
    ensure!(instance.event().await? == "POST /refuse", "another request");
    Ok(())
}

#[tokio::test]
async fn grpc_passes_end_to_end_with_its_trailers() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    let gateway = instance.gateway("propagation: {headers: [x-lane]}\n")?;
    let stream = TcpStream::connect(gateway.addr).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let serving = tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sent", HeaderValue::from_static("1"));
    for carrier in ["gray", "x-lane", "x_lane", "x-mse-tag"] {
        trailers.insert(carrier, HeaderValue::from_static("GRAY"));
    }
    let frames = [Frame::data(Bytes::from_static(b"q")), Frame::trailers(trailers)];
    let body: Body = BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok))));
    let request = Request::post(format!("http://{}/trailers", gateway.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    let answer = sender.send_request(request).await?.into_body().collect().await?;
    ensure!(answer.trailers().is_some_and(|it| it["grpc-status"] == "0"), "no trailers came back");
    ensure!(instance.event().await? == "POST /trailers", "another request");
    let event = instance.event().await?;
    ensure!(event.starts_with("HTTP/2.0") && event.contains("x-sent"), "{event}");
    for carrier in ["gray", "lane", "mse"] {
        ensure!(!event.contains(carrier), "a lane came in by a trailer: {event}");
    }
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn an_instance_that_says_nothing_is_a_timeout() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("timeouts: {firstByte: 200ms}\n")?;
    let answer = reqwest::get(gateway.url("/never")).await?;
    ensure!(answer.status() == 504, "{}", answer.status());
    Ok(())
}

#[tokio::test]
async fn the_whole_of_an_answer_must_come_in_time() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("timeouts: {total: 300ms}\n")?;
    let answer = reqwest::get(gateway.url("/events")).await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    ensure!(answer.bytes().await.is_err(), "the answer was not cut off");
    let answer = reqwest::get(gateway.url("/never")).await?;
    ensure!(answer.status() == 504, "{}", answer.status());
    Ok(())
}

#[tokio::test]
async fn what_is_ambiguous_is_refused() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("limits: {bodySize: 10B, targetSize: 100B}\n")?;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", "413"),
        (long.as_str(), "414"),
    ] {
        let mut stream = TcpStream::connect(gateway.addr).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await?;
        let first = String::from_utf8_lossy(&first).into_owned();
        ensure!(first.ends_with(status), "{request}: {first}, expected {status}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_goes_round_is_ended() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let gateway = instance.gateway("")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.get(gateway.url("/"));
    for _ in 0..10 {
        request = request.header("via", "1.1 graylane");
    }
    ensure!(request.send().await?.status() == 508, "the loop goes on");
    Ok(())
}
