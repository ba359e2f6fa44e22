//! The starter's layers around servers that are not axum's, and clients that go where they are told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use anyhow::{Context as _, ensure};
use futures_util::future::{Ready, ready};
use gray_starter::{GrayLayer, GrayStatus, Starter, StarterProperties, current_status, scope};
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{Layer, Service};

/// What the service's own lane is: it is registered in the lane named `gray`.
fn starter(folder: &std::path::Path) -> anyhow::Result<Starter> {
    std::fs::write(folder.join("registry.yaml"), "services: {}\n")?;
    let mut properties = StarterProperties::of("told");
    properties.version = Some("V2".to_owned());
    properties.registry = Some(folder.join("registry.yaml"));
    properties.base = Some("V1".to_owned());
    properties.lanes = [("gray".to_owned(), "V2".to_owned())].into();
    Ok(Starter::start(properties)?)
}

/// Tells the lane that a request is served in, over whatever it came.
#[derive(Clone, Debug)]
struct Tell;

impl tonic::server::NamedService for Tell {
    const NAME: &'static str = "graylane.test.Tell";
}

impl<B> Service<Request<B>> for Tell {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let lane = current_status().map_or_else(|| "none".to_owned(), |it| it.to_string());
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("x-lane", lane);
        ready(Ok(response.body(tonic::body::Body::empty()).unwrap_or_default()))
    }
}

/// Asks in several lanes: by a tag, without one, with one that is malformed, and with one nobody knows.
async fn tells_the_lane(addr: SocketAddr, path: &str, h2: bool) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy();
    let client = if h2 { client.http2_prior_knowledge() } else { client };
    let client = client.build()?;
    for (sent, told) in [
        (Some("GRAY"), "GRAY"),
        (Some("PROD"), "PROD"),
        (None, "GRAY"),
        (Some("Gray"), "GRAY"),
        (Some("a b"), "GRAY"),
        (Some("elsewhere"), "elsewhere"),
    ] {
        let request = client.post(format!("http://{addr}{path}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = sent.into_iter().fold(request, |request, lane| request.header("gray", lane));
        let answer = request.send().await?;
        ensure!(answer.headers()["x-lane"] == told, "{sent:?}: {:?}", answer.headers());
    }
    Ok(())
}

#[tokio::test]
async fn hypers_own_server_serves_in_the_lane() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let starter = starter(folder.path())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let layer: GrayLayer = starter.layer();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(layer.layer(Tell));
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    for h2 in [false, true] {
        tells_the_lane(addr, "/any", h2).await?;
    }
    Ok(())
}

#[tokio::test]
async fn tonics_own_server_serves_in_the_lane() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let addr = on_tonic(&starter(folder.path())?).await?;
    tells_the_lane(addr, "/graylane.test.Tell/Ask", true).await
}

async fn on_tonic(starter: &Starter) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().layer(starter.layer()).add_service(Tell);
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(addr)
}

/// A client that goes where it is told to, with the layer around its channel.
#[tokio::test]
async fn tonics_own_client_calls_in_the_lane() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let starter = starter(folder.path())?;
    let addr = on_tonic(&starter).await?;
    let channel = tonic::transport::Endpoint::new(format!("http://{addr}"))?.connect().await?;
    let client = tonic::client::Grpc::new(starter.propagate().layer(channel));
    let ask = async || {
        let mut client = client.clone();
        client.ready().await?;
        let path = http::uri::PathAndQuery::from_static("/graylane.test.Tell/Ask");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let answer = client.server_streaming(tonic::Request::new(()), path, codec).await?;
        let lane = answer.metadata().get("x-lane").context("it tells no lane")?;
        anyhow::Ok(lane.to_str()?.to_owned())
    };
    for status in [GrayStatus::Prod, GrayStatus::Gray("elsewhere".parse()?)] {
        let told = scope(gray_starter::Context::of(status), ask()).await?;
        ensure!(told == status.to_string(), "{status}: {told}");
    }
    // Outside of any request it is the copy's own lane.
    ensure!(ask().await? == "GRAY", "a call of the copy's own accord left its lane");
    Ok(())
}
