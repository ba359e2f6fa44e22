use std::path::PathBuf;

use gray_config::{Faults, KeyPath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Database, Place, Places};
use crate::cidr::{InvalidCidr, parse_network};

/// Where cities come from, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlaceProperties {
    /// Files in `MaxMind`'s format (`mmdb`) or ip2region's (`xdb`), asked in this order; read again when they change.
    pub databases: Vec<PathBuf>,
    /// Places of networks that no database knows, such as one's own.
    pub overrides: Vec<OverrideProperties>,
}

/// The place of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverrideProperties {
    /// An address or network.
    pub network: String,
    /// The country's name or code.
    #[serde(default)]
    pub country: String,
    /// The province's name.
    #[serde(default)]
    pub province: String,
    /// The city's name.
    #[serde(default)]
    pub city: String,
}

impl Default for PlaceProperties {
    /// Loopback is 本地, as in the Spring Cloud design.
    fn default() -> Self {
        let local = |network: &str| OverrideProperties {
            network: network.to_owned(),
            city: "本地".to_owned(),
            ..OverrideProperties::default()
        };
        Self { databases: Vec::new(), overrides: vec![local("127.0.0.0/8"), local("::1")] }
    }
}

impl PlaceProperties {
    /// Opens the databases and reads the networks, noting what is wrong.
    pub fn open(&self, at: &KeyPath, faults: &mut Faults) -> Places {
        let mut overrides = Vec::new();
        for (index, one) in self.overrides.iter().enumerate() {
            let at = at.key("overrides").index(index).key("network");
            match parse_network(&one.network) {
                Some(network) => overrides.push((network.trunc(), one.place())),
                None => faults.error(&at, InvalidCidr(one.network.clone())),
            }
        }
        let mut databases = Vec::new();
        for (index, path) in self.databases.iter().enumerate() {
            match Database::open(path) {
                Ok(database) => databases.push(database),
                Err(error) => {
                    let source = std::error::Error::source(&error);
                    let cause = source.map(|cause| format!(": {cause}")).unwrap_or_default();
                    faults.error(&at.key("databases").index(index), format!("{error}{cause}"));
                }
            }
        }
        Places::new(overrides, databases)
    }
}

impl OverrideProperties {
    fn place(&self) -> Place {
        Place::new(&[&self.country], &[&self.province], &[&self.city])
    }
}
