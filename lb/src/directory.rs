use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, select_all};
use gray_config::{Documents, Live, Publisher, Snapshot, live};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::discovery::{News, Trust};
use crate::pause::after;
use crate::retention::Retention;
use crate::saving::Saving;
use crate::{Algorithm, Discovery, Guard, Instance, ServiceName, Subsets, snapshot};

/// How long the directory stays as it is after a change: in a storm of pushes, what comes meanwhile
/// is one change.
const PAUSE: Duration = Duration::from_millis(10);

/// The known services and their instances.
#[derive(Clone, Debug, Default)]
pub struct Directory(foldhash::HashMap<ServiceName, Arc<Subsets>>);

impl Directory {
    /// Returns the instances of a service; `None` if nobody ever registered under that name.
    pub fn get(&self, service: &ServiceName) -> Option<&Arc<Subsets>> {
        self.0.get(service)
    }

    /// Returns all services, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceName, &Arc<Subsets>)> {
        self.0.iter()
    }
}

impl FromIterator<(ServiceName, Arc<Subsets>)> for Directory {
    fn from_iter<I: IntoIterator<Item = (ServiceName, Arc<Subsets>)>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

/// How a directory is doing, for the readiness page and the metrics.
#[derive(Clone, Debug, Default)]
pub struct DirectoryHealth {
    /// Services that a registry has spoken about.
    pub answered: BTreeSet<ServiceName>,
    /// The services that also every lane's own registry has said something about.
    pub complete: BTreeSet<ServiceName>,
    /// Whether instances come from the snapshot, since no registry has answered yet.
    pub from_snapshot: bool,
    /// How often the directory was replaced.
    pub changes: u64,
    /// Instances that are refused now, with the reason.
    pub refused: BTreeMap<String, String>,
    /// How many instances were refused so far.
    pub refusals: u64,
}

/// What a directory is kept by.
#[derive(Debug)]
pub struct Maintenance {
    /// Which instances may be called.
    pub guard: Guard,
    /// The metadata key that says an instance's version.
    pub version_key: String,
    /// The algorithm of services that are not named.
    pub algorithm: Algorithm,
    /// The algorithm of services that are.
    pub algorithms: HashMap<ServiceName, Algorithm>,
    /// How long an emptied service keeps its instances.
    pub grace: Duration,
    /// Where instances are kept for a start without their registry.
    pub snapshot: Option<Snapshot>,
    /// How long a registry may take to answer before the snapshot is used.
    pub patience: Duration,
    health: Publisher<DirectoryHealth>,
}

impl Maintenance {
    /// Keeps a directory by the usual settings.
    pub fn new(guard: Guard) -> Self {
        let (health, _) = live(DirectoryHealth::default());
        Self {
            guard,
            version_key: "version".to_owned(),
            algorithm: Algorithm::default(),
            algorithms: HashMap::new(),
            grace: Duration::from_secs(15),
            snapshot: None,
            patience: Duration::from_secs(1),
            health,
        }
    }

    /// Returns how the directory is doing, at any time from now on.
    pub fn health(&self) -> Live<DirectoryHealth> {
        self.health.reader()
    }
}

/// Keeps a directory in step with its registries, until they end.
pub async fn maintain(
    registries: Vec<Box<dyn Discovery>>,
    maintenance: Maintenance,
    publisher: Publisher<Directory>,
) {
    let names = registries.iter().map(|registry| registry.name()).collect();
    let apart = registries.iter().enumerate().filter(|(_, registry)| registry.lane().is_some());
    let apart = apart.map(|(number, _)| number).collect();
    let kept = load(maintenance.snapshot.as_ref());
    let numbered = registries
        .into_iter()
        .enumerate()
        .map(|(number, registry)| registry.updates().map(move |news| (number, news)).boxed());
    let news = select_all(numbered).chain(stream::pending()).ready_chunks(1024).boxed();
    let retention = Retention::new(maintenance.grace);
    let health = DirectoryHealth::default();
    let announced = kept.clone();
    let saving = maintenance.snapshot.clone().map(Saving::new);
    let keeper = Keeper {
        maintenance,
        publisher,
        retention,
        health,
        names,
        apart,
        spoken: BTreeMap::new(),
        kept,
        announced,
        saving,
    };
    keeper.run(news).await;
}

struct Keeper {
    maintenance: Maintenance,
    publisher: Publisher<Directory>,
    retention: Retention,
    health: DirectoryHealth,
    /// What each registry is known by in the snapshot.
    names: Vec<String>,
    /// Which registries are those of one lane.
    apart: BTreeSet<usize>,
    /// Which registries have spoken about each service.
    spoken: BTreeMap<ServiceName, BTreeSet<usize>>,
    /// What the snapshot held at the start.
    kept: Documents,
    /// What the registries last said, as the snapshot is to hold it.
    announced: Documents,
    saving: Option<Saving>,
}

/// Reads the snapshot; one that is damaged is as good as none.
fn load(snapshot: Option<&Snapshot>) -> Documents {
    let loaded = snapshot.map(Snapshot::load).transpose();
    loaded
        .map_or_else(
            |error| {
                warn!(%error, "instances cannot be restored");
                None
            },
            Option::flatten,
        )
        .unwrap_or_default()
}

impl Keeper {
    async fn run(mut self, mut news: BoxStream<'static, Vec<(usize, News)>>) {
        let patience = tokio::time::sleep(self.maintenance.patience);
        tokio::pin!(patience);
        let mut patient = self.maintenance.snapshot.is_some();
        let mut ready_at = Instant::now();
        loop {
            let due = self.retention.next_due();
            let far = Instant::now() + Duration::from_hours(24);
            let changed = tokio::select! {
                chunk = after(ready_at, news.next()) => {
                    let Some(chunk) = chunk else { return };
                    self.take(chunk)
                }
                () = tokio::time::sleep_until(due.unwrap_or(far)) => {
                    self.retention.expire().into_iter().collect()
                }
                () = &mut patience, if patient => {
                    patient = false;
                    self.restore()
                }
                () = save(&mut self.saving, &self.announced) => continue,
            };
            self.publish(&changed);
            ready_at = Instant::now() + PAUSE;
        }
    }

    fn take(&mut self, chunk: Vec<(usize, News)>) -> BTreeSet<ServiceName> {
        self.health.from_snapshot = false;
        let mut changed = BTreeSet::new();
        // Of several words about one service only the last counts.
        let mut last: BTreeMap<(usize, ServiceName), News> = BTreeMap::new();
        for (source, news) in chunk {
            last.insert((source, news.service.clone()), news);
        }
        for ((source, service), news) in last {
            self.answered(source, &service);
            self.remember(source, &news);
            self.note(source, &news);
            changed.insert(service);
        }
        changed
    }

    /// Takes note of what a registry has spoken about.
    fn answered(&mut self, source: usize, service: &ServiceName) {
        self.health.answered.insert(service.clone());
        let sources = self.spoken.entry(service.clone()).or_default();
        sources.insert(source);
        // Of the others any may list it; a file is silent about what it does not.
        let others = sources.iter().any(|source| !self.apart.contains(source));
        if others && self.apart.is_subset(sources) {
            self.health.complete.insert(service.clone());
        }
    }

    fn note(&mut self, source: usize, news: &News) {
        let prefix = format!("{source}/{}/", news.service);
        self.health.refused.retain(|name, _| !name.starts_with(&prefix));
        let mut admitted: Vec<Instance> = Vec::new();
        for announced in &news.announced {
            let key = &self.maintenance.version_key;
            match self.maintenance.guard.admit(announced, key, news.lane) {
                Ok(instance) => admitted.push(instance),
                Err(refusal) => {
                    let name = format!("{prefix}{:?}:{}", announced.ip, announced.port);
                    warn!(instance = name, %refusal, "instance refused");
                    self.health.refusals += 1;
                    self.health.refused.insert(name, refusal.to_string());
                }
            }
        }
        self.retention.note(source, &news.service, admitted, news.trust);
    }

    fn publish(&mut self, changed: &BTreeSet<ServiceName>) {
        let current = self.publisher.current();
        let mut services = current.0.clone();
        for service in changed {
            let instances = self.retention.instances(service);
            let algorithm = self.maintenance.algorithms.get(service).copied();
            let algorithm = algorithm.unwrap_or(self.maintenance.algorithm);
            let before = services.get(service).map(Arc::as_ref);
            debug!(%service, instances = instances.len(), "instances changed");
            let subsets = Subsets::new(instances, algorithm, before);
            services.insert(service.clone(), Arc::new(subsets));
        }
        self.publisher.publish(Directory(services));
        self.health.changes += 1;
        self.maintenance.health.publish(self.health.clone());
    }

    fn remember(&mut self, source: usize, news: &News) {
        if self.maintenance.snapshot.is_none() || news.announced.is_empty() {
            return;
        }
        let Some(registry) = self.names.get(source) else { return };
        let name = format!("{registry}\n{}", news.service);
        self.announced.0.insert(name, snapshot::write(news).into());
        if let Some(saving) = &mut self.saving {
            saving.changed();
        }
    }

    /// Takes from the snapshot whatever no registry has spoken about yet.
    fn restore(&mut self) -> BTreeSet<ServiceName> {
        let kept = std::mem::take(&mut self.kept);
        let mut restored = BTreeSet::new();
        for (name, text) in &kept.0 {
            // Registries that are no longer configured are left out.
            let Some((registry, service)) = name.split_once('\n') else { continue };
            let Some(source) = self.names.iter().position(|name| name == registry) else {
                continue;
            };
            let service = ServiceName::new(service);
            if self.retention.knows(source, &service) {
                continue;
            }
            let Some((lane, announced)) = snapshot::read(text) else { continue };
            let news = News { service: service.clone(), announced, lane, trust: Trust::Pushed };
            self.note(source, &news);
            self.answered(source, &service);
            restored.insert(service);
        }
        if !restored.is_empty() {
            info!(services = restored.len(), "instances restored from the snapshot");
            self.health.from_snapshot = true;
        }
        restored
    }
}

async fn save(saving: &mut Option<Saving>, announced: &Documents) {
    match saving {
        Some(saving) => saving.step(announced).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::BoxStream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{Announced, GuardProperties};

    /// A registry that says what the test tells it to.
    struct Told(mpsc::UnboundedReceiver<News>);

    impl Discovery for Told {
        fn name(&self) -> String {
            "told".to_owned()
        }

        fn updates(self: Box<Self>) -> BoxStream<'static, News> {
            stream::unfold(self.0, async |mut told| Some((told.recv().await?, told))).boxed()
        }
    }

    fn news(ports: &[i64]) -> News {
        let announced = |port: &i64| Announced {
            ip: "10.0.0.1".to_owned(),
            port: *port,
            weight: 1.0,
            healthy: true,
            enabled: true,
            cluster: None,
            metadata: BTreeMap::new(),
        };
        News {
            service: ServiceName::new("user-app"),
            announced: ports.iter().map(announced).collect(),
            lane: None,
            trust: Trust::Pushed,
        }
    }

    struct Case {
        registry: mpsc::UnboundedSender<News>,
        directory: Live<Directory>,
        health: Live<DirectoryHealth>,
        task: tokio::task::JoinHandle<()>,
    }

    fn case(snapshot: Option<Snapshot>) -> Case {
        let (registry, told) = mpsc::unbounded_channel();
        let (publisher, directory) = live(Directory::default());
        let guard = Guard::new(&GuardProperties::default(), Vec::new()).unwrap();
        let mut maintenance = Maintenance::new(guard);
        maintenance.snapshot = snapshot;
        let health = maintenance.health();
        let task = tokio::spawn(maintain(vec![Box::new(Told(told))], maintenance, publisher));
        Case { registry, directory, health, task }
    }

    impl Case {
        async fn until(&self, ready: impl Fn(&Self) -> bool) {
            let wait = async {
                while !ready(self) {
                    tokio::task::yield_now().await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap();
        }

        fn ports(&self) -> Vec<u16> {
            let directory = self.directory.load();
            let subsets = directory.get(&ServiceName::new("user-app"));
            let members = subsets.iter().flat_map(|subsets| subsets.registered());
            members.map(|member| member.instance().addr.port()).collect()
        }
    }

    #[tokio::test]
    async fn the_directory_follows_its_registries() {
        let case = case(None);
        case.registry.send(news(&[8001, 8002])).unwrap();
        case.until(|case| case.ports() == [8001, 8002]).await;
        case.registry.send(news(&[8002, 22])).unwrap();
        case.until(|case| case.ports() == [8002]).await;
        assert_eq!(case.health.load().refused.len(), 1);
        case.task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_emptied_service_goes_when_its_grace_is_over() {
        let case = case(None);
        case.registry.send(news(&[8001])).unwrap();
        case.until(|case| case.ports() == [8001]).await;
        case.registry.send(news(&[])).unwrap();
        case.until(|case| case.health.load().changes == 2).await;
        assert_eq!(case.ports(), [8001]);
        case.until(|case| case.ports().is_empty()).await;
        case.task.abort();
    }

    #[tokio::test]
    async fn a_silent_registry_leaves_the_snapshot_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::at(folder.path().join("instances.snapshot"));
        let first = case(Some(snapshot.clone()));
        first.registry.send(news(&[8001])).unwrap();
        first.until(|_| snapshot.load().is_ok_and(|it| it.is_some())).await;
        first.task.abort();

        let second = case(Some(snapshot));
        second.until(|case| case.ports() == [8001]).await;
        assert!(second.health.load().from_snapshot);
        second.registry.send(news(&[8002])).unwrap();
        second.until(|case| case.ports() == [8002]).await;
        second.task.abort();
    }
}
