//! What the registries of a gateway hold at the moment, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use gray_config::{FileSource, Problem, Problems};
use gray_lb::{
    Announced, Directory, Discovery, FileDiscovery, Guard, Instance, ServiceName, Subsets,
};
use gray_propagation::Lane;

use crate::nacos::Servers;
use crate::settings::Settings;

/// The largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// How long a registry may take to say something about every service.
const PATIENCE: Duration = Duration::from_secs(10);

/// The instances of each service, and what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Registered {
    instances: BTreeMap<ServiceName, Vec<Instance>>,
    pub(crate) problems: Problems,
    /// Whether every registry was read, so that what is missing is not there.
    pub(crate) complete: bool,
}

fn guard(settings: &Settings) -> Guard {
    let own = settings.listeners.iter().map(|(addr, ..)| *addr).chain(settings.admin).collect();
    settings.guard(own)
}

impl Registered {
    /// Reads every registry that is a file.
    pub(crate) fn in_files(settings: &Settings) -> Self {
        let discovery = &settings.properties.discovery;
        let some = !discovery.files.is_empty() || !discovery.nacos.is_empty();
        let mut registered = Self { complete: some, ..Self::default() };
        let guard = guard(settings);
        for path in &discovery.files {
            registered.read_file(settings, &guard, path);
        }
        registered
    }

    /// Asks every registry once.
    pub(crate) async fn read(settings: &Settings) -> Self {
        let mut registered = Self::in_files(settings);
        let (discovery, guard) = (&settings.properties.discovery, guard(settings));
        let mut servers = Servers::new(settings.properties.nacos.clone());
        for (group, lane) in discovery.nacos.iter().zip(&settings.nacos_lanes) {
            let services = settings.routes.services();
            let registry = Box::new(servers.registry(group, *lane, services.clone()));
            registered.read_registry(settings, &guard, registry, services).await;
        }
        for link in servers.links() {
            let error = link.state().borrow().error.clone();
            registered.problems.extend(error.map(|error| {
                Problem::whole(format!("nacos {}", link.properties().servers.join(",")), error)
            }));
        }
        registered
    }

    /// Sorts the instances into subsets.
    pub(crate) fn directory(&self, settings: &Settings) -> Directory {
        let subsets = |instances: &Vec<Instance>| {
            Subsets::new(instances.clone(), settings.algorithm, None).into()
        };
        self.instances.iter().map(|(name, it)| (name.clone(), subsets(it))).collect()
    }

    fn read_file(&mut self, settings: &Settings, guard: &Guard, path: &Path) {
        let name = path.display().to_string();
        let parsed = FileSource::new([path.to_owned()], MAX_FILE)
            .read()
            .map_err(|error| Problem::whole(name.as_str(), error.reason).into())
            .and_then(|read| {
                FileDiscovery::parse(&name, &read.0.into_values().next().unwrap_or_default())
            });
        match parsed {
            Err(problems) => {
                self.complete = false;
                self.problems.extend(problems.0);
            }
            Ok(mut registry) => {
                for (service, announced) in registry.services.clone() {
                    for (index, why) in self.admit(settings, guard, None, &service, &announced) {
                        registry.refuse(&service, index, &why);
                    }
                }
                self.problems.extend(registry.problems().0);
            }
        }
    }

    async fn read_registry(
        &mut self,
        settings: &Settings,
        guard: &Guard,
        registry: Box<dyn Discovery>,
        mut services: BTreeSet<ServiceName>,
    ) {
        let name = registry.name();
        let mut updates = registry.updates();
        let reading = async {
            while !services.is_empty()
                && let Some(news) = updates.next().await
            {
                services.remove(&news.service);
                let refused =
                    self.admit(settings, guard, news.lane, &news.service, &news.announced);
                // Others write there, so that what they did wrong is nothing to fail for.
                let warning = |(_, why)| Problem::odd(name.as_str(), why);
                self.problems.extend(refused.into_iter().map(warning));
            }
        };
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            self.complete = false;
            let services: Vec<String> = services.iter().map(ToString::to_string).collect();
            let message = format!("nothing is said about {}", services.join(", "));
            self.problems.extend([Problem::whole(name, message)]);
        }
    }

    /// Takes the instances that may be called, and says which others may not, and why.
    fn admit(
        &mut self,
        settings: &Settings,
        guard: &Guard,
        lane: Option<Lane>,
        service: &ServiceName,
        announced: &[Announced],
    ) -> Vec<(usize, String)> {
        let key = &settings.properties.discovery.version_key;
        let instances = self.instances.entry(service.clone()).or_default();
        let mut refused = Vec::new();
        for (index, one) in announced.iter().enumerate() {
            match guard.admit(one, key, lane) {
                Ok(instance) => instances.push(instance),
                Err(refusal) => {
                    let (ip, port) = (&one.ip, one.port);
                    let why = format!("instance {ip}:{port} of {service} is refused: {refusal}");
                    refused.push((index, why));
                }
            }
        }
        refused
    }
}
