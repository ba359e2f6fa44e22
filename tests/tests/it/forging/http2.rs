//! The same where both sides speak HTTP/2, frame by frame where no client would send such a thing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream;
use gray_tests::Gateway;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{CONFIG, FORGED, RULES, only_the_verdict};

const LIMIT: Duration = Duration::from_secs(10);

/// An instance that speaks HTTP/2 only, and tells the fields of each request: the head's, then the trailers'.
async fn instance() -> anyhow::Result<(SocketAddr, mpsc::UnboundedReceiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let trailers = body.collect().await?.trailers().cloned().unwrap_or_default();
                    let _ = tell.send(lines(&head.headers) + &lines(&trailers));
                    Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok((addr, told))
}

fn lines(fields: &HeaderMap) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let lines = fields.iter().map(|(name, value)| format!("\r\n{name}: {}\r\n", text(value)));
    lines.collect()
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
        let config = format!("{CONFIG}services: {{app: {{protocol: h2c}}}}\n");
        let gateway = Gateway::start_in(folder, &config)?;
        gateway.ready().await?;
        Ok(Self { gateway, told })
    }

    async fn told(&mut self) -> anyhow::Result<String> {
        tokio::time::timeout(LIMIT, self.told.recv()).await?.context("no instance")
    }

    /// Sends a request of these fields, written by hand, and returns how the gateway answers: the type of
    /// the first frame that concerns it, and the error in it.
    async fn send(&self, fields: &[(&str, &str)]) -> anyhow::Result<(Kind, u32)> {
        let mut stream = TcpStream::connect(self.gateway.addr).await?;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(Kind::Settings, 0, 0, &[]));
        let own = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        let block: Vec<u8> = own.iter().chain(fields).flat_map(|it| literal(*it)).collect();
        bytes.extend(frame(Kind::Headers, END_STREAM | END_HEADERS, 1, &block));
        stream.write_all(&bytes).await?;
        tokio::time::timeout(LIMIT, first_answer(&mut stream)).await?
    }
}

/// Types of frames (RFC 9113, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Headers = 1,
    Reset = 3,
    Settings = 4,
    GoAway = 7,
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `PROTOCOL_ERROR` (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind as u8, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field with a new name, not indexed, nothing of it by Huffman (RFC 7541, section 6.2.2).
fn literal((name, value): (&str, &str)) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // Longer ones take more than one byte to say how long they are.
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
        bytes.push(length);
        bytes.extend(text.as_bytes());
    }
    bytes
}

async fn first_answer(stream: &mut TcpStream) -> anyhow::Result<(Kind, u32)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let error = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            1 => return Ok((Kind::Headers, 0)),
            3 => return Ok((Kind::Reset, error(0))),
            7 => return Ok((Kind::GoAway, error(4))),
            _ => {}
        }
    }
}

/// Of a head and of its trailers only the gateway's verdict is left, and what is nobody's lane.
#[tokio::test]
async fn no_lane_comes_in_by_trailers_from_http2_to_http2() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    let stream = TcpStream::connect(edge.gateway.addr).await?;
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for forged in FORGED.into_iter().filter(|forged| !forged.contains(" :")) {
        let mut trailers = HeaderMap::new();
        for (name, value) in forged.split("\r\n").filter_map(|line| line.split_once(':')) {
            let name: http::HeaderName = name.parse()?;
            trailers.append(name, HeaderValue::from_str(value.trim())?);
        }
        trailers.append("x-sent", HeaderValue::from_static("1"));
        let mut request = Request::post("http://a/");
        *request.headers_mut().context("not a request")? = trailers.clone();
        let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(trailers)];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
        let request = request.header("te", "trailers").header("trailer", "gray, x-sent");
        let answer = client.send_request(request.body(body)?).await?;
        ensure!(answer.status() == 200, "{forged}: {answer:?}");
        let told = edge.told().await?;
        only_the_verdict(&told.replace("baggage: a=1\r\n", "")).with_context(|| forged)?;
        ensure!(told.matches("\r\nx-sent: 1\r\n").count() == 2, "{forged}: {told}");
    }
    Ok(())
}

/// HTTP/2 has no fields of one connection: a request with one is malformed (RFC 9113, section 8.2.2), and so is
/// one with a name in capitals (section 8.2.1). No instance hears of it.
#[tokio::test]
async fn fields_of_a_connection_come_in_by_no_frame() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    for fields in [
        &[("connection", "gray"), ("gray", "GRAY")][..],
        &[("gray", "GRAY"), ("connection", "close, gray, x-forwarded-for, x-graylane-hop")],
        &[("proxy-connection", "gray")],
        &[("keep-alive", "gray")],
        &[("upgrade", "gray")],
        &[("transfer-encoding", "chunked")],
        &[("te", "gray")],
        &[("Gray", "GRAY")],
        &[("GRAY", "GRAY")],
        &[("gray ", "GRAY")],
        &[("gray:", "GRAY")],
        &[(":gray", "GRAY")],
        &[("", "GRAY")],
    ] {
        let (kind, error) = edge.send(fields).await.with_context(|| format!("{fields:?}"))?;
        ensure!(matches!(kind, Kind::Reset | Kind::GoAway), "{fields:?}: {kind:?}");
        ensure!(error == PROTOCOL_ERROR, "{fields:?}: {kind:?} {error}");
    }
    ensure!(edge.told.try_recv().is_err(), "an instance was asked");

    // The same frames without them are understood; this way nothing above can have failed for another reason.
    for (fields, lines) in [
        (&[("te", "trailers")][..], 0),
        (&[("gray", "GRAY"), ("gray", "blue"), ("gray_", "GRAY"), ("x-mse-tag", "gray")], 0),
        (&[("x-sent", "1"), ("baggage", "a=1,gray=gray"), ("x_mse_tag", "gray")], 1),
    ] {
        ensure!(edge.send(fields).await? == (Kind::Headers, 0), "{fields:?}");
        let told = edge.told().await?;
        only_the_verdict(&told.replace("baggage: a=1\r\n", "")).with_context(|| fields[0].0)?;
        ensure!(told.matches("\r\nx-sent: 1\r\n").count() == lines, "{told}");
    }
    Ok(())
}

/// From HTTP/1.1, whose `Connection` names fields and whose trailers name lanes, to HTTP/2.
#[tokio::test]
async fn connection_and_trailers_of_http1_bring_no_lane_to_http2() -> anyhow::Result<()> {
    let mut edge = Edge::start().await?;
    for named in ["gray", "Gray, x-mse-tag", "gray, X-Forwarded-For, x-graylane-hop"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: {named}, close, TE\r\nTE: trailers\r\n\
             gray: GRAY\r\nTrailer: Gray, X-Sent\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nx\r\n0\r\nGray: GRAY\r\nX-Mse-Tag: gray\r\nx_mse_tag: gray\r\nGray_: GRAY\r\n\
             Baggage: gray=gray\r\nX-Sent: 1\r\n\r\n"
        );
        let mut stream = TcpStream::connect(edge.gateway.addr).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await??;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{named}: {answer}");
        let told = edge.told().await?;
        only_the_verdict(&told).with_context(|| named.to_owned())?;
        ensure!(told.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{named}: {told}");
        ensure!(told.contains("\r\nx-sent: 1\r\n"), "{named}: {told}");
    }
    Ok(())
}
