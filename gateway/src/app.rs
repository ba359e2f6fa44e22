use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use gray_config::{
    ConfigSource, FileSource, Follow, Health, Live, Merged, Problems, Publisher, Snapshot, follow,
    live,
};
use gray_filters::ClassifyLayer;
use gray_lb::{
    Balancer, Directory, DirectoryHealth, Discovery, FileDiscovery, Maintenance, maintain,
};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access_log::AccessLog;
use crate::admin::{self, View};
use crate::background::Background;
use crate::metrics::Metrics;
use crate::nacos::{Registration, Servers};
use crate::observe::Observer;
use crate::properties::ListProperties;
use crate::proxy::Proxy;
use crate::reloads::Reloads;
use crate::revision::{Revision, parse_documents};
use crate::senses;
use crate::server::{Gateway, Listener, Policy, Server, Stop};
use crate::settings::Settings;
use crate::upstream::Pools;

/// The largest rule document or list that is read.
const MAX_FILE: u64 = 64 << 20;

/// How long the first rules may take before the gateway goes on without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long they may take where a snapshot is kept to begin with.
const PATIENCE_WITH_SNAPSHOT: Duration = Duration::from_secs(1);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be had.
    #[error(transparent)]
    Listen(std::io::Error),
    /// The system has no thread for it.
    #[error("no thread can be had for what runs beside requests")]
    Background(#[source] std::io::Error),
    /// The access log cannot be opened.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] std::io::Error),
    /// There are no rules, and the configuration says that there must be.
    #[error("rules are required and cannot be had: {0}")]
    NoRules(String),
    /// There are no instances, and the configuration says that there must be.
    #[error("instances are required and cannot be had from Nacos or the snapshot")]
    NoInstances,
}

/// A gateway that is to be started.
#[derive(Debug)]
pub struct App {
    settings: Settings,
}

/// A gateway that is being put together.
#[derive(Debug)]
struct Parts {
    settings: Settings,
    servers: Servers,
    background: Background,
    /// What is wrong with each registry that is a file.
    rejected: Vec<watch::Receiver<Option<Problems>>>,
    reloads: Reloads,
}

/// A gateway that is serving.
#[derive(Debug)]
pub struct Running {
    addrs: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    stop: Stop,
    upgrades: TaskTracker,
    unready: Duration,
    drain: Duration,
    view: Arc<View>,
    /// The gateway's own place in a registry, and the task that keeps it.
    registration: Option<(Registration, AbortHandle)>,
    /// What takes connections; aborted when the gateway is dropped.
    _listening: JoinSet<()>,
    /// Everything else, which ends with it.
    _background: Background,
}

impl App {
    /// Takes what the gateway is to be like.
    pub const fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Starts serving.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(self) -> Result<Running, StartError> {
        let servers = Servers::new(self.settings.properties.nacos.clone());
        let background = Background::start().map_err(StartError::Background)?;
        let (rejected, reloads) = (Vec::new(), Reloads::default());
        Parts { settings: self.settings, servers, background, rejected, reloads }.start().await
    }
}

impl Parts {
    async fn start(mut self) -> Result<Running, StartError> {
        let listeners = self.listen().await?;
        let addrs: Vec<SocketAddr> =
            listeners.iter().filter_map(|listener| listener.addr().ok()).collect();
        let admin = match self.settings.admin {
            Some(addr) => Some(admin::bind(addr).await.map_err(StartError::Listen)?),
            None => None,
        };
        let admin_addr = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let own = addrs.iter().copied().chain(admin_addr).collect();
        self.follow_senses();
        let (directory, instances) = self.discover(own);
        let (revision, rules) = self.follow_rules().await?;
        self.await_instances(&instances, &directory).await?;
        let log = &self.settings.properties.access_log;
        let access_log = AccessLog::open(log).map_err(StartError::AccessLog)?;
        let observer = Observer { metrics: Arc::new(Metrics::default()), access_log };
        let gateway = Arc::new(self.gateway(directory, revision.clone(), observer));
        let stop = Stop::default();
        let view = Arc::new(View {
            gateway: Arc::clone(&gateway),
            rules,
            instances,
            rejected: std::mem::take(&mut self.rejected),
            links: self.servers.links(),
            reloads: self.reloads.clone(),
            #[cfg(feature = "mq")]
            messages: admin::Messages::new(&self.settings.properties),
            properties: self.settings.properties.clone(),
            stopped: std::sync::atomic::AtomicBool::new(false),
        });
        let mut listening = JoinSet::new();
        // With requests: whoever asks whether the gateway lives must not wait for a large document.
        if let Some(listener) = admin {
            listening.spawn(admin::serve(listener, Arc::clone(&view)));
        }
        self.background.spawn(forget_connections(Arc::clone(&gateway)));
        let registration = self.register();
        let limits = self.settings.properties.limits;
        let server = Server::new(Arc::clone(&gateway), limits, stop.clone());
        for listener in listeners {
            listening.spawn(server.clone().run(listener));
        }
        info!(?addrs, admin = ?admin_addr, "serving");
        let upgrades = gateway.upgrades.clone();
        let (unready, drain) = (limits.unready.0, limits.drain.0);
        Ok(Running {
            addrs,
            admin: admin_addr,
            stop,
            upgrades,
            unready,
            drain,
            view,
            registration,
            _listening: listening,
            _background: self.background,
        })
    }

    /// Follows the files by which clients and users are known.
    fn follow_senses(&mut self) {
        if let Some(senses) = self.settings.senses.take() {
            let properties = self.settings.properties.clone();
            self.background.spawn(senses::follow(properties, senses, self.reloads.clone()));
        }
    }

    /// Takes the addresses, and follows the certificates.
    async fn listen(&mut self) -> Result<Vec<Listener>, StartError> {
        let mut listeners = Vec::new();
        for (addr, tls, proxy_protocol) in std::mem::take(&mut self.settings.listeners) {
            let listener = Listener::bind(addr, tls.as_ref(), proxy_protocol).await;
            listeners.push(listener.map_err(StartError::Listen)?);
            if let Some(tls) = tls {
                self.background.spawn(tls.follow(self.reloads.clone()));
            }
        }
        Ok(listeners)
    }

    fn gateway(
        &mut self,
        directory: Live<Directory>,
        revision: Live<Revision>,
        observer: Observer,
    ) -> Gateway {
        let settings = &mut self.settings;
        let properties = &settings.properties;
        let cookie = &properties.sticky_cookie;
        let pools = Pools::new(properties.limits.idle_upstream, settings.tls.clone());
        Gateway {
            policy: Policy {
                trusted_proxies: settings.trusted_proxies.clone(),
                tags: settings.tags.clone(),
                max_target: properties.limits.target_size.bytes(),
                max_fields: properties.limits.headers,
                max_body: properties.limits.body_size.map_or(u64::MAX, |size| size.0),
                sticky_cookie: cookie
                    .enabled
                    .then(|| (cookie.name.clone(), cookie.max_age.0.as_secs())),
                decision_header: properties.propagation.decision_header,
            },
            classify: ClassifyLayer::new(revision.clone()),
            revision,
            proxy: Arc::new(Proxy {
                routes: std::mem::take(&mut settings.routes),
                callings: std::mem::take(&mut settings.callings),
                default_calling: settings.default_calling.clone(),
                balancer: Balancer::new(directory),
                carriers: Arc::new(settings.carriers.clone()),
                attempts: properties.limits.attempts.max(1),
                upstream: pools,
            }),
            observer,
            upgrades: TaskTracker::new(),
        }
    }

    /// Registers the gateway itself, where it is to be found by others.
    fn register(&mut self) -> Option<(Registration, AbortHandle)> {
        let register = self.settings.properties.discovery.register.clone()?;
        let addr = self.settings.registered?;
        let registration = self.background.within(|| self.servers.registration(register, addr));
        let kept = registration.clone();
        let keeping = self.background.spawn(async move { kept.keep().await });
        Some((registration, keeping))
    }

    /// Starts following the registries.
    fn discover(&mut self, own: Vec<SocketAddr>) -> (Live<Directory>, Live<DirectoryHealth>) {
        let properties = self.settings.properties.discovery.clone();
        let mut registries: Vec<Box<dyn Discovery>> = Vec::new();
        for file in &properties.files {
            let source = FileSource::new([file.clone()], MAX_FILE);
            // Nacos may know what no file does.
            let only = properties.nacos.is_empty();
            let wanted = if only { self.settings.routes.services() } else { BTreeSet::new() };
            let registry = FileDiscovery::new(Box::new(source)).with_wanted(wanted);
            self.rejected.push(registry.rejected());
            registries.push(Box::new(registry));
        }
        let services: Vec<_> = self.settings.routes.services().into_iter().collect();
        let lanes = self.settings.nacos_lanes.clone();
        let recovery_grace = properties.recovery_grace.0;
        for (group, lane) in properties.nacos.iter().zip(lanes) {
            let registry = || self.servers.registry(group, lane, services.clone());
            registries.push(Box::new(
                self.background.within(registry).with_recovery_grace(recovery_grace),
            ));
        }
        let mut maintenance = Maintenance::new(self.settings.guard(own));
        maintenance.version_key = properties.version_key;
        maintenance.algorithm = self.settings.algorithm;
        maintenance.algorithms.clone_from(&self.settings.algorithms);
        maintenance.grace = properties.empty_grace.0;
        maintenance.snapshot = snapshot(&properties.snapshot);
        let health = maintenance.health();
        let (publisher, directory) = live(Directory::default());
        self.background.spawn(maintain(registries, maintenance, publisher));
        (directory, health)
    }

    /// Starts following the rules, and waits a moment for the first.
    async fn follow_rules(&mut self) -> Result<(Live<Revision>, Live<Health>), StartError> {
        let sources = self.rule_sources();
        let how = self.settings.rule_documents.clone();
        let kept = snapshot(&self.settings.properties.rules.snapshot);
        let patience = if kept.is_some() { PATIENCE_WITH_SNAPSHOT } else { PATIENCE };
        let following = Follow::new(move |documents: &_| parse_documents(documents, &how), kept);
        let health = following.health();
        if sources.is_empty() {
            warn!("no rules are configured, so gray release is off");
            let (publisher, revision) = live(Revision::off());
            self.background.spawn(hold(publisher));
            return Ok((revision, health));
        }
        let (publisher, revision) = live(Revision::awaited());
        let (begun, first) = tokio::sync::oneshot::channel();
        self.background.spawn(async move {
            let updates = Box::new(Merged::new(sources)).updates();
            let mut updates = updates.peekable();
            // Documents that are wrong must not keep the last good ones from being restored.
            let peek = std::pin::Pin::new(&mut updates).peek();
            let first = tokio::time::timeout(patience, peek).await;
            let good = matches!(&first, Ok(Some(gray_config::Update::Documents(documents)))
                if (following.parse)(documents).is_ok());
            if !good {
                restore(&following, &publisher);
            }
            // Nobody waits any more where the start has failed meanwhile.
            let _ = begun.send(());
            follow(updates, following, publisher).await;
        });
        // It is sent in any case, and soon.
        let _ = first.await;
        self.await_rules(&health).await?;
        Ok((revision, health))
    }

    fn rule_sources(&mut self) -> Vec<Box<dyn ConfigSource>> {
        let rules = self.settings.properties.rules.clone();
        let files = rules.lists.values().filter_map(|list| match list {
            ListProperties::File(path) => Some(path.clone()),
            ListProperties::DataId(_) => None,
        });
        let files: Vec<_> = files.chain(rules.files.iter().cloned()).collect();
        let mut sources: Vec<Box<dyn ConfigSource>> = Vec::new();
        if !files.is_empty() {
            sources.push(Box::new(FileSource::new(files, MAX_FILE)));
        }
        let on_nacos = || self.servers.rules(&self.settings.properties);
        if let Some(source) = self.background.within(on_nacos) {
            sources.push(Box::new(source));
        }
        sources
    }

    async fn await_rules(&self, health: &Live<Health>) -> Result<(), StartError> {
        let decided = |health: &Health| {
            health.accepted > 0 || health.rejected > 0 || health.unavailable.is_some()
        };
        until(|| decided(&health.load())).await;
        let now = health.load();
        if now.accepted == 0 && self.settings.properties.rules.required {
            let problems = now.problems.as_ref().map(ToString::to_string);
            let unavailable = now.unavailable.as_ref().map(ToString::to_string);
            let why = problems.or(unavailable).unwrap_or_else(|| "no answer".to_owned());
            return Err(StartError::NoRules(why));
        }
        Ok(())
    }

    /// Waits a moment until every service that a route leads to has been spoken about.
    async fn await_instances(
        &self,
        health: &Live<DirectoryHealth>,
        directory: &Live<Directory>,
    ) -> Result<(), StartError> {
        let services = self.settings.routes.services();
        let properties = &self.settings.properties.discovery;
        if properties.nacos.is_empty() && properties.files.is_empty() {
            return Ok(());
        }
        let told =
            |health: &DirectoryHealth| health.from_snapshot || services.is_subset(&health.answered);
        until(|| told(&health.load())).await;
        let known = directory.load();
        let none = services.iter().all(|service| {
            known.get(service).is_none_or(|subsets| subsets.registered().is_empty())
        });
        if none && properties.required { Err(StartError::NoInstances) } else { Ok(()) }
    }
}

impl Running {
    /// Returns where the gateway listens, with the ports that were found.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Returns where the admin page is.
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns what picks instances.
    pub fn balancer(&self) -> Balancer {
        self.view.gateway.proxy.balancer.clone()
    }

    /// Returns the revision in force.
    pub fn revision(&self) -> Live<Revision> {
        self.view.gateway.revision.clone()
    }

    /// Stops: says that it is not ready, deregisters, accepts nothing more, lets requests end, and
    /// returns whether all of them did within the limit.
    pub async fn stop(self) -> bool {
        self.view.stopping();
        let leaving = async {
            if let Some((registration, keeping)) = &self.registration {
                keeping.abort();
                registration.end().await;
            }
        };
        tokio::join!(tokio::time::sleep(self.unready), leaving);
        self.upgrades.close();
        let began = tokio::time::Instant::now();
        let drained = self.stop.drain(self.drain).await;
        // Upgraded connections have the same limit, from the same moment on.
        let left = self.drain.saturating_sub(began.elapsed());
        tokio::time::timeout(left, self.upgrades.wait()).await.is_ok() && drained
    }
}

/// Waits until something is so, or patience ends.
async fn until(ready: impl Fn() -> bool) {
    const STEP: Duration = Duration::from_millis(5);
    let wait = async {
        while !ready() {
            tokio::time::sleep(STEP).await;
        }
    };
    // What is not ready by now is told by the readiness page.
    let _ = tokio::time::timeout(PATIENCE, wait).await;
}

fn snapshot(path: &Path) -> Option<Snapshot> {
    (!path.as_os_str().is_empty()).then(|| Snapshot::at(path))
}

/// Puts the documents of the snapshot into force, until their source answers.
fn restore<P>(following: &Follow<P>, publisher: &Publisher<Revision>)
where
    P: Fn(&gray_config::Documents) -> Result<(Revision, Problems), Problems>,
{
    let Some(snapshot) = &following.snapshot else { return };
    let documents = match snapshot.load() {
        Ok(Some(documents)) => documents,
        Ok(None) => return warn!("rules cannot be had, and there is no snapshot of them yet"),
        Err(error) => return warn!(%error, "rules cannot be restored"),
    };
    match (following.parse)(&documents) {
        Ok((revision, _)) => {
            publisher.publish(revision);
            following.restored(&documents);
            info!("rules restored from the snapshot");
        }
        Err(problems) => warn!("rules of the snapshot are not valid any more\n{problems}"),
    }
}

/// Keeps a value that never changes.
async fn hold(publisher: Publisher<Revision>) {
    std::future::pending::<()>().await;
    drop(publisher);
}

/// Closes connections to instances that are gone.
async fn forget_connections(gateway: Arc<Gateway>) {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        tokio::time::sleep(EVERY).await;
        let directory = gateway.proxy.balancer.directory().load();
        let addrs: std::collections::HashSet<SocketAddr> = directory
            .iter()
            .flat_map(|(_, subsets)| subsets.registered())
            .map(|member| member.instance().addr)
            .collect();
        gateway.proxy.upstream.retain(|addr| addrs.contains(&addr));
    }
}
