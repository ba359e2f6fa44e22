use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures_util::stream::{self, BoxStream, StreamExt};
use gray_config::{ConfigSource, Document, Faults, KeyPath, Problems, Update};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
        Self { source }
    }

    /// Reads one such document.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(
        name: &str,
        text: &str,
    ) -> Result<BTreeMap<ServiceName, Vec<Announced>>, Problems> {
        let document = Document::parse(name, text)?;
        let mut faults = Faults::default();
        let read: Option<RegistryProperties> = document.read(&KeyPath::ROOT, &mut faults);
        let mut services = BTreeMap::new();
        for (service, instances) in read.unwrap_or_default().services {
            let at = KeyPath::ROOT.key("services").key(&*service);
            let announced = announced(instances, &at, &mut faults);
            services.insert(ServiceName::new(service), announced);
        }
        if faults.has_errors() { Err(document.problems(&faults)) } else { Ok(services) }
    }
}

fn announced(
    instances: Vec<InstanceProperties>,
    at: &KeyPath,
    faults: &mut Faults,
) -> Vec<Announced> {
    let mut announced = Vec::new();
    for (index, instance) in instances.into_iter().enumerate() {
        let at = at.index(index).key("address");
        let address = instance.address.parse::<SocketAddr>();
        let address = address.map_err(|_| {
            format!("`{}` is no IP address with a port, such as 10.0.0.1:8080", instance.address)
        });
        let Some(address) = faults.check(&at, address) else { continue };
        announced.push(Announced {
            ip: address.ip().to_string(),
            port: address.port().into(),
            weight: instance.weight,
            healthy: true,
            enabled: instance.enabled,
            cluster: None,
            metadata: instance.metadata,
        });
    }
    announced
}

impl Discovery for FileDiscovery {
    fn name(&self) -> String {
        "files".to_owned()
    }

    fn updates(self: Box<Self>) -> BoxStream<'static, News> {
        let mut known = BTreeSet::new();
        self.source.updates().flat_map(move |update| stream::iter(news(update, &mut known))).boxed()
    }
}

/// Turns an update into news; services that are gone are told to be empty.
fn news(update: Update, known: &mut BTreeSet<ServiceName>) -> Vec<News> {
    let documents = match update {
        Update::Documents(documents) => documents,
        Update::Unavailable(error) => {
            warn!(%error, "registry cannot be had, the last one stays in force");
            return Vec::new();
        }
    };
    let mut services: BTreeMap<ServiceName, Vec<Announced>> = BTreeMap::new();
    for (name, text) in &documents.0 {
        match FileDiscovery::parse(name, text) {
            Ok(parsed) => services.extend(parsed),
            Err(problems) => {
                warn!("registry rejected, the last one stays in force\n{problems}");
                return Vec::new();
            }
        }
    }
    for service in std::mem::take(known) {
        services.entry(service).or_default();
    }
    known.extend(services.keys().cloned());
    let news =
        |(service, announced)| News { service, announced, lane: None, trust: Trust::Certain };
    services.into_iter().map(news).collect()
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
        let first = news(update(text), &mut known);
        assert_eq!(first[0].announced[0].metadata["version"], "V1");
        let second = news(update("services: {}"), &mut known);
        assert_eq!((second.len(), second[0].announced.len()), (1, 0));
    }

    #[test]
    fn a_wrong_registry_changes_nothing() {
        let mut known = BTreeSet::from([ServiceName::new("user-app")]);
        assert!(
            news(update("services: {user-app: [{address: localhost}]}"), &mut known).is_empty()
        );
        assert_eq!(known.len(), 1);
        let error = FileDiscovery::parse("r", "services: {a: [{address: x:1}], b: [{port: 1}]}");
        assert_eq!(error.unwrap_err().0.len(), 3);
    }
}
