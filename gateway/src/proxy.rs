use std::sync::Arc;

use gray_filters::{Classified, ClientAddr, Verdict, without_port};
use gray_lb::{Balancer, Picked, ServiceName, Want};
use gray_propagation::{Carriers, HOP_HEADER, Probe, TAG_HEADER};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::Error;
use crate::observe::Trail;
use crate::properties::{HashBy, HostPolicy, Protocol};
use crate::revision::Revision;
use crate::routes::{Route, Routes};
use crate::upstream::{Failed, Target, Upstream, Wire};

/// How a service is called: what an operator wrote, ready for use.
#[derive(Clone, Debug, Default)]
pub struct Calling {
    /// What its instances speak.
    pub protocol: Protocol,
    /// The header that consistent hashing keeps to; the client's address where there is none.
    pub hash_header: Option<HeaderName>,
}

impl Calling {
    /// Reads what an operator wrote; `None` for a header that is none.
    pub fn new(protocol: Protocol, hash_by: &HashBy) -> Option<Self> {
        let hash_header = match hash_by {
            HashBy::ClientIp => None,
            HashBy::Header(name) => Some(name.parse().ok()?),
        };
        Some(Self { protocol, hash_header })
    }
}

/// The end of the filter chain: from a classified request to an answer.
#[derive(Debug)]
pub struct Proxy<U> {
    /// Where requests go.
    pub routes: Routes,
    /// How each service is called.
    pub callings: foldhash::HashMap<ServiceName, Calling>,
    /// How services that are not named are called.
    pub default_calling: Calling,
    /// Picks instances.
    pub balancer: Balancer,
    /// Writes the verdict for the next hop.
    pub carriers: Arc<Carriers>,
    /// How many instances are tried.
    pub attempts: usize,
    /// Sends requests.
    pub upstream: U,
}

/// A request that was not served, and how far it came.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// How far it came.
    pub trail: Option<Trail>,
}

impl<U> Proxy<U> {
    /// Answers one classified request: finds its route, picks an instance, sends it there.
    ///
    /// The revision that the request was classified by is used for all of it. An instance that
    /// cannot be reached is replaced by another one of the lane, and so is one that breaks off before
    /// it answers, where the request may be sent twice.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn call<B>(&self, mut request: Request<B>) -> Result<Response<U::Body>, Failure>
    where
        U: Upstream<B>,
    {
        let classified = request.extensions_mut().remove::<Classified<Revision>>();
        let mut trail = trail_of(classified);
        trail.probe = request.extensions_mut().remove::<Probe>();
        match self.try_call(request, &mut trail).await {
            Ok(mut response) => {
                response.extensions_mut().insert(trail);
                Ok(response)
            }
            Err(error) => Err(Failure { error, trail: Some(trail) }),
        }
    }

    async fn try_call<B>(
        &self,
        request: Request<B>,
        trail: &mut Trail,
    ) -> Result<Response<U::Body>, Error>
    where
        U: Upstream<B>,
    {
        if trail.revision.awaited {
            return Err(Error::NoRules);
        }
        let (method, uri) = (request.method(), request.uri());
        let route = self.routes.resolve(method, host_of(&request), uri.path());
        let route = Arc::clone(route.ok_or(Error::NoRoute)?);
        trail.route = Some(Arc::clone(&route));
        let Some(total) = route.timeouts.total else {
            return self.serve(request, &route, None, trail).await;
        };
        let deadline = Instant::now() + total.0;
        let serving = Box::pin(self.serve(request, &route, Some(deadline), trail));
        tokio::time::timeout_at(deadline, serving).await.map_err(|_| Error::Timeout)?
    }

    /// Picks an instance and sends the request there; once more where that one cannot be reached.
    async fn serve<B>(
        &self,
        mut request: Request<B>,
        route: &Route,
        deadline: Option<Instant>,
        trail: &mut Trail,
    ) -> Result<Response<U::Body>, Error>
    where
        U: Upstream<B>,
    {
        let calling = self.callings.get(&route.service).unwrap_or(&self.default_calling);
        let wire = wire(calling, &route.service, &request);
        let key = hash_key(calling, &request);
        self.carriers.inject(trail.verdict.status, request.headers_mut());
        if let Some(probe) = &trail.probe {
            request.headers_mut().insert(TAG_HEADER, probe.tag().clone());
        }
        readdress(&mut request, route);
        let (mut tried, mut failed) = (Vec::new(), None);
        loop {
            // Why the last instance failed says more than that there is no other.
            let picked = self.pick(route, trail, key, &tried);
            let picked = picked.map_err(|none| failed.take().unwrap_or(none))?;
            let addr = picked.member.instance().addr;
            trail.picked = Some(picked.clone());
            trail.attempts += 1;
            name_host(&mut request, &route.host, addr);
            request.headers_mut().insert(HOP_HEADER, route.hop(picked.fallback).clone());
            let to = Target { addr, wire: wire.clone(), timeouts: route.timeouts, deadline };
            trail.in_flight = Some(Arc::new(picked.member.begin()));
            let error = match self.upstream.send(request, &to).await {
                Ok(response) => return Ok(response),
                Err(Failed { error, request: None }) => return Err(error),
                Err(Failed { error, request: Some(again) }) => {
                    request = *again;
                    error
                }
            };
            tracing::debug!(%addr, %error, "instance not reached");
            tried.push(addr);
            if tried.len() >= self.attempts {
                return Err(error);
            }
            failed = Some(error);
        }
    }

    fn pick(
        &self,
        route: &Route,
        trail: &Trail,
        key: Option<u64>,
        tried: &[std::net::SocketAddr],
    ) -> Result<Picked, Error> {
        let lanes = trail.revision.lanes.of(&route.service);
        let status = trail.verdict.status;
        let want = Want { service: &route.service, status, lanes, key, tried };
        Ok(self.balancer.pick(&want)?)
    }
}

/// A request that nobody classified is let through as if gray release were off.
fn trail_of(classified: Option<Classified<Revision>>) -> Trail {
    let off = || Classified { verdict: Verdict::OFF, revision: Arc::new(Revision::off()) };
    let Classified { verdict, revision } = classified.unwrap_or_else(off);
    Trail {
        verdict,
        revision,
        route: None,
        picked: None,
        in_flight: None,
        attempts: 0,
        probe: None,
    }
}

/// Returns the host that was asked for, without its port.
pub(crate) fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let named = || request.headers().get(HOST)?.to_str().ok();
    request.uri().host().or_else(|| named().map(without_port))
}

fn wire<B>(calling: &Calling, service: &ServiceName, request: &Request<B>) -> Wire {
    match calling.protocol {
        Protocol::Http1 => Wire::Http1,
        Protocol::H2c => Wire::H2c,
        Protocol::Https => Wire::Tls(service.as_str().into()),
        Protocol::Auto => {
            let kind = request.headers().get(CONTENT_TYPE);
            let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            if grpc { Wire::H2c } else { Wire::Http1 }
        }
    }
}

fn hash_key<B>(calling: &Calling, request: &Request<B>) -> Option<u64> {
    if let Some(name) = &calling.hash_header {
        request.headers().get(name).map(|value| xxh3_64(value.as_bytes()))
    } else {
        let client = request.extensions().get::<ClientAddr>()?;
        Some(match client.address {
            std::net::IpAddr::V4(address) => xxh3_64(&address.octets()),
            std::net::IpAddr::V6(address) => xxh3_64(&address.octets()),
        })
    }
}

/// Turns the target into one for the instance: the path alone, its bytes untouched.
fn readdress<B>(request: &mut Request<B>, route: &Route) {
    let Some(target) = request.uri().path_and_query() else { return };
    let target = route.rewrite(target).unwrap_or_else(|| target.clone());
    *request.uri_mut() = Uri::from(target);
}

fn name_host<B>(request: &mut Request<B>, policy: &HostPolicy, addr: std::net::SocketAddr) {
    let host = match policy {
        HostPolicy::Keep => return,
        HostPolicy::Instance => HeaderValue::try_from(addr.to_string()),
        HostPolicy::Name(name) => HeaderValue::try_from(name.as_str()),
    };
    if let Ok(host) = host {
        request.headers_mut().insert(HOST, host);
    }
}
