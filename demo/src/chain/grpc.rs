use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use gray_starter::GrayChannel;
use http::uri::PathAndQuery;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::Link;

/// What is asked: nothing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Ask {}

/// The way that the call took.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Way {
    #[prost(string, tag = "1")]
    way: String,
}

/// Calls a service of the chain.
pub(super) async fn call(channel: GrayChannel) -> anyhow::Result<String> {
    let mut client = tonic::client::Grpc::new(channel);
    let path = PathAndQuery::from_static(GrpcLink::PATH);
    client.ready().await?;
    let codec = ProstCodec::<Ask, Way>::default();
    let answer = client.unary(tonic::Request::new(Ask {}), path, codec).await?;
    Ok(answer.into_inner().way)
}

/// A service of the chain, as gRPC sees it: `rpc Call(Ask) returns (Way)`.
#[derive(Clone, Debug)]
pub struct GrpcLink(Link);

impl GrpcLink {
    /// The path of its one method.
    pub const PATH: &str = "/graylane.demo.Chain/Call";

    pub(super) const fn new(link: Link) -> Self {
        Self(link)
    }
}

impl NamedService for GrpcLink {
    const NAME: &'static str = "graylane.demo.Chain";
}

impl tonic::server::UnaryService<Ask> for GrpcLink {
    type Response = Way;
    type Future = BoxFuture<'static, Result<tonic::Response<Way>, Status>>;

    fn call(&mut self, _: tonic::Request<Ask>) -> Self::Future {
        let link = self.0.clone();
        Box::pin(async move {
            match link.over_grpc().await {
                Ok(way) => Ok(tonic::Response::new(Way { way })),
                Err(error) => Err(Status::new(Code::Unavailable, format!("{error:#}"))),
            }
        })
    }
}

impl Service<Request<axum::body::Body>> for GrpcLink {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let mut server = tonic::server::Grpc::new(ProstCodec::<Way, Ask>::default());
            Ok(server.unary(method, request).await)
        })
    }
}
