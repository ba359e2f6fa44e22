use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::message::Outcome;
use super::wire::Payload;
use super::{Module, NacosError};
use crate::causes;

const REQUEST: PathAndQuery = PathAndQuery::from_static("/Request/request");
const STREAM: PathAndQuery = PathAndQuery::from_static("/BiRequestStream/requestBiStream");

/// The largest message that is accepted: a service with some 10,000 instances has a few MiB.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// One connection to one server.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    grpc: Grpc<Channel>,
    answers: mpsc::Sender<Payload>,
    /// Replaced when the login is renewed.
    headers: Arc<ArcSwap<HashMap<String, String>>>,
    limit: Duration,
}

/// What a connection is opened with.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    /// `host:port` of gRPC.
    pub(super) address: &'a str,
    pub(super) namespace: &'a str,
    pub(super) module: Module,
    pub(super) token: Option<String>,
    pub(super) limit: Duration,
}

impl Connection {
    /// Connects, introduces itself, and returns the connection with what the server sends on it.
    pub(super) async fn open(opening: &Opening<'_>) -> Result<(Self, Incoming), NacosError> {
        let broken = |error: &dyn std::error::Error| NacosError::Broken(causes(error));
        let endpoint = Endpoint::from_shared(format!("http://{}", opening.address))
            .map_err(|error| broken(&error))?
            .connect_timeout(opening.limit)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| broken(&error))?;
        let grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (answers, outgoing) = mpsc::channel(64);
        let connection = Self { grpc, answers, headers: Arc::default(), limit: opening.limit };
        if let Some(token) = &opening.token {
            connection.set_token(token);
        }
        let _: serde_json::Value = connection.request("ServerCheckRequest", &json!({})).await?;
        let setup = Payload::new("ConnectionSetupRequest", HashMap::new(), &setup(opening));
        let sent = connection.answers.send(setup).await;
        sent.map_err(|error| NacosError::Broken(error.to_string()))?;
        let mut grpc = connection.grpc.clone();
        grpc.ready().await.map_err(|error| broken(&error))?;
        let outgoing = tonic::Request::new(ReceiverStream::new(outgoing));
        // The Java server sends no head before its first message, so the call is not awaited here.
        let call = async move {
            let called =
                grpc.streaming(outgoing, STREAM, ProstCodec::<Payload, Payload>::default());
            called.await.map(tonic::Response::into_inner)
        };
        Ok((connection, Incoming(stream::once(call).try_flatten().boxed())))
    }

    /// Sends this token with all requests from now on.
    pub(super) fn set_token(&self, token: &str) {
        self.headers.store(Arc::new([("accessToken".to_owned(), token.to_owned())].into()));
    }

    /// Sends a request and reads its answer.
    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        name: &'static str,
        body: &impl Serialize,
    ) -> Result<T, NacosError> {
        let payload = Payload::new(name, HashMap::clone(&self.headers.load()), body);
        let mut grpc = self.grpc.clone();
        let call = async move {
            grpc.ready().await.map_err(|error| NacosError::Broken(causes(&error)))?;
            let answer = grpc.unary(tonic::Request::new(payload), REQUEST, ProstCodec::default());
            answer.await.map_err(|status| NacosError::Broken(causes(&status)))
        };
        let answer: Payload = timed(name, self.limit, call).await??.into_inner();
        let outcome: Outcome = answer.read(name)?;
        if outcome.result_code != 200 {
            let message = outcome.message.unwrap_or_default();
            return Err(NacosError::Refused { request: name, code: outcome.error_code, message });
        }
        answer.read(name)
    }

    /// Confirms something that the server sent; `name` is the answer's type.
    pub(super) async fn confirm(&self, name: &str, request_id: &str) {
        let body = json!({ "requestId": request_id, "resultCode": 200, "success": true });
        let payload = Payload::new(name, HashMap::clone(&self.headers.load()), &body);
        // A closed stream ends the connection elsewhere; there is nothing to do here.
        let _ = self.answers.send(payload).await;
    }
}

fn setup(opening: &Opening<'_>) -> serde_json::Value {
    json!({
        "clientVersion": concat!("graylane:", env!("CARGO_PKG_VERSION")),
        "tenant": opening.namespace,
        "labels": { "source": "sdk", "module": opening.module.as_str(), "AppName": "graylane" },
        "abilities": {},
        // Its presence asks for a SetupAckRequest.
        "abilityTable": {},
    })
}

/// What a server sends on a connection.
pub(super) struct Incoming(BoxStream<'static, Result<Payload, tonic::Status>>);

impl Incoming {
    /// Reads the next message of the server, or says why there will be none.
    pub(super) async fn next(&mut self) -> Result<Payload, NacosError> {
        match self.0.next().await {
            Some(Ok(payload)) => Ok(payload),
            Some(Err(status)) => Err(NacosError::Broken(causes(&status))),
            None => Err(NacosError::Broken("the server closed it".to_owned())),
        }
    }
}

async fn timed<T>(
    request: &'static str,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<T, NacosError> {
    let timed = tokio::time::timeout(limit, future).await;
    timed.map_err(|_| NacosError::Timeout { request, limit })
}
