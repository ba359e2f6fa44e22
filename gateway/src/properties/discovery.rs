use std::collections::BTreeMap;
use std::path::PathBuf;

use gray_config::HumanDuration;
use gray_config::nacos::NacosProperties;
use gray_lb::GuardProperties;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where instances are found, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DiscoveryProperties {
    /// Files with instances; followed.
    pub files: Vec<PathBuf>,
    /// Groups of a Nacos server.
    pub nacos: Vec<NacosDiscoveryProperties>,
    /// The metadata key that says an instance's version.
    pub version_key: String,
    /// Which instances may be called.
    pub guard: GuardProperties,
    /// How long a service that is suddenly empty keeps its instances.
    pub empty_grace: HumanDuration,
    /// How long instances are kept that are gone when Nacos is back after an outage.
    pub recovery_grace: HumanDuration,
    /// Where instances are kept for a start without Nacos; nowhere if empty.
    pub snapshot: PathBuf,
    /// As what the gateway registers itself with Nacos, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register: Option<RegisterProperties>,
    /// Whether the gateway refuses to start where instances can be had neither from Nacos nor from
    /// the snapshot.
    pub required: bool,
}

impl Default for DiscoveryProperties {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            nacos: Vec::new(),
            version_key: "version".to_owned(),
            guard: GuardProperties::default(),
            empty_grace: HumanDuration::secs(15),
            recovery_grace: HumanDuration::secs(30),
            snapshot: PathBuf::new(),
            register: None,
            required: false,
        }
    }
}

impl DiscoveryProperties {
    /// Says where instances are looked for; `usual` is the server of what names none.
    pub(crate) fn places(&self, usual: &NacosProperties) -> String {
        let files = self.files.iter().map(|path| path.display().to_string());
        let groups = self.nacos.iter().map(|it| {
            let server = it.server.as_ref().unwrap_or(usual);
            let clusters = match it.clusters.as_slice() {
                [] => String::new(),
                some => format!(" (clusters {})", some.join(", ")),
            };
            format!(
                "group {}{clusters} of namespace {} of Nacos {}",
                it.group,
                server.namespace_name(),
                server.servers.join(",")
            )
        });
        files.chain(groups).collect::<Vec<_>>().join("; ")
    }
}

/// As what the gateway registers itself, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterProperties {
    /// The service's name, such as `gateway-app`.
    #[serde(default)]
    pub service: String,
    /// The address that others reach it at, with the port.
    #[serde(default)]
    pub address: String,
    /// The group.
    #[serde(default = "default_group")]
    pub group: String,
    /// What it announces, beside `preserved.register.source`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

fn default_group() -> String {
    "DEFAULT_GROUP".to_owned()
}

/// A group of a Nacos server, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NacosDiscoveryProperties {
    /// The server; the one at the top of the configuration where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<NacosProperties>,
    /// The group.
    pub group: String,
    /// Clusters to take instances of; all where not given.
    pub clusters: Vec<String>,
    /// The lane that this registry belongs to: its instances need no version, and serve no other
    /// lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
}

impl Default for NacosDiscoveryProperties {
    fn default() -> Self {
        Self { server: None, group: "DEFAULT_GROUP".to_owned(), clusters: Vec::new(), lane: None }
    }
}
