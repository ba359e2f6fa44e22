use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use gray_propagation::{Lines as _, lines};
use http::{HeaderMap, Request, Uri, Version};
use http_body::Body as _;
use hyper::client::conn::http2;
use papaya::HashMap;

use super::endpoint::{Endpoint, Lease, Sender};
use super::{Failed, Target, Upstream, UpstreamError, UpstreamTls, Wire};
use crate::Error;
use crate::body::{Blame, BodyError, Inner, InstanceBody, Progress, RequestBody, within};
use crate::field::{COOKIE, EXPECT, HOST, UPGRADE};
use crate::head::{AnswerHead, Answered, Call, HeadFields, RequestHead};
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
        call: &mut Call<RequestBody>,
        to: &Target,
    ) -> Result<Answered<InstanceBody>, Failed> {
        let endpoint = self.endpoint(to);
        let mut sent_again = false;
        let repeatable = is_repeatable(call);
        loop {
            let idle = if sent_again { None } else { endpoint.idle() };
            // Most requests need none of this, and no room for it.
            let sender = match idle {
                Some(idle) => Ok(idle),
                None => Box::pin(endpoint.connect(to, &self.tls)).await,
            };
            let sender = match sender {
                Ok(sender) => sender,
                Err(error) => return Err(Failed { error: Error::Connect(error), again: true }),
            };
            let reused = sender.is_reused();
            let sent = match sender {
                Sender::Http1 { connection, .. } => send1(&endpoint, connection, call, to).await,
                Sender::Http2 { sender, .. } => Box::pin(send2(sender, reused, call, to)).await,
            };
            let (error, unsent) = match sent {
                Ok(answered) => return Ok(answered),
                // An idle connection that the instance had closed meanwhile is no failure of it.
                Err(Unanswered::Stale) => continue,
                Err(Unanswered::Unsent(error)) => (error, true),
                Err(Unanswered::Failed(error)) => (error, false),
            };
            // Once more here, since an old connection may have been the reason; then elsewhere.
            if !repeatable || !is_lost(&error) || sent_again || !reused {
                let again = unsent || (repeatable && is_lost(&error));
                return Err(Failed { error, again });
            }
            sent_again = true;
        }
    }
}

/// Tells whether a request may be sent a second time: one without a body, by a method that does no more when
/// it is done twice (RFC 9110, section 9.2.2).
fn is_repeatable(call: &Call<RequestBody>) -> bool {
    call.head.method.is_idempotent() && call.body.is_end_stream() && !call.head.fields.has(&UPGRADE)
}

/// Whether the connection broke before an answer began.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Upstream(error) if error.is_broken())
}

/// Why there is no answer over a connection.
enum Unanswered {
    /// It had been closed before anything was sent over it.
    Stale,
    /// Nothing was sent over it.
    Unsent(Error),
    Failed(Error),
}

async fn send1(
    endpoint: &Arc<Endpoint>,
    connection: Connection,
    call: &mut Call<RequestBody>,
    to: &Target,
) -> Result<Answered<InstanceBody>, Unanswered> {
    let Call { head, body, .. } = call;
    join_cookies(&mut head.fields);
    expect_continue(&head.fields, body);
    body.may_stall(to.timeouts.idle.0);
    let progress = body.progress();
    let answer = connection.send(head, body, to.timeouts.first_byte.0, &progress).await;
    let error = match answer {
        Ok(answered) => {
            let lease = Lease::of(Arc::clone(endpoint));
            return Ok(answered.map(|answer| from(Inner::Http1(answer, lease), to, progress)));
        }
        Err(Lost::Timeout) => Error::Timeout,
        Err(Lost::Body(BodyError::TooLarge)) => Error::BodyTooLarge,
        Err(Lost::Body(BodyError::Stalled)) => Error::Stalled,
        Err(Lost::Body(BodyError::Broken(error))) => Error::Client(error),
        Err(Lost::Body(BodyError::Instance(error))) => Error::Upstream(error),
        Err(lost) => Error::Upstream(UpstreamError::of(lost)),
    };
    Err(Unanswered::Failed(error))
}

async fn send2(
    mut sender: http2::SendRequest<RequestBody>,
    reused: bool,
    call: &mut Call<RequestBody>,
    to: &Target,
) -> Result<Answered<InstanceBody>, Unanswered> {
    call.body.may_stall(to.timeouts.idle.0);
    let progress = call.body.progress();
    let none = call.body.none();
    let body = std::mem::replace(&mut call.body, none);
    let request = absolute(&call.head, to, body).map_err(Unanswered::Failed)?;
    let answer = within(to.timeouts.first_byte.0, &progress, sender.try_send_request(request));
    match answer.await {
        None => Err(Unanswered::Failed(Error::Timeout)),
        Some(Ok(response)) => {
            let (parts, incoming) = response.into_parts();
            let body = from(Inner::Http2(incoming), to, progress);
            Ok(Answered { head: AnswerHead::from(&parts), body })
        }
        Some(Err(mut error)) => Err(match error.take_message() {
            Some(request) => {
                call.body = request.into_body();
                if reused && sender.is_closed() {
                    Unanswered::Stale
                } else {
                    Unanswered::Unsent(failure(error.into_error(), &progress))
                }
            }
            None => Unanswered::Failed(failure(error.into_error(), &progress)),
        }),
    }
}

fn from(inner: Inner, to: &Target, progress: Progress) -> InstanceBody {
    InstanceBody::new(inner, to.timeouts.idle.0, to.deadline, progress)
}

/// A client's broken body and an instance's broken connection look the same from here.
fn failure(error: hyper::Error, progress: &Progress) -> Error {
    match progress.failed() {
        Some(Blame::TooLarge) => Error::BodyTooLarge,
        Some(Blame::Stalled) => Error::Stalled,
        Some(Blame::Broken) => Error::Client(error.into()),
        None => Error::Upstream(UpstreamError::Http2(error)),
    }
}

/// Holds the body back until the instance agrees to it, where the client asked for that (RFC 9110,
/// section 10.1.1).
fn expect_continue(fields: &HeadFields, body: &mut RequestBody) {
    let expected = fields.first(&EXPECT);
    if expected.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        body.hold_back();
    }
}

/// Joins the crumbs that HTTP/2 allows (RFC 9113, section 8.2.3).
fn join_cookies(fields: &mut HeadFields) {
    if fields.line(&COOKIE, 1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = lines(fields, &COOKIE).collect();
    let joined = crumbs.join(&b"; "[..]);
    fields.insert(&COOKIE, &joined);
}

/// HTTP/2 carries scheme and host in the target instead of a header.
///
/// # Errors
///
/// A target that HTTP/2 has no words for.
fn absolute(
    head: &RequestHead,
    to: &Target,
    body: RequestBody,
) -> Result<Request<RequestBody>, Error> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut headers = HeaderMap::from(&head.fields);
    headers.remove(&*HOST);
    *request.headers_mut() = headers;
    let address = to.addr.to_string();
    let scheme = if matches!(to.wire, Wire::Tls(_)) { "https" } else { "http" };
    let host = head.fields.text(&HOST).filter(|host| !host.is_empty());
    let host = host.unwrap_or(&address);
    let path = match head.target.as_str() {
        "" => "/",
        path => path,
    };
    let built = Uri::builder().scheme(scheme).authority(host).path_and_query(path);
    let wrong = |_| Error::BadRequest("the request's target is none over HTTP/2");
    *request.uri_mut() = built.build().map_err(wrong)?;
    Ok(request)
}
