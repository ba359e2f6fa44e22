use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use gray_lb::{NoInstance, Picked, ServedLanes, ServiceName};
use gray_propagation::Context;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use crate::outgoing::{ATTEMPTS, Outgoing};

/// How long an instance may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// How long an answer may take to begin, where the call does not say.
const ANSWER: Duration = Duration::from_mins(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type CallBody = UnsyncBoxBody<Bytes, BoxError>;

/// A channel for the clients that tonic generates: it calls one service, in the lane of the request
/// that is being served, over HTTP/2 without TLS.
///
/// ```
/// use gray_starter::Starter;
/// use tonic_health::pb::health_client::HealthClient;
///
/// fn health_of_greeters(starter: &Starter) -> HealthClient<gray_starter::GrayChannel> {
///     HealthClient::new(starter.channel("greeter"))
/// }
/// ```
///
/// An instance that cannot be reached, or that goes away before anything was sent, is replaced by
/// another one of the lane. An answer has to begin within the time that the call gives itself
/// (`grpc-timeout`, tonic's `Request::set_timeout`), or within a minute; how long it then takes is not
/// limited.
#[derive(Clone)]
pub struct GrayChannel {
    outgoing: Outgoing,
    service: ServiceName,
    connections: Connections,
}

/// The connection to each instance.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<SocketAddr, SendRequest<CallBody>>>>);

impl fmt::Debug for GrayChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrayChannel({})", self.service)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections")
    }
}

/// Why a call was not answered. Clients that tonic generates see it as a status: `Unavailable` where
/// there is no instance, or none can be reached, and `DeadlineExceeded` where none answers in time.
#[derive(Debug)]
pub struct ChannelError {
    failure: ChannelFailure,
    /// What tonic looks for among the causes.
    status: Option<tonic::Status>,
}

impl ChannelError {
    /// Returns what went wrong.
    pub const fn failure(&self) -> &ChannelFailure {
        &self.failure
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.status {
            Some(status) => Some(status),
            None => self.failure.source(),
        }
    }
}

impl From<ChannelFailure> for ChannelError {
    fn from(failure: ChannelFailure) -> Self {
        let text = || gray_config::causes(&failure);
        let status = match &failure {
            ChannelFailure::NoInstance(_) | ChannelFailure::Connect(..) => {
                Some(tonic::Status::unavailable(text()))
            }
            ChannelFailure::Timeout => Some(tonic::Status::deadline_exceeded(text())),
            ChannelFailure::Http(_, error) if error.is_closed() || error.is_canceled() => {
                Some(tonic::Status::unavailable(text()))
            }
            // It knows what HTTP/2 says.
            ChannelFailure::Http(..) => None,
        };
        Self { failure, status }
    }
}

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelFailure {
    /// No instance may serve the call.
    #[error(transparent)]
    NoInstance(#[from] NoInstance),
    /// The instance cannot be reached.
    #[error("{0} cannot be reached")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// No answer began in time.
    #[error("no answer began in time")]
    Timeout,
    /// The call failed on its way.
    #[error("the call to {0} failed")]
    Http(SocketAddr, #[source] hyper::Error),
}

impl GrayChannel {
    pub(crate) const fn new(
        outgoing: Outgoing,
        service: ServiceName,
        connections: Connections,
    ) -> Self {
        Self { outgoing, service, connections }
    }

    async fn call(
        self,
        request: Request<CallBody>,
        begun_in: Option<Arc<Context>>,
        limit: Duration,
    ) -> Result<Response<Incoming>, ChannelError> {
        let until = Instant::now() + limit;
        // A copy's own lane is known as soon as it is known how lanes are served.
        let served = tokio::time::timeout_at(until, self.outgoing.served(&self.service)).await;
        let served = served.unwrap_or_else(|_| Err(NoInstance::UnknownLanes(self.service.clone())));
        let context = self.outgoing.context(begun_in, &self.service).await;
        let answer = match served {
            Ok(served) => {
                let all = self.try_all(request, &context, &served);
                // What is given up has failed as well, and is counted.
                tokio::time::timeout_at(until, all).await.unwrap_or(Err(ChannelFailure::Timeout))
            }
            Err(unknown) => Err(unknown.into()),
        };
        if answer.is_err() {
            self.outgoing.failed(&self.service, &context);
        }
        answer.map_err(Into::into)
    }

    async fn try_all(
        &self,
        mut request: Request<CallBody>,
        context: &Context,
        served: &ServedLanes,
    ) -> Result<Response<Incoming>, ChannelFailure> {
        let mut tried = Vec::new();
        let mut last: Option<ChannelFailure> = None;
        loop {
            let picked = match self.outgoing.pick(&self.service, context, served, &tried).await {
                Ok(picked) => picked,
                Err(none) => return Err(last.unwrap_or_else(|| none.into())),
            };
            let error = match self.send(context, &picked, request).await {
                Ok(response) => return Ok(response),
                Err((error, None)) => return Err(error),
                Err((error, Some(unsent))) => {
                    request = unsent;
                    error
                }
            };
            tried.push(picked.member.instance().addr);
            if tried.len() >= ATTEMPTS {
                return Err(error);
            }
            last = Some(error);
        }
    }

    /// Sends a request to an instance; it comes back where nothing of it was sent.
    async fn send(
        &self,
        context: &Context,
        picked: &Picked,
        mut request: Request<CallBody>,
    ) -> Result<Response<Incoming>, (ChannelFailure, Option<Request<CallBody>>)> {
        let addr = picked.member.instance().addr;
        self.outgoing.write(&self.service, context, picked, request.headers_mut());
        address(&mut request, addr);
        let _in_flight = picked.member.begin();
        let sender = match self.connections.to(addr).await {
            Ok(sender) => sender,
            Err(error) => return Err((ChannelFailure::Connect(addr, error), Some(request))),
        };
        let mut sender = sender;
        match sender.try_send_request(request).await {
            Ok(response) => {
                self.outgoing.answered(&self.service, context, picked, response.headers());
                Ok(response)
            }
            Err(mut error) => {
                self.connections.forget(addr);
                let unsent = error.take_message();
                Err((ChannelFailure::Http(addr, error.into_error()), unsent))
            }
        }
    }
}

impl Connections {
    async fn to(&self, addr: SocketAddr) -> std::io::Result<SendRequest<CallBody>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&addr).cloned();
        if let Some(mut sender) = known.filter(|sender| !sender.is_closed())
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let connecting = async {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(20))
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await;
            handshake.map_err(std::io::Error::other)
        };
        let (sender, connection) = tokio::time::timeout(CONNECT, connecting).await??;
        // The task ends with the connection, which ends when its last sender is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%addr, %error, "connection ended");
            }
        });
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, sender| !sender.is_closed());
        connections.insert(addr, sender.clone());
        drop(connections);
        Ok(sender)
    }

    /// Drops the connection to an address, if it is closed: one stream that was reset is no reason.
    fn forget(&self, addr: SocketAddr) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|other, sender| *other != addr || !sender.is_closed());
    }
}

/// Returns how long an answer may take to begin: what gRPC's `grpc-timeout` says, a number with a
/// unit (gRPC over HTTP/2, Requests).
fn time_limit(headers: &http::HeaderMap) -> Duration {
    let said = || {
        let text = headers.get("grpc-timeout")?.to_str().ok()?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u64 = number.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number.saturating_mul(3600)),
            "M" => Duration::from_secs(number.saturating_mul(60)),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    };
    said().unwrap_or(ANSWER)
}

/// HTTP/2 carries scheme and authority in the target.
fn address<B>(request: &mut Request<B>, addr: SocketAddr) {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri = Uri::builder().scheme("http").authority(addr.to_string()).path_and_query(path);
    if let Ok(uri) = uri.build() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

impl<B> Service<Request<B>> for GrayChannel
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, ChannelError>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        // Whatever polls the call later, it belongs to the request that is being served now.
        let limit = time_limit(request.headers());
        Box::pin(self.clone().call(request, gray_propagation::current(), limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_how_long_it_waits() {
        let limit = |text: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
            time_limit(&headers)
        };
        assert_eq!(limit("5S"), Duration::from_secs(5));
        assert_eq!(limit("250m"), Duration::from_millis(250));
        assert_eq!(limit("2H"), Duration::from_hours(2));
        for wrong in ["", "S", "5", "-1S", "5x"] {
            assert_eq!(limit(wrong), ANSWER, "{wrong}");
        }
    }
}
