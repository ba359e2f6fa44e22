use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use http_body::Body as _;
use hyper::client::conn::{TrySendError, http2};
use papaya::HashMap;

use super::endpoint::{Endpoint, Lease, Sender};
use super::{Failed, Target, Upstream, UpstreamError, UpstreamTls, Wire};
use crate::Error;
use crate::body::{Blame, BodyError, Inner, InstanceBody, Progress, RequestBody, within};
use crate::http1::{Connection, Lost};

/// Connections to all instances.
#[derive(Debug)]
pub(crate) struct Pools {
    endpoints: HashMap<(SocketAddr, Wire), Arc<Endpoint>, RandomState>,
    idle: usize,
    tls: UpstreamTls,
}

impl Pools {
    /// Keeps so many idle connections to each instance.
    pub(crate) fn new(idle: usize, tls: UpstreamTls) -> Self {
        Self { endpoints: HashMap::default(), idle, tls }
    }

    /// Forgets the connections to instances that are no longer there.
    pub(crate) fn retain(&self, keep: impl Fn(SocketAddr) -> bool) {
        self.endpoints.pin().retain(|(addr, _), _| keep(*addr));
    }

    fn endpoint(&self, to: &Target) -> Arc<Endpoint> {
        let endpoints = self.endpoints.pin();
        let key = (to.addr, to.wire.clone());
        Arc::clone(endpoints.get_or_insert_with(key, || Arc::new(Endpoint::new(self.idle))))
    }
}

impl Upstream<RequestBody> for Pools {
    type Body = InstanceBody;

    async fn send(
        &self,
        mut request: Request<RequestBody>,
        to: &Target,
    ) -> Result<Response<InstanceBody>, Failed<RequestBody>> {
        let endpoint = self.endpoint(to);
        let mut sent_again = false;
        let repeatable = is_repeatable(&request);
        loop {
            let idle = if sent_again { None } else { endpoint.idle() };
            // Most requests need none of this, and no room for it.
            let sender = match idle {
                Some(idle) => Ok(idle),
                None => Box::pin(endpoint.connect(to, &self.tls)).await,
            };
            let sender = match sender {
                Ok(sender) => sender,
                Err(error) => {
                    let request = Some(Box::new(request));
                    return Err(Failed { error: Error::Connect(error), request });
                }
            };
            let reused = sender.is_reused();
            let (sent, again) = match sender {
                Sender::Http1 { connection, .. } => {
                    let sent = send1(&endpoint, connection, &mut request, to).await;
                    (sent, repeatable.then_some(request))
                }
                Sender::Http2 { sender, .. } => {
                    let spare = if repeatable { copy(&request) } else { None };
                    (Box::pin(send2(sender, reused, request, to)).await, spare)
                }
            };
            request = match (sent, again) {
                (Ok(response), _) => return Ok(response),
                // An idle connection that the instance had closed meanwhile is no failure of it.
                (Err(Again::Stale(stale)), _) => *stale,
                (Err(Again::Failed(failed)), Some(again)) if failed.is_lost() => {
                    // Once more here, since an old connection may have been the reason; then elsewhere.
                    if sent_again || !reused {
                        return Err(Failed { request: Some(Box::new(again)), ..failed });
                    }
                    sent_again = true;
                    again
                }
                (Err(Again::Failed(failed)), _) => return Err(failed),
            }
        }
    }
}

/// Tells whether a request may be sent a second time: one without a body, by a method that does no more when
/// it is done twice (RFC 9110, section 9.2.2).
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent()
        && request.body().is_end_stream()
        && !request.headers().contains_key(header::UPGRADE)
}

/// Copies a request without a body.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut copy = Request::new(request.body().copy_of_none()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

impl<B> Failed<B> {
    /// Whether the connection broke before an answer began.
    fn is_lost(&self) -> bool {
        matches!(&self.error, Error::Upstream(error) if error.is_broken())
    }
}

enum Again {
    Stale(Box<Request<RequestBody>>),
    Failed(Failed<RequestBody>),
}

async fn send1(
    endpoint: &Arc<Endpoint>,
    connection: Connection,
    request: &mut Request<RequestBody>,
    to: &Target,
) -> Result<Response<InstanceBody>, Again> {
    make_relative(request);
    join_cookies(request.headers_mut());
    expect_continue(request);
    request.body_mut().may_stall(to.timeouts.idle.0);
    let progress = request.body().progress();
    let answer = connection.send(request, to.timeouts.first_byte.0, &progress).await;
    let error = match answer {
        Ok(response) => {
            let lease = Lease::of(Arc::clone(endpoint));
            return Ok(response.map(|answer| body(Inner::Http1(answer, lease), to, progress)));
        }
        Err(Lost::Timeout) => Error::Timeout,
        Err(Lost::Body(BodyError::TooLarge)) => Error::BodyTooLarge,
        Err(Lost::Body(BodyError::Stalled)) => Error::Stalled,
        Err(Lost::Body(BodyError::Broken(error))) => Error::Client(error),
        Err(Lost::Body(BodyError::Instance(error))) => Error::Upstream(error),
        Err(lost) => Error::Upstream(UpstreamError::of(lost)),
    };
    Err(Again::Failed(Failed { error, request: None }))
}

async fn send2(
    mut sender: http2::SendRequest<RequestBody>,
    reused: bool,
    mut request: Request<RequestBody>,
    to: &Target,
) -> Result<Response<InstanceBody>, Again> {
    *request.version_mut() = Version::HTTP_2;
    make_absolute(&mut request, to);
    request.body_mut().may_stall(to.timeouts.idle.0);
    let progress = request.body().progress();
    let answer = within(to.timeouts.first_byte.0, &progress, sender.try_send_request(request));
    match answer.await {
        None => Err(Again::Failed(Failed { error: Error::Timeout, request: None })),
        Some(Ok(response)) => Ok(response.map(|it| body(Inner::Http2(it), to, progress))),
        Some(Err(mut error)) => Err(match error.take_message() {
            Some(request) if reused && sender.is_closed() => Again::Stale(Box::new(request)),
            request => Again::Failed(failed(error, request, &progress)),
        }),
    }
}

fn body(inner: Inner, to: &Target, progress: Arc<Progress>) -> InstanceBody {
    InstanceBody::new(inner, to.timeouts.idle.0, to.deadline, progress)
}

fn failed(
    error: TrySendError<Request<RequestBody>>,
    request: Option<Request<RequestBody>>,
    progress: &Progress,
) -> Failed<RequestBody> {
    let error = error.into_error();
    // A client's broken body and an instance's broken connection look the same from here.
    let error = match progress.failed() {
        Some(Blame::TooLarge) => Error::BodyTooLarge,
        Some(Blame::Stalled) => Error::Stalled,
        Some(Blame::Broken) => Error::Client(error.into()),
        None => Error::Upstream(UpstreamError::Http2(error)),
    };
    Failed { error, request: request.map(Box::new) }
}

/// Holds the body back until the instance agrees to it, where the client asked for that (RFC 9110,
/// section 10.1.1).
fn expect_continue(request: &mut Request<RequestBody>) {
    let expected = request.headers().get(header::EXPECT);
    if expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        request.body_mut().hold_back();
    }
}

/// Joins the crumbs that HTTP/2 allows (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(header::COOKIE);
    if crumbs.iter().count() < 2 {
        return;
    }
    let crumbs: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Undoes [`make_absolute`] for a request that was to go over HTTP/2 and was not sent.
fn make_relative(request: &mut Request<RequestBody>) {
    let Some(authority) = request.uri().authority() else { return };
    if let Ok(host) = HeaderValue::try_from(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(target) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(target);
    }
}

/// HTTP/2 carries scheme and host in the target instead of a header.
fn make_absolute(request: &mut Request<RequestBody>, to: &Target) {
    let host = request.headers_mut().remove(header::HOST);
    // A request that comes back unsent has been through here already.
    let before = request.uri().authority().map(ToString::to_string);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).or(before.as_deref());
    let scheme = if matches!(to.wire, Wire::Tls(_)) { "https" } else { "http" };
    let path = request.uri().path_and_query().cloned();
    let address = to.addr.to_string();
    let built = Uri::builder().scheme(scheme).authority(host.unwrap_or(&address));
    let built = built.path_and_query(path.map_or("/".to_owned(), |path| path.to_string()));
    if let Ok(uri) = built.build() {
        *request.uri_mut() = uri;
    }
}
