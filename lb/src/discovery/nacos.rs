use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, unfold};
use gray_config::nacos::{Link, LinkState, NacosInstance, NacosService, Push, PushedService};
use gray_propagation::Lane;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tracing::warn;

use super::heard::{Heard, Said};
use super::{Discovery, News, Trust, Wanted};
use crate::pause::after;
use crate::{Announced, ServiceName};

/// How often each service is asked for again unasked; at most fifty a second in all.
const POLL: Duration = Duration::from_secs(15);

/// How soon a service is asked for again that could not be subscribed to.
const RETRY: Duration = Duration::from_secs(1);

/// How long the server's word is doubted after the link came back, where nothing else is said:
/// clients of a server that was restarted take some ten seconds to register again.
const RECOVERY_GRACE: Duration = Duration::from_secs(30);

/// How long pushes are left to gather after some have been taken, for each of these: a push that comes
/// alone is taken at once, and of a storm only what is newest is read.
const PAUSE_PER_PUSH: Duration = Duration::from_millis(1);

/// The longest such pause.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// How many services are asked for at once when the link comes up.
const CONCURRENCY: usize = 64;

/// Where in a Nacos namespace services are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NacosGroup {
    /// The group, such as `DEFAULT_GROUP`.
    pub group: String,
    /// The clusters to take instances of; empty for all.
    pub clusters: Vec<String>,
    /// The lane that this group belongs to, if it belongs to one.
    pub lane: Option<Lane>,
}

/// A registry that is a Nacos server.
///
/// Pushes are taken as they come, unless they are older than what is known; every service is asked
/// for again when the link has come back, and now and then.
#[derive(Debug)]
pub struct NacosDiscovery {
    link: Link,
    group: NacosGroup,
    wanted: Wanted,
    recovery_grace: Duration,
}

impl NacosDiscovery {
    /// Follows the services that are wanted, over a link to the naming half of Nacos.
    pub const fn new(link: Link, group: NacosGroup, wanted: Wanted) -> Self {
        Self { link, group, wanted, recovery_grace: RECOVERY_GRACE }
    }

    /// Doubts for so long, after the link came back, that instances are gone.
    #[must_use]
    pub const fn with_recovery_grace(mut self, grace: Duration) -> Self {
        self.recovery_grace = grace;
        self
    }
}

impl Discovery for NacosDiscovery {
    fn lane(&self) -> Option<Lane> {
        self.group.lane
    }

    fn name(&self) -> String {
        let properties = self.link.properties();
        let servers = properties.servers.join(",");
        format!("nacos {servers} {} {}", properties.namespace_name(), self.group.group)
    }

    fn updates(self: Box<Self>) -> BoxStream<'static, News> {
        let mut wanted = self.wanted.follow();
        let services = wanted.borrow_and_update().iter().cloned().collect();
        let state = State {
            pushes: self.link.pushes(),
            states: self.link.state(),
            link: self.link,
            group: self.group,
            services,
            wanted,
            _wanted: self.wanted,
            recovery_grace: self.recovery_grace,
            heard: Heard::default(),
            queue: VecDeque::new(),
            epoch: 0,
            was_away: false,
            settled_at: Instant::now(),
            ready_at: Instant::now(),
            turn: 0,
            missed: VecDeque::new(),
        };
        unfold(state, |mut state| async move {
            let news = state.next().await;
            Some((news, state))
        })
        .boxed()
    }
}

struct State {
    link: Link,
    group: NacosGroup,
    services: Vec<ServiceName>,
    wanted: watch::Receiver<BTreeSet<ServiceName>>,
    /// Keeps the set open, so that nobody hears of its end.
    _wanted: Wanted,
    pushes: broadcast::Receiver<Push>,
    states: watch::Receiver<LinkState>,
    heard: Heard,
    queue: VecDeque<News>,
    epoch: u64,
    /// Whether there was no connection at some time before the first.
    was_away: bool,
    settled_at: Instant,
    recovery_grace: Duration,
    /// When pushes are looked at again.
    ready_at: Instant,
    turn: usize,
    /// Services that could not be subscribed to: they are asked for before all others.
    missed: VecDeque<ServiceName>,
}

impl State {
    async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.queue.pop_front() {
                return news;
            }
            let (epoch, connected) = {
                let state = self.states.borrow_and_update();
                // Instances may come from a snapshot, so an outage before the start counts too.
                self.was_away |= state.error.is_some();
                (state.epoch, state.connected)
            };
            if connected && epoch != self.epoch {
                self.subscribe_all(epoch).await;
                continue;
            }
            self.wait(connected).await;
        }
    }

    async fn wait(&mut self, connected: bool) {
        let services = u32::try_from(self.services.len().max(1)).unwrap_or(u32::MAX);
        let pause = (POLL / services).max(Duration::from_millis(20));
        let pause = if self.missed.is_empty() { pause } else { pause.min(RETRY) };
        tokio::select! {
            push = after(self.ready_at, self.pushes.recv()) => match push {
                Ok(push) => self.pushed(push),
                // What was missed is asked for, as after a lost link.
                Err(broadcast::error::RecvError::Lagged(_)) => self.epoch = 0,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            },
            _ = self.wanted.changed() => self.subscribe_new(connected).await,
            changed = self.states.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            () = tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)), if connected => {
                self.poll().await;
            }
        }
    }

    /// Subscribes to everything on a new connection.
    async fn subscribe_all(&mut self, epoch: u64) {
        if self.epoch > 0 || self.was_away {
            self.settled_at = Instant::now() + self.recovery_grace;
        }
        self.epoch = epoch;
        self.heard.clear();
        self.missed.clear();
        self.subscribe(self.services.clone()).await;
    }

    /// Subscribes to what is wanted since the last time; all of it once there is a connection.
    async fn subscribe_new(&mut self, connected: bool) {
        let wanted = self.wanted.borrow_and_update().clone();
        let new = wanted.into_iter().filter(|service| !self.services.contains(service));
        let new: Vec<ServiceName> = new.collect();
        self.services.extend(new.iter().cloned());
        if connected {
            self.subscribe(new).await;
        }
    }

    async fn subscribe(&mut self, services: Vec<ServiceName>) {
        let (link, group) = (&self.link, &self.group.group);
        let answers: Vec<_> = stream::iter(services)
            .map(|name| async move { (link.subscribe(name.as_str(), group).await, name) })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (answer, name) in answers {
            match answer {
                Ok(service) => self.take(name, &service, Said::Asked),
                Err(error) => {
                    warn!(service = %name, %error, "not subscribed, trying again");
                    self.missed.push_back(name);
                }
            }
        }
    }

    /// Asks for one service again, each in its turn.
    async fn poll(&mut self) {
        let Some(name) = self.missed.pop_front().or_else(|| self.next_in_turn()) else { return };
        let stats = self.link.stats();
        stats.polls.fetch_add(1, Ordering::Relaxed);
        match self.link.subscribe(name.as_str(), &self.group.group).await {
            Ok(service) => {
                let before = self.queue.len();
                self.take(name, &service, Said::Asked);
                let found = u64::from(self.queue.len() > before);
                self.link.stats().poll_finds.fetch_add(found, Ordering::Relaxed);
            }
            Err(error) => {
                warn!(service = %name, %error, "not asked for again");
                self.missed.push_back(name);
            }
        }
    }

    fn next_in_turn(&mut self) -> Option<ServiceName> {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn.checked_rem(self.services.len())?;
        self.services.get(turn).cloned()
    }

    /// Takes a push with all that have come since; of several about a service only the newest counts.
    fn pushed(&mut self, first: Push) {
        let mut newest: BTreeMap<ServiceName, Arc<PushedService>> = BTreeMap::new();
        let mut next = Some(first);
        let mut count = 0;
        while let Some(push) = next {
            count += 1;
            if let Push::Service(service) = push
                && let Some(name) = self.name_of(&service)
            {
                let known = newest.get(&name).map(|known| known.last_ref_time);
                if known.is_none_or(|known| known <= service.last_ref_time) {
                    newest.insert(name, service);
                }
            }
            next = match self.pushes.try_recv() {
                Ok(push) => Some(push),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.epoch = 0;
                    None
                }
                Err(_) => None,
            };
        }
        for (name, service) in newest {
            match service.read() {
                Ok(service) => self.take(name, &service, Said::Unasked),
                Err(error) => {
                    warn!(service = %name, %error, "Nacos pushed something unreadable, asking for it");
                    self.missed.push_back(name);
                }
            }
        }
        self.ready_at = Instant::now() + (PAUSE_PER_PUSH * count).min(MAX_PAUSE);
    }

    /// Returns the name of a service that was pushed, if it is wanted and in the group.
    fn name_of(&self, service: &PushedService) -> Option<ServiceName> {
        let (group, name) = match service.name.split_once("@@") {
            Some((group, name)) => (group, name),
            None => (service.group_name.as_str(), service.name.as_str()),
        };
        let name = ServiceName::new(name);
        (group == self.group.group && self.wanted.borrow().contains(&name)).then_some(name)
    }

    /// Takes the server's word about a service, unless it is a push that is older than what is known,
    /// or says the same.
    fn take(&mut self, name: ServiceName, service: &NacosService, said: Said) {
        let clusters = &self.group.clusters;
        let in_cluster = |instance: &&NacosInstance| {
            let cluster = instance.cluster_name.as_deref().unwrap_or("DEFAULT");
            clusters.is_empty() || clusters.iter().any(|name| name == cluster)
        };
        let announced: Vec<Announced> =
            service.hosts.iter().filter(in_cluster).map(announced).collect();
        let settling = Instant::now() < self.settled_at;
        if !self.heard.is_news(&name, service.last_ref_time, &announced, said) {
            return;
        }
        let trust = if settling { Trust::Settling(self.settled_at) } else { Trust::Pushed };
        self.queue.push_back(News { service: name, announced, lane: self.group.lane, trust });
    }
}

fn announced(instance: &NacosInstance) -> Announced {
    Announced {
        ip: instance.ip.clone(),
        port: instance.port,
        weight: instance.weight.as_f64().unwrap_or(f64::NAN),
        healthy: instance.healthy,
        enabled: instance.enabled,
        cluster: instance.cluster_name.clone(),
        metadata: instance.metadata.clone(),
    }
}
