//! What every call to another service needs, whatever protocol it is made in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gray_config::Live;
use gray_lb::{
    Balancer, DirectoryHealth, Fallback, NoInstance, Picked, ServedLanes, ServiceName, Want, Wanted,
};
use gray_propagation::{
    Carriers, Context, GrayStatus, HOP_HEADER, Hop, HopTag, PATH_HEADER, current,
};
use http::{HeaderMap, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::edges::{Edge, Edges};
use crate::lanes::OwnLane;

/// How long the first call of a service waits for its instances to become known.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many of the words about a hop are kept.
const MAX_HOPS: usize = 64;

/// How many instances of a lane are tried when they cannot be reached.
pub(crate) const ATTEMPTS: usize = 3;

/// Picks instances in the lane of the request that is being served.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing(Arc<Core>);

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) service: Arc<str>,
    pub(crate) own: OwnLane,
    pub(crate) balancer: Balancer,
    pub(crate) health: Live<DirectoryHealth>,
    pub(crate) wanted: Wanted,
    pub(crate) carriers: Carriers,
    pub(crate) edges: Edges,
    /// What calls say about themselves.
    pub(crate) hops: Mutex<Vec<(Way, HeaderValue)>>,
    /// Until when each service is waited for that nobody has said anything about.
    pub(crate) asked: Mutex<HashMap<ServiceName, Instant>>,
    /// Follow the registry and the lanes for as long as anybody calls.
    pub(crate) _tasks: Arc<JoinSet<()>>,
}

/// The service that is called, in which lane, and what was fallen back to.
type Way = (ServiceName, GrayStatus, Option<Fallback>);

impl Outgoing {
    pub(crate) fn new(core: Core) -> Self {
        Self(Arc::new(core))
    }

    /// Returns the context of the request that was being served when a call was begun, or else now,
    /// or else this copy's own.
    /// The last is counted: a job is meant to, but what a handler starts without its context is not.
    pub(crate) async fn context(
        &self,
        begun_in: Option<Arc<Context>>,
        service: &ServiceName,
    ) -> Arc<Context> {
        if let Some(context) = begun_in.or_else(current) {
            return context;
        }
        if !self.0.own.is_known() {
            self.0.own.known_soon().await;
        }
        let (from, to) = (Arc::clone(&self.0.service), service.to_shared());
        let lane = self.0.own.status();
        self.0.edges.of_own_accord(Edge { from, to, lane });
        Arc::new(Context::of(lane))
    }

    /// Returns how lanes are served: what a call is made by from its first attempt to its last. Waits a while
    /// for it to be known.
    ///
    /// # Errors
    ///
    /// Where it is not: the call could come to any version.
    pub(crate) async fn served(
        &self,
        service: &ServiceName,
    ) -> Result<Arc<ServedLanes>, NoInstance> {
        if !self.0.own.is_known() {
            self.0.own.known_soon().await;
            if !self.0.own.is_known() {
                return Err(NoInstance::UnknownLanes(service.clone()));
            }
        }
        Ok(self.0.own.lanes.load())
    }

    /// Picks an instance; the first time that a service is asked for, its instances are waited for, until
    /// every registry has spoken.
    pub(crate) async fn pick(
        &self,
        service: &ServiceName,
        context: &Context,
        served: &ServedLanes,
        tried: &[SocketAddr],
    ) -> Result<Picked, NoInstance> {
        let lanes = served.table.of(service);
        let want = Want { service, status: context.status, lanes, key: None, tried };
        let picked = self.0.balancer.pick(&want);
        // What is missing may only not be known yet: a lane may have a registry of its own.
        if picked.as_ref().is_ok_and(|picked| picked.fallback.is_none()) {
            return picked;
        }
        if !self.0.health.peek().complete.contains(service) {
            self.0.wanted.add(service);
            // Where nobody says anything, the pick says so.
            let _ = tokio::time::timeout_at(self.patience(service), self.known(service)).await;
        }
        // It may have become known meanwhile.
        self.0.balancer.pick(&want)
    }

    /// Returns until when a service is waited for: for a while from the first call on.
    fn patience(&self, service: &ServiceName) -> Instant {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked.entry(service.clone()).or_insert_with(|| Instant::now() + PATIENCE)
    }

    async fn known(&self, service: &ServiceName) {
        const STEP: Duration = Duration::from_millis(2);
        while !self.0.health.peek().complete.contains(service) {
            tokio::time::sleep(STEP).await;
        }
    }

    /// Writes onto a call what travels with it.
    pub(crate) fn write(
        &self,
        service: &ServiceName,
        context: &Context,
        picked: &Picked,
        headers: &mut HeaderMap,
    ) {
        self.0.carriers.write(context, headers);
        match self.hop(service, context.status, picked.fallback) {
            Some(hop) => headers.insert(HOP_HEADER, hop),
            None => headers.remove(HOP_HEADER),
        };
    }

    /// Returns what a call says about itself; it is written once for each service, lane and fallback.
    fn hop(
        &self,
        service: &ServiceName,
        status: GrayStatus,
        fallback: Option<Fallback>,
    ) -> Option<HeaderValue> {
        let mut hops = self.0.hops.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(to, lane, with): &Way| to == service && *lane == status && *with == fallback;
        if let Some((_, hop)) = hops.iter().find(|(way, _)| is_it(way)) {
            return Some(hop.clone());
        }
        let with = fallback.map(|fallback| fallback.as_str().to_owned());
        let (from, to) = (self.0.service.to_string(), service.to_string());
        let lane = Some(status.to_string());
        let hop = HopTag { from, to, fallback: with, lane }.to_header()?;
        if hops.len() < MAX_HOPS {
            hops.push(((service.clone(), status, fallback), hop.clone()));
        }
        drop(hops);
        Some(hop)
    }

    /// Takes note of a call that no instance has answered, in the lane that it was to be made in.
    pub(crate) fn failed(&self, service: &ServiceName, context: &Context) {
        let (from, to) = (Arc::clone(&self.0.service), service.to_shared());
        self.0.edges.failed(Edge { from, to, lane: context.status });
        if let Some(probe) = &context.probe {
            probe.add(Hop {
                service: service.to_string(),
                asked: Some(context.status.to_string()),
                failed: true,
                ..Hop::default()
            });
        }
    }

    /// Takes note of an answer, and of what the service reports where a report was asked for.
    pub(crate) fn answered(
        &self,
        service: &ServiceName,
        context: &Context,
        picked: &Picked,
        headers: &HeaderMap,
    ) {
        let from = Arc::clone(&self.0.service);
        let to = service.to_shared();
        self.0.edges.called(Edge { from, to, lane: context.status }, picked.fallback);
        let Some(probe) = &context.probe else { return };
        let version = picked.member.instance().version.as_ref();
        let named = Hop {
            service: service.to_string(),
            version: version.map(ToString::to_string),
            asked: Some(context.status.to_string()),
            fallback: picked.fallback.map(|fallback| fallback.as_str().to_owned()),
            ..Hop::default()
        };
        probe.add(named.answered_by(headers.get(PATH_HEADER).and_then(Hop::from_header)));
    }
}
