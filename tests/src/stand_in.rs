use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::server::Grpc;
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// A stand-in for a Nacos server: it pushes what the test tells it to, when and as often as it is
/// told to, which no real server can be made to do.
///
/// It is written from `nacos_grpc_service.proto` and what real servers answer, and shares no code with
/// the client.
#[derive(Debug)]
pub struct StandIn {
    port: u16,
    state: Arc<Known>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// What is answered about each service.
    services: Mutex<HashMap<String, Arc<Value>>>,
    /// Where pushes go to.
    clients: Mutex<Vec<mpsc::UnboundedSender<Result<Payload, Status>>>>,
    /// How many subscriptions were answered.
    subscriptions: AtomicUsize,
    /// How many subscriptions are still to be refused.
    refusals: AtomicUsize,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "3")]
    r#type: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    body: Option<Body>,
}

/// A push that has been written.
#[derive(Clone, Debug)]
pub struct Prepared {
    service: String,
    known: Arc<Value>,
    payload: Payload,
}

impl StandIn {
    /// Starts it on a free port.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::<Known>::default();
        let router = Router::new()
            .route("/Request/request", post(asked))
            .route("/BiRequestStream/requestBiStream", post(connected))
            .with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { port, state, task })
    }

    /// Returns `host:port` as a gateway is told it: gRPC listens a thousand above.
    ///
    /// # Errors
    ///
    /// Where its port is too low for that.
    pub fn address(&self) -> anyhow::Result<String> {
        let port = self.port.checked_sub(1000).context("no port for HTTP")?;
        Ok(format!("127.0.0.1:{port}"))
    }

    /// Refuses so many subscriptions from now on, as a server does that is overloaded.
    pub fn refuse(&self, count: usize) {
        self.state.refusals.store(count, Ordering::Relaxed);
    }

    /// Returns how many subscriptions it has answered.
    pub fn subscriptions(&self) -> usize {
        self.state.subscriptions.load(Ordering::Relaxed)
    }

    /// Tells all clients to connect anew, as a server does that wants to be rid of some.
    pub fn reset(&self) {
        self.tell(&payload("ConnectResetRequest", &json!({ "requestId": "reset" })));
    }

    /// Pushes once more what may be out of date by now.
    pub fn replay(&self, push: &Prepared) {
        self.tell(&push.payload);
    }

    fn tell(&self, payload: &Payload) {
        // Those that have gone hear nothing.
        lock(&self.state.clients).retain(|client| client.send(Ok(payload.clone())).is_ok());
    }

    /// Sets what is answered about a service, and pushes it; `time` is the server's clock.
    pub fn push(&self, service: &str, time: u64, hosts: &Value) {
        self.send(&Self::prepare(service, time, hosts));
    }

    /// Writes a push that is to be sent later, since writing it takes its time.
    pub fn prepare(service: &str, time: u64, hosts: &Value) -> Prepared {
        let known = json!({
            "name": service, "groupName": "DEFAULT_GROUP", "lastRefTime": time, "hosts": hosts,
        });
        let push = json!({ "requestId": time.to_string(), "serviceInfo": known });
        let payload = payload("NotifySubscriberRequest", &push);
        Prepared { service: service.to_owned(), known: Arc::new(known), payload }
    }

    /// Sets what is answered about a service, and pushes it.
    pub fn send(&self, push: &Prepared) {
        lock(&self.state.services).insert(push.service.clone(), Arc::clone(&push.known));
        self.tell(&push.payload);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn asked(State(known): State<Arc<Known>>, request: Request) -> impl IntoResponse {
    let answer = move |request: tonic::Request<Payload>| {
        let answer = answer(&known, &request.into_inner());
        std::future::ready(Ok::<_, Status>(Response::new(answer)))
    };
    let mut grpc = Grpc::new(ProstCodec::<Payload, Payload>::default());
    grpc.unary(tower::service_fn(answer), request).await
}

fn answer(known: &Known, request: &Payload) -> Payload {
    let name = request.metadata.as_ref().map_or("", |metadata| metadata.r#type.as_str());
    let body = request.body.as_ref().map_or(&b"{}"[..], |body| &body.value);
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let refused = || {
        let one_less = |left: usize| left.checked_sub(1);
        known.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    };
    if name == "SubscribeServiceRequest" && refused() {
        let busy = json!({ "resultCode": 500, "errorCode": 503, "message": "busy" });
        return payload("ErrorResponse", &busy);
    }
    if name == "SubscribeServiceRequest" {
        known.subscriptions.fetch_add(1, Ordering::Relaxed);
    }
    let service = body.get("serviceName").and_then(Value::as_str).unwrap_or_default();
    let service = lock(&known.services).get(service).cloned();
    let mut answer = json!({ "resultCode": 200, "errorCode": 0, "success": true });
    if let (Some(answer), Some(service)) = (answer.as_object_mut(), service) {
        answer.insert("serviceInfo".to_owned(), Value::clone(&service));
    }
    payload(&name.replace("Request", "Response"), &answer)
}

async fn connected(State(known): State<Arc<Known>>, request: Request) -> impl IntoResponse {
    let stream = move |request: tonic::Request<Streaming<Payload>>| {
        let (client, pushes) = mpsc::unbounded_channel();
        lock(&known.clients).push(client);
        let mut incoming = request.into_inner();
        // Confirmations are read, so that the client is never held up.
        tokio::spawn(async move { while let Ok(Some(_)) = incoming.message().await {} });
        let pushes = UnboundedReceiverStream::new(pushes);
        std::future::ready(Ok::<_, Status>(Response::new(pushes)))
    };
    let mut grpc = Grpc::new(ProstCodec::<Payload, Payload>::default());
    grpc.streaming(tower::service_fn(stream), request).await
}

fn payload(name: &str, body: &Value) -> Payload {
    Payload {
        metadata: Some(Metadata { r#type: name.to_owned() }),
        body: Some(Body { value: body.to_string().into() }),
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
