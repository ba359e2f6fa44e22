use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use gray_starter::GrayChannel;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::Endpoint;
use tonic::{Code, Extensions, Status};
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

/// Calls a service of the chain at an address, with headers of its own; returns those of the answer as well.
pub(super) async fn call_at(to: &str, headers: HeaderMap) -> anyhow::Result<(HeaderMap, String)> {
    let channel = Endpoint::from_shared(to.to_owned())?.connect().await?;
    let mut client = tonic::client::Grpc::new(channel);
    let path = PathAndQuery::from_static(GrpcLink::PATH);
    client.ready().await?;
    let headers = MetadataMap::from_headers(headers);
    let request = tonic::Request::from_parts(headers, Extensions::default(), Ask {});
    let answer = client.unary(request, path, ProstCodec::<Ask, Way>::default()).await?;
    let (headers, way, _) = answer.into_parts();
    Ok((headers.into_headers(), way.way))
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

    fn call(&mut self, request: tonic::Request<Ask>) -> Self::Future {
        let link = self.0.clone();
        let headers = request.into_parts().0.into_headers();
        Box::pin(async move {
            match link.asked_over_grpc(headers).await {
                Ok((headers, way)) => {
                    let mut answer = tonic::Response::new(Way { way });
                    *answer.metadata_mut() = MetadataMap::from_headers(headers);
                    Ok(answer)
                }
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
