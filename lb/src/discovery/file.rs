use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures_util::stream::{self, BoxStream, StreamExt};
use gray_config::{ConfigSource, Document, Faults, KeyPath, Problems, Update};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use super::{Discovery, News, Trust};
use crate::{Announced, ServiceName};

/// A registry that is a document.
///
/// ```yaml
/// services:
///   user-app:
///     - {address: 127.0.0.1:7201, metadata: {version: V1}}
/// ```
pub struct FileDiscovery {
    source: Box<dyn ConfigSource>,
    /// Services that are told to be empty where no document names them.
    wanted: BTreeSet<ServiceName>,
    rejected: watch::Sender<Option<Problems>>,
}

impl std::fmt::Debug for FileDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileDiscovery")
    }
}

/// A registry as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RegistryProperties {
    /// The instances of each service.
    services: BTreeMap<String, Vec<InstanceProperties>>,
}

/// An instance as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InstanceProperties {
    /// Where it listens: an IP address and a port.
    #[serde(default)]
    address: String,
    /// How much of the traffic it takes.
    #[serde(default = "one")]
    weight: f64,
    /// Whether it may be called.
    #[serde(default = "yes")]
    enabled: bool,
    /// What it announces, `version` among it.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

const fn one() -> f64 {
    1.0
}

const fn yes() -> bool {
    true
}

impl FileDiscovery {
    /// Follows a source of such documents.
    pub fn new(source: Box<dyn ConfigSource>) -> Self {
        Self { source, wanted: BTreeSet::new(), rejected: watch::Sender::new(None) }
    }

    /// Says of these services that they have no instance, where the documents do not name them: nobody else
    /// will say anything about them.
    #[must_use]
    pub fn with_wanted(self, wanted: BTreeSet<ServiceName>) -> Self {
        Self { wanted, ..self }
    }

    /// Returns what is wrong with the newest documents while they are refused as a whole, at any time
    /// from now on.
    pub fn rejected(&self) -> watch::Receiver<Option<Problems>> {
        self.rejected.subscribe()
    }

    /// Reads one such document.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the document as a whole.
    pub fn parse(name: &str, text: &str) -> Result<Registry, Problems> {
        let document = Document::parse(name, text)?;
        let mut faults = Faults::default();
        let read: Option<RegistryProperties> = document.read(&KeyPath::ROOT, &mut faults);
        if faults.has_errors() {
            return Err(document.problems(&faults));
        }
        let mut registry =
            Registry { services: BTreeMap::new(), wrong: BTreeSet::new(), document, faults };
        for (service, instances) in read.unwrap_or_default().services {
            let announced = registry.announced(instances, &service);
            registry.services.insert(ServiceName::new(service), announced);
        }
        Ok(registry)
    }
}

/// A document that was read.
#[derive(Debug)]
pub struct Registry {
    /// The instances of each service.
    pub services: BTreeMap<ServiceName, Vec<Announced>>,
    /// Those that are known to be wrong.
    wrong: BTreeSet<(String, usize)>,
    document: Document,
    faults: Faults,
}

impl Registry {
    /// Notes why an instance is refused, unless that is known already.
    pub fn refuse(&mut self, service: &ServiceName, index: usize, why: &str) {
        if !self.wrong.contains(&(service.to_string(), index)) {
            self.faults.error(&place(service.as_str(), index), why);
        }
    }

    /// Returns what is wrong with single instances, which does not keep the others from being called.
    pub fn problems(&self) -> Problems {
        self.document.problems(&self.faults)
    }

    fn announced(&mut self, instances: Vec<InstanceProperties>, service: &str) -> Vec<Announced> {
        let mut announced = Vec::new();
        for (index, instance) in instances.into_iter().enumerate() {
            let address = instance.address.parse::<SocketAddr>().map_err(|_| {
                format!(
                    "`{}` is no IP address with a port, such as 10.0.0.1:8080",
                    instance.address
                )
            });
            // What is no address is announced as it is written: whoever takes it refuses and counts it.
            let known = self.faults.check(&place(service, index), address);
            if known.is_none() {
                self.wrong.insert((service.to_owned(), index));
            }
            let (ip, port) = known.map_or_else(
                || split(&instance.address),
                |address| (address.ip().to_string(), address.port().into()),
            );
            announced.push(Announced {
                ip,
                port,
                weight: instance.weight,
                healthy: true,
                enabled: instance.enabled,
                cluster: None,
                metadata: instance.metadata,
            });
        }
        announced
    }
}

/// Where an instance's address stands.
fn place(service: &str, index: usize) -> KeyPath {
    KeyPath::ROOT.key("services").key(service).index(index).key("address")
}

/// What a document says about each service.
type Services = BTreeMap<ServiceName, Vec<Announced>>;

/// Splits an address from its port; what is no number is no port.
fn split(address: &str) -> (String, i64) {
    match address.rsplit_once(':') {
        Some((ip, port)) => {
            let ip = ip.trim_start_matches('[').trim_end_matches(']');
            (ip.to_owned(), port.parse().unwrap_or_default())
        }
        None => (address.to_owned(), 0),
    }
}

impl Discovery for FileDiscovery {
    fn name(&self) -> String {
        "files".to_owned()
    }

    fn updates(self: Box<Self>) -> BoxStream<'static, News> {
        let Self { source, wanted: mut known, rejected } = *self;
        let news = move |update| match news(update, &mut known) {
            Ok(news) => {
                if !news.is_empty() {
                    rejected.send_replace(None);
                }
                stream::iter(news)
            }
            Err(problems) => {
                warn!("registry rejected, the last one stays in force\n{problems}");
                rejected.send_replace(Some(problems));
                stream::iter(Vec::new())
            }
        };
        source.updates().flat_map(news).boxed()
    }
}

/// Turns an update into news; services that are gone are told to be empty.
///
/// # Errors
///
/// What is wrong with the documents, where they are refused as a whole.
fn news(update: Update, known: &mut BTreeSet<ServiceName>) -> Result<Vec<News>, Problems> {
    let documents = match update {
        Update::Documents(documents) => documents,
        Update::Unavailable(error) => {
            warn!(%error, "registry cannot be had, the last one stays in force");
            return Ok(Vec::new());
        }
    };
    let mut services = Services::new();
    for (name, text) in &documents.0 {
        services.extend(FileDiscovery::parse(name, text)?.services);
    }
    for service in std::mem::take(known) {
        services.entry(service).or_default();
    }
    known.extend(services.keys().cloned());
    let news =
        |(service, announced)| News { service, announced, lane: None, trust: Trust::Certain };
    Ok(services.into_iter().map(news).collect())
}

#[cfg(test)]
mod tests {
    use gray_config::Documents;

    use super::*;

    fn update(text: &str) -> Update {
        Update::Documents(Documents::one("registry.yaml", text))
    }

    #[test]
    fn a_service_that_is_gone_is_told_to_be_empty() {
        let mut known = BTreeSet::new();
        let text = "services: {user-app: [{address: 127.0.0.1:7201, metadata: {version: V1}}]}";
        let first = news(update(text), &mut known).unwrap();
        assert_eq!(first[0].announced[0].metadata["version"], "V1");
        let second = news(update("services: {}"), &mut known).unwrap();
        assert_eq!((second.len(), second[0].announced.len()), (1, 0));
    }

    /// Nobody else says anything about it: the gateway waited for a word that never came.
    #[test]
    fn a_service_that_is_wanted_and_not_named_is_told_to_be_empty() {
        let mut known = BTreeSet::from([ServiceName::new("user-app")]);
        let first = news(update("services: {}"), &mut known).unwrap();
        assert_eq!((first.len(), first[0].announced.len()), (1, 0));
    }

    #[test]
    fn a_wrong_registry_changes_nothing() {
        let mut known = BTreeSet::from([ServiceName::new("user-app")]);
        assert!(news(update("services: {user-app: [{addres: x}]}"), &mut known).is_err());
        assert_eq!(known.len(), 1);
        let error = FileDiscovery::parse("r", "services: {a: [{address: [x]}], b: [{port: 1}]}");
        assert_eq!(error.unwrap_err().0.len(), 2);
    }

    #[test]
    fn a_wrong_address_is_told_of_and_left_to_be_refused() {
        for (address, ip, port) in [
            ("localhost", "localhost", 0),
            ("localhost:80", "localhost", 80),
            ("10.0.0.1:65536", "10.0.0.1", 65_536),
            ("10.0.0.1:http", "10.0.0.1", 0),
            ("[::1]:x", "::1", 0),
        ] {
            let text =
                format!("services: {{a: [{{address: '{address}'}}, {{address: '10.0.0.2:80'}}]}}");
            let mut registry = FileDiscovery::parse("r", &text).unwrap();
            let a = ServiceName::new("a");
            let of_a = &registry.services[&a];
            assert_eq!((of_a[0].ip.as_str(), of_a[0].port, of_a.len()), (ip, port, 2));
            // That it is refused for it is nothing new.
            registry.refuse(&a, 0, "no address");
            assert_eq!(registry.problems().0.len(), 1, "{}", registry.problems());
            registry.refuse(&a, 1, "not allowed");
            let problems = registry.problems();
            assert_eq!(
                (problems.0.len(), problems.0[1].key.as_str()),
                (2, "services.a[1].address")
            );
        }
    }
}
