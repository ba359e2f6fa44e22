use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use gray_config::Live;
use gray_filters::{ClassifyLayer, ClientAddr, TrustedProxies};
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};

use crate::body::{ClientBody, InstanceBody, RequestBody, ResponseBody};
use crate::headers::{self, Address, Arrival, REQUEST_ID, RequestId};
use crate::http1::{Granted, Io, Upgrading};
use crate::metrics::Metrics;
use crate::observe::{Arrived, Ending, Observer, Trail};
use crate::proxy::{Failure, Proxy};
use crate::revision::Revision;
use crate::tags::{self, TagPolicy, take_over};
use crate::upstream::Pools;
use crate::{Error, problem};

/// How often a request may come through this gateway.
const MAX_PASSES: usize = 10;

/// How long an upgraded connection may be idle where no route says so.
const DEFAULT_IDLE: std::time::Duration = std::time::Duration::from_mins(1);

const EXPLAIN: HeaderName = HeaderName::from_static("x-graylane-explain");
const DECISION: HeaderName = HeaderName::from_static("x-graylane-decision");

/// Who a connection is from.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    pub(crate) scheme: &'static str,
}

impl Peer {
    pub(crate) fn new(addr: SocketAddr, scheme: &'static str) -> Self {
        Self { address: Address::new(addr.ip()), scheme }
    }
}

/// What the gateway does with requests, apart from routing them.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) tags: TagPolicy,
    pub(crate) max_target: usize,
    pub(crate) max_body: u64,
    /// The attributes of the sticky cookie, where it is given.
    pub(crate) sticky_cookie: Option<(String, u64)>,
    pub(crate) decision_header: bool,
}

/// Everything that a request goes through.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) policy: Policy,
    pub(crate) revision: Live<Revision>,
    pub(crate) proxy: Arc<Proxy<Pools>>,
    pub(crate) observer: Observer,
    pub(crate) upgrades: tokio_util::task::TaskTracker,
}

impl Gateway {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.observer.metrics
    }

    /// Answers a request; whatever happens, the client gets an answer and the request is noted.
    pub(crate) async fn handle(
        &self,
        request: Request<ClientBody>,
        peer: &Peer,
        upgrading: Option<Upgrading>,
    ) -> Response<ResponseBody> {
        let proxies = &self.policy.trusted_proxies;
        let client = proxies.client(peer.address.ip, request.headers());
        let id = RequestId::of(request.headers(), client.through_proxy);
        let method = request.method().clone();
        let arrived = Arrived {
            at: Instant::now(),
            method: method.clone(),
            path: self.observer.access_log.as_ref().map(|_| request.uri().path().to_owned()),
            client: client.address,
            id: id.clone(),
        };
        let mut ending = Ending::begin(self.observer.clone(), arrived);
        let wants_decision = self.policy.decision_header && request.headers().contains_key(EXPLAIN);
        let version = request.version();
        let answered = match self.check(&request) {
            Ok(()) => self.serve(request, peer, client, &id).await,
            Err(error) => Err(Failure { error, trail: None }),
        };
        let mut response = match answered {
            Ok(response) => self.take_answer(response, upgrading, version),
            Err(failure) => own_answer(failure, &method, &id),
        };
        let trail = response.extensions_mut().remove::<Trail>();
        tags::report(response.headers_mut(), trail.as_ref());
        self.adorn(&mut response, trail.as_ref(), &id, wants_decision);
        let error = response.extensions_mut().remove::<ErrorCode>().map(|code| code.0);
        ending.answered(response.status(), error, trail);
        response.map(|body| body.with_ending(ending))
    }

    /// Answers what is no request that can be handled, and takes note of it as of a request.
    pub(crate) fn refuse(&self, error: Error, peer: &Peer) -> Response<ResponseBody> {
        let id = RequestId::of(&HeaderMap::new(), false);
        // Nobody knows which, if any.
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let arrived = Arrived {
            at: Instant::now(),
            method: method.clone(),
            path: self.observer.access_log.as_ref().map(|_| String::new()),
            client: peer.address.ip,
            id: id.clone(),
        };
        let mut ending = Ending::begin(self.observer.clone(), arrived);
        let code = error.code();
        let mut response = own_answer(Failure { error, trail: None }, &method, &id);
        response.headers_mut().insert(REQUEST_ID, id.value().clone());
        ending.answered(response.status(), Some(code), None);
        response.map(|body| body.with_ending(ending))
    }

    /// Refuses what must not be passed on.
    fn check<B>(&self, request: &Request<B>) -> Result<(), Error> {
        let headers = request.headers();
        let uri = request.uri();
        if request.method() == Method::CONNECT {
            return Err(Error::Method(Method::CONNECT));
        }
        if uri.path().len() + uri.query().map_or(0, str::len) > self.policy.max_target {
            return Err(Error::TargetTooLong);
        }
        if headers.get_all(HOST).iter().count() > 1 {
            return Err(Error::BadRequest("the request has more than one Host"));
        }
        if request.version() >= Version::HTTP_11
            && uri.authority().is_none()
            && !headers.contains_key(HOST)
        {
            return Err(Error::BadRequest("the request has no Host"));
        }
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > self.policy.max_body) {
            return Err(Error::BodyTooLarge);
        }
        if headers::passes(headers) >= MAX_PASSES {
            return Err(Error::Loop);
        }
        Ok(())
    }

    /// Classifies a request, and passes it on.
    async fn serve(
        &self,
        request: Request<ClientBody>,
        peer: &Peer,
        client: ClientAddr,
        id: &RequestId,
    ) -> Result<Response<InstanceBody>, Failure> {
        let carriers = Arc::clone(&self.proxy.carriers);
        let mut request =
            request.map(|body| RequestBody::new(body, self.policy.max_body, carriers));
        let version = request.version();
        settle_host(&mut request);
        headers::strip_request(request.headers_mut());
        request.extensions_mut().insert(client);
        let arrival = Arrival {
            peer: peer.address.clone(),
            client: peer.address.or(client.address),
            trusted: client.through_proxy,
            scheme: peer.scheme,
        };
        let id = id.value().clone();
        let proxy = &self.proxy;
        let (chosen, refused) = self.policy.tags.chosen(arrival.peer.ip, request.headers());
        if let Some(error) = refused {
            tracing::debug!(%error, "signed tag refused");
            self.metrics().refused_tags.fetch_add(1, Relaxed);
        }
        let inner = service_fn(move |mut request: Request<RequestBody>| {
            if let Some(chosen) = &chosen {
                take_over(&mut request, chosen.status);
                let probe = chosen.probe.clone();
                probe.map(|probe| request.extensions_mut().insert(probe));
            }
            let headers = request.headers_mut();
            headers::forward(headers, &arrival);
            headers::sign(headers, version);
            headers.insert(REQUEST_ID, id.clone());
            headers.remove(EXPLAIN);
            proxy.call(request)
        });
        // Whatever is in it is always ready.
        ClassifyLayer::new(self.revision.clone()).layer(inner).call(request).await
    }

    /// Turns an instance's answer into the client's.
    fn take_answer(
        &self,
        mut response: Response<InstanceBody>,
        client: Option<Upgrading>,
        version: Version,
    ) -> Response<ResponseBody> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if upgraded && let Some(client) = client {
            let granted = response.extensions_mut().remove::<Granted>();
            let route = response.extensions().get::<Trail>().and_then(|trail| trail.route.as_ref());
            let idle = route.map_or(DEFAULT_IDLE, |route| route.timeouts.idle.0);
            if let Some((instance, read)) = granted.and_then(|granted| granted.take()) {
                self.upgrades.spawn(join(client, instance, read, idle));
            }
        }
        let answered = response.version();
        headers::strip_response(response.headers_mut(), upgraded);
        headers::sign(response.headers_mut(), answered);
        self.proxy.carriers.strip(response.headers_mut());
        *response.version_mut() = version;
        let carriers = Arc::clone(&self.proxy.carriers);
        response.map(|body| ResponseBody::of(body, carriers))
    }

    /// Adds what the gateway itself has to say.
    fn adorn(
        &self,
        response: &mut Response<ResponseBody>,
        trail: Option<&Trail>,
        id: &RequestId,
        decision: bool,
    ) {
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id.value().clone());
        let Some(trail) = trail else { return };
        if let (Some((name, max_age)), Some(issued)) =
            (&self.policy.sticky_cookie, trail.verdict.issued)
        {
            let issued = String::from_utf8_lossy(issued.as_bytes());
            let text =
                format!("{name}={issued}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax");
            if let Ok(cookie) = HeaderValue::try_from(text) {
                headers.append(SET_COOKIE, cookie);
            }
        }
        if decision && let Ok(text) = HeaderValue::try_from(decision_of(trail)) {
            headers.insert(DECISION, text);
        }
    }
}

/// The code of an error that the gateway answered itself.
#[derive(Clone, Copy, Debug)]
struct ErrorCode(&'static str);

fn own_answer(failure: Failure, method: &Method, id: &RequestId) -> Response<ResponseBody> {
    let Failure { error, trail } = failure;
    let own = problem::answer(&error, method, id.as_str());
    tracing::debug!(request = %id, %error, "request not served");
    let (parts, body) = own.into_parts();
    let mut response = Response::from_parts(parts, ResponseBody::of_own(body));
    response.extensions_mut().insert(ErrorCode(error.code()));
    if let Some(trail) = trail {
        response.extensions_mut().insert(trail);
    }
    response
}

/// Makes `Host` say what was asked for, which the target knows better (RFC 9112, section 3.2.2; HTTP/2
/// has no `Host` at all).
fn settle_host<B>(request: &mut Request<B>) {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// Says how a request was decided, in one line.
fn decision_of(trail: &Trail) -> String {
    let rules = trail.revision.rules.rules();
    let rule = trail.verdict.rule.and_then(|rule| rules.get(rule)).map(|rule| &**rule.name());
    let picked = trail.picked.as_ref();
    let instance = picked.map(|picked| picked.member.instance());
    let version = instance.and_then(|it| it.version.as_ref());
    format!(
        "lane={}; rule={}; revision={}; version={}; fallback={}",
        trail.verdict.status,
        rule.unwrap_or("-"),
        trail.revision.digest,
        version.map_or("-", gray_lb::Version::as_str),
        picked.and_then(|picked| picked.fallback).map_or("-", gray_lb::Fallback::as_str),
    )
}

/// Passes bytes both ways between two upgraded connections, until one ends or both are idle.
async fn join(client: Upgrading, mut instance: Io, read: Bytes, idle: std::time::Duration) {
    let Ok((mut client, sent)) = client.0.await else { return };
    // What either has said already, right behind its answer or its request.
    if client.write_all(&read).await.is_err() || instance.write_all(&sent).await.is_err() {
        return;
    }
    if let Err(error) = crate::tunnel::tunnel(&mut client, &mut instance, idle).await {
        tracing::debug!(%error, "upgraded connection ended");
    }
}
