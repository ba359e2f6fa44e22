use std::net::SocketAddr;
use std::sync::Arc;

use gray_filters::{Classified, Subject, Verdict};
use gray_lb::{Balancer, Picked, ServiceName, Want};
use gray_propagation::{Carriers, FieldName, Lines as _};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::Error;
use crate::field::{CONTENT_TYPE, HOP, HOST, TAG};
use crate::head::{Answered, Call, HeadFields};
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
    pub hash_header: Option<FieldName>,
}

impl Calling {
    /// Reads what an operator wrote; `None` for a header that is none.
    pub fn new(protocol: Protocol, hash_by: &HashBy) -> Option<Self> {
        let hash_header = match hash_by {
            HashBy::ClientIp => None,
            HashBy::Header(name) => Some(name.parse::<http::HeaderName>().ok()?.into()),
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

impl<U> Proxy<U> {
    /// Answers one classified request: finds its route, picks an instance, sends it there; what becomes of it
    /// is noted in its trail.
    ///
    /// The revision that the request was classified by is used for all of it. An instance that
    /// cannot be reached is replaced by another one of the lane, and so is one that breaks off before
    /// it answers, where the request may be sent twice.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn call<B>(&self, call: &mut Call<B>) -> Result<Answered<U::Body>, Error>
    where
        U: Upstream<B>,
    {
        let trail = call.trail.get_or_insert_with(|| Box::new(Trail::of(unclassified())));
        if trail.revision.awaited {
            return Err(Error::NoRules);
        }
        let route = self.routes.resolve(&Subject::head(call));
        let route = Arc::clone(route.ok_or(Error::NoRoute)?);
        if let Some(trail) = &mut call.trail {
            trail.route = Some(Arc::clone(&route));
        }
        let Some(total) = route.timeouts.total else {
            return self.serve(call, &route, None).await;
        };
        let deadline = Instant::now() + total.0;
        let serving = Box::pin(self.serve(call, &route, Some(deadline)));
        tokio::time::timeout_at(deadline, serving).await.map_err(|_| Error::Timeout)?
    }

    /// Picks an instance and sends the request there; once more where that one cannot be reached.
    async fn serve<B>(
        &self,
        call: &mut Call<B>,
        route: &Route,
        deadline: Option<Instant>,
    ) -> Result<Answered<U::Body>, Error>
    where
        U: Upstream<B>,
    {
        let calling = self.callings.get(&route.service).unwrap_or(&self.default_calling);
        let wire = wire(calling, &route.service, &call.head.fields);
        let key = hash_key(calling, call);
        self.write(call, route);
        let named = call.head.fields.has(&HOST);
        let (mut tried, mut failed) = (Vec::new(), None);
        loop {
            let Some(trail) = &mut call.trail else { return Err(Error::NoRules) };
            // Why the last instance failed says more than that there is no other.
            let picked = self.pick(route, trail, key, &tried);
            let picked = picked.map_err(|none| failed.take().unwrap_or(none))?;
            let addr = picked.member.instance().addr;
            let fields = &mut call.head.fields;
            name_host(fields, &route.host, named, addr);
            fields.insert(&HOP, route.hop(picked.fallback).as_bytes());
            trail.in_flight = Some(picked.member.begin());
            trail.picked = Some(picked);
            trail.attempts += 1;
            let to = Target { addr, wire: wire.clone(), timeouts: route.timeouts, deadline };
            let error = match self.upstream.send(call, &to).await {
                Ok(answered) => return Ok(answered),
                Err(Failed { error, again: false }) => return Err(error),
                Err(Failed { error, again: true }) => error,
            };
            tracing::debug!(%addr, %error, "instance not reached");
            tried.push(addr);
            if tried.len() >= self.attempts {
                return Err(error);
            }
            failed = Some(error);
        }
    }

    /// Writes what the instance is told, whichever it is, and what it is asked for: the path alone, its bytes
    /// untouched but for the route's prefixes.
    fn write<B>(&self, call: &mut Call<B>, route: &Route) {
        let Call { head, trail: Some(trail), .. } = call else { return };
        self.carriers.inject(trail.verdict.status, &mut head.fields);
        if let Some(probe) = &trail.probe {
            head.fields.insert(&TAG, probe.tag().as_bytes());
        }
        match route.rewrite(head.target.as_str()) {
            Some(target) => head.target.readdress(&target),
            None => head.target.make_relative(),
        }
    }

    fn pick(
        &self,
        route: &Route,
        trail: &Trail,
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Result<Picked, Error> {
        let lanes = trail.revision.lanes.of(&route.service);
        let status = trail.verdict.status;
        let want = Want { service: &route.service, status, lanes, key, tried };
        Ok(self.balancer.pick(&want)?)
    }
}

/// A request that nobody classified is let through as if gray release were off.
fn unclassified() -> Classified<Revision> {
    Classified { verdict: Verdict::OFF, revision: Arc::new(Revision::off()) }
}

fn wire(calling: &Calling, service: &ServiceName, fields: &HeadFields) -> Wire {
    match calling.protocol {
        Protocol::Http1 => Wire::Http1,
        Protocol::H2c => Wire::H2c,
        Protocol::Https => Wire::Tls(service.as_str().into()),
        Protocol::Auto => {
            let kind = fields.first(&CONTENT_TYPE);
            let grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
            if grpc { Wire::H2c } else { Wire::Http1 }
        }
    }
}

fn hash_key<B>(calling: &Calling, call: &Call<B>) -> Option<u64> {
    if let Some(name) = &calling.hash_header {
        return call.head.fields.first(name).map(xxh3_64);
    }
    Some(match call.client.address {
        std::net::IpAddr::V4(address) => xxh3_64(&address.octets()),
        std::net::IpAddr::V6(address) => xxh3_64(&address.octets()),
    })
}

fn name_host(fields: &mut HeadFields, policy: &HostPolicy, named: bool, addr: SocketAddr) {
    match policy {
        HostPolicy::Keep if named => {}
        // Clients of HTTP/1.0 need name none, and an instance of HTTP/1.1 must be told one.
        HostPolicy::Keep | HostPolicy::Instance => {
            fields.insert(&HOST, addr.to_string().as_bytes());
        }
        HostPolicy::Name(name) => fields.insert(&HOST, name.as_bytes()),
    }
}
