use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use gray_config::Live;
use gray_filters::{ClassifyLayer, ClientAddr, TrustedProxies};
use gray_propagation::Lines as _;
use http::header::HeaderValue;
use http::{Method, StatusCode, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tower::util::ServiceFn;
use tower::{Layer, Service, service_fn};

use crate::body::{ClientBody, InstanceBody, RequestBody, ResponseBody};
use crate::field::{
    CONTENT_LENGTH, COOKIE, DECISION, EXPECT, EXPLAIN, HOST, MAX_FORWARDS, REQUEST_ID, SET_COOKIE,
};
use crate::head::{AnswerHead, Answered, Call, HeadFields, RequestHead, is_host};
use crate::headers::{self, Address, Arrival, RequestId};
use crate::http1::{Io, Upgraded, Upgrading, settle_length};
use crate::metrics::Metrics;
use crate::observe::{Arrived, Ending, Observer, Trail};
use crate::proxy::Proxy;
use crate::revision::Revision;
use crate::tags::{self, TagPolicy, take_over};
use crate::upstream::Pools;
use crate::{Error, problem};

/// How often a request may come through this gateway.
const MAX_PASSES: usize = 10;

/// How long an upgraded connection may be idle where no route says so.
const DEFAULT_IDLE: std::time::Duration = std::time::Duration::from_mins(1);

/// Who a connection is from.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    pub(crate) scheme: &'static str,
    /// What instances are told of it.
    said: HeadFields,
}

impl Peer {
    pub(crate) fn new(addr: SocketAddr, scheme: &'static str) -> Self {
        let address = Address::new(addr.ip());
        let said = headers::said_of(&address, scheme);
        Self { address, scheme, said }
    }
}

/// What the gateway does with requests, apart from routing them.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) tags: TagPolicy,
    pub(crate) max_target: usize,
    pub(crate) max_fields: usize,
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
    pub(crate) classify: ClassifyLayer<Revision>,
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
        mut head: Box<RequestHead>,
        body: ClientBody,
        peer: &Peer,
        upgrading: Option<Upgrading>,
    ) -> Answered<ResponseBody> {
        let client = self.policy.trusted_proxies.client(peer.address.ip, &head.fields);
        let id = RequestId::of(&head.fields, client.through_proxy);
        let method = head.method.clone();
        let arrived = Arrived {
            at: Instant::now(),
            method: method.clone(),
            path: self.observer.access_log.as_ref().map(|_| head.target.path().to_owned()),
            client: client.address,
            id: id.clone(),
        };
        let mut ending = Ending::begin(self.observer.clone(), arrived);
        let wants_decision = self.policy.decision_header && head.fields.has(&EXPLAIN);
        let version = head.version;
        let (served, trail) =
            match self.check(&head).and_then(|()| settle(&mut head, self.policy.max_body)) {
                Ok(()) => {
                    headers::strip_request(&mut head.fields, upgrading.is_some());
                    self.serve(head, body, peer, client, &id).await
                }
                Err(error) => (Err(error), None),
            };
        let (mut answered, error) = match served {
            Ok(answered) => {
                (self.take_answer(answered, upgrading, version, trail.as_deref()), None)
            }
            Err(error) => {
                let code = error.code();
                (own_answer(&error, &method, &id), Some(code))
            }
        };
        tags::report(&mut answered.head.fields, trail.as_deref());
        self.adorn(&mut answered.head.fields, trail.as_deref(), &id, wants_decision);
        ending.answered(answered.head.status, error, trail);
        answered.map(|body| body.with_ending(ending))
    }

    /// Answers what is no request that can be handled, and takes note of it as of a request.
    pub(crate) fn refuse(&self, error: &Error, peer: &Peer) -> Answered<ResponseBody> {
        let id = RequestId::draw();
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
        let mut answered = own_answer(error, &method, &id);
        answered.head.fields.insert(&REQUEST_ID, id.as_bytes());
        ending.answered(answered.head.status, Some(error.code()), None);
        answered.map(|body| body.with_ending(ending))
    }

    /// Refuses what must not be passed on.
    fn check(&self, head: &RequestHead) -> Result<(), Error> {
        let RequestHead { method, target, version, fields } = head;
        if *method == Method::CONNECT {
            return Err(Error::Method(Method::CONNECT));
        }
        if target.path().len() + target.query().map_or(0, str::len) > self.policy.max_target {
            return Err(Error::TargetTooLong);
        }
        // Over HTTP/1.1 nobody comes here with more; over HTTP/2 each cookie may be a line (RFC 9113, section
        // 8.2.3), and all of them count as one.
        let most = self.policy.max_fields;
        if fields.len() > most && fields.len() - fields.more(&COOKIE).len() > most {
            return Err(Error::HeadTooLarge);
        }
        if fields.line(&HOST, 1).is_some() {
            return Err(Error::BadRequest("the request has more than one Host"));
        }
        let named = *version == Version::HTTP_2 && target.authority().is_some();
        if *version >= Version::HTTP_11 && !named && !fields.has(&HOST) {
            return Err(Error::BadRequest("the request has no Host"));
        }
        if target.path() == "*" && *method != Method::OPTIONS {
            return Err(Error::BadRequest("only OPTIONS is asked of the whole server"));
        }
        if headers::passes(fields) >= MAX_PASSES {
            return Err(Error::Loop);
        }
        Ok(())
    }

    /// Classifies a request, and passes it on; what became of it is told in any case.
    async fn serve(
        &self,
        head: Box<RequestHead>,
        body: ClientBody,
        peer: &Peer,
        client: ClientAddr,
        id: &RequestId,
    ) -> (Result<Answered<InstanceBody>, Error>, Option<Box<Trail>>) {
        let carriers = Arc::clone(&self.proxy.carriers);
        let body = RequestBody::new(body, self.policy.max_body, carriers);
        let (mut chosen, refused) = self.policy.tags.chosen(peer.address.ip, &head.fields);
        if let Some(error) = refused {
            tracing::debug!(%error, "signed tag refused");
            self.metrics().refused_tags.fetch_add(1, Relaxed);
        }
        let mut call = Call { head, body, client, trail: None };
        let inner = within(|call| {
            if let (Some(chosen), Some(trail)) = (chosen.take(), &mut call.trail) {
                take_over(trail, chosen.status);
                trail.probe = chosen.probe;
            }
            let arrival = Arrival {
                peer: &peer.address,
                client: &peer.address.or(call.client.address),
                trusted: call.client.through_proxy,
                scheme: peer.scheme,
                said: &peer.said,
            };
            let version = call.head.version;
            let fields = &mut call.head.fields;
            headers::forward(fields, &arrival);
            headers::sign(fields, version);
            fields.insert(&REQUEST_ID, id.as_bytes());
            fields.remove(&EXPLAIN);
            self.proxy.call(call)
        });
        // Whatever is in it is always ready.
        let served = self.classify.layer(inner).call(&mut call).await;
        (served, call.trail)
    }

    /// Turns an instance's answer into the client's.
    fn take_answer(
        &self,
        mut answered: Answered<InstanceBody>,
        client: Option<Upgrading>,
        version: Version,
        trail: Option<&Trail>,
    ) -> Answered<ResponseBody> {
        let upgraded = answered.head.status == StatusCode::SWITCHING_PROTOCOLS;
        if upgraded
            && let Some(client) = client
            && let Some((instance, read)) = answered.body.upgraded()
        {
            let route = trail.and_then(|trail| trail.route.as_ref());
            let idle = route.map_or(DEFAULT_IDLE, |route| route.timeouts.idle.0);
            self.upgrades.spawn(join(client, instance, read, idle));
        }
        let AnswerHead { fields, version: came, status } = &mut answered.head;
        headers::strip_response(fields, upgraded);
        headers::sign(fields, *came);
        self.proxy.carriers.strip(fields);
        if version == Version::HTTP_2 {
            settle_answer(fields, *status);
        }
        *came = version;
        let carriers = Arc::clone(&self.proxy.carriers);
        answered.map(|body| ResponseBody::of(body, carriers))
    }

    /// Adds what the gateway itself has to say.
    fn adorn(
        &self,
        fields: &mut HeadFields,
        trail: Option<&Trail>,
        id: &RequestId,
        decision: bool,
    ) {
        fields.insert(&REQUEST_ID, id.as_bytes());
        let Some(trail) = trail else { return };
        if let (Some((name, max_age)), Some(issued)) =
            (&self.policy.sticky_cookie, trail.verdict.issued)
        {
            let issued = String::from_utf8_lossy(issued.as_bytes());
            let text =
                format!("{name}={issued}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax");
            if HeaderValue::try_from(&text).is_ok() {
                fields.append(&SET_COOKIE, text.as_bytes());
            }
        }
        if decision {
            fields.insert(&DECISION, decision_of(trail).as_bytes());
        }
    }
}

fn own_answer(error: &Error, method: &Method, id: &RequestId) -> Answered<ResponseBody> {
    tracing::debug!(request = %id, %error, "request not served");
    problem::answer(error, method, id.as_str()).map(ResponseBody::of_own)
}

/// The inner service of a request: it is called once.
fn within<'a, F, T>(f: F) -> ServiceFn<F>
where
    F: FnMut(&'a mut Call<RequestBody>) -> T,
{
    service_fn(f)
}

/// Makes a request say in one way only what could be said in several.
///
/// # Errors
///
/// What cannot be said, and a body that is said to be larger than allowed.
fn settle(head: &mut RequestHead, max_body: u64) -> Result<(), Error> {
    let RequestHead { method, target, version, fields } = head;
    // The target knows better (RFC 9112, section 3.2.2); over HTTP/2 both must be the same (RFC 9113, section
    // 8.3.1).
    if let Some(authority) = target.authority() {
        let same = |host: &&[u8]| host.eq_ignore_ascii_case(authority.as_str().as_bytes());
        let other = fields.first(&HOST).filter(|host| !same(host));
        if *version == Version::HTTP_2 && other.is_some() {
            return Err(Error::BadRequest("the request's host is not its authority"));
        }
        fields.insert(&HOST, authority.as_str().as_bytes());
    }
    if fields.first(&HOST).is_some_and(|host| !is_host(host)) {
        return Err(Error::BadRequest("the request's host is none"));
    }
    let length = settle_length(fields).map_err(Error::BadRequest)?;
    if length.is_some_and(|length| length > max_body) {
        return Err(Error::BodyTooLarge);
    }
    if *version == Version::HTTP_10 {
        // It means nothing there (RFC 9110, section 10.1.1).
        fields.remove(&EXPECT);
    }
    if fields.has(&MAX_FORWARDS) && (*method == Method::OPTIONS || *method == Method::TRACE) {
        // Whoever is asked last answers (RFC 9110, section 7.6.2), and this gateway knows nothing to answer.
        let left = fields.text(&MAX_FORWARDS).and_then(|left| left.trim().parse::<u64>().ok());
        match left.map(|left| left.checked_sub(1)) {
            Some(None) => return Err(Error::Method(method.clone())),
            Some(Some(left)) => fields.insert(&MAX_FORWARDS, left.to_string().as_bytes()),
            None => {}
        }
    }
    Ok(())
}

/// Has an answer say how long it is in one way, and only where it has a body (RFC 9110, section 8.6); over HTTP/1.1
/// whoever writes it does.
fn settle_answer(fields: &mut HeadFields, status: StatusCode) {
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        fields.remove(&CONTENT_LENGTH);
    }
    // What is no length was refused when it was read.
    let _ = settle_length(fields);
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
    let Ok(Upgraded { io: mut client, read: sent, held: _held }) = client.0.await else { return };
    // What either has said already, right behind its answer or its request.
    if client.write_all(&read).await.is_err() || instance.write_all(&sent).await.is_err() {
        return;
    }
    if let Err(error) = crate::tunnel::tunnel(&mut client, &mut instance, idle).await {
        tracing::debug!(%error, "upgraded connection ended");
    }
}
