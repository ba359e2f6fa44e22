use std::collections::BTreeMap;
use std::path::PathBuf;

use gray_config::nacos::NacosProperties;
use gray_lb::Format;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the rules come from, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RulesProperties {
    /// How the documents are written.
    pub format: Format,
    /// Files; followed.
    pub files: Vec<PathBuf>,
    /// Documents of a Nacos server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nacos: Option<NacosRulesProperties>,
    /// The prefix of the Spring Cloud design's keys.
    pub prefix: String,
    /// Lists in documents of their own, by the names that rules use.
    pub lists: BTreeMap<String, ListProperties>,
    /// Where good documents are kept for a start without Nacos; nowhere if empty.
    pub snapshot: PathBuf,
    /// Whether the gateway refuses to start where rules can be had neither from their source nor
    /// from the snapshot; otherwise it starts switched off.
    pub required: bool,
}

impl Default for RulesProperties {
    fn default() -> Self {
        Self {
            format: Format::default(),
            files: Vec::new(),
            nacos: None,
            prefix: "kerwin.tool.gray".to_owned(),
            lists: BTreeMap::new(),
            snapshot: PathBuf::new(),
            required: false,
        }
    }
}

/// Documents of a Nacos server, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NacosRulesProperties {
    /// The server; the one at the top of the configuration where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<NacosProperties>,
    /// The group.
    pub group: String,
    /// The documents.
    pub data_ids: Vec<String>,
}

impl Default for NacosRulesProperties {
    fn default() -> Self {
        let data_ids = ["common-config.yaml", "gateway-app.yaml"].map(str::to_owned).into();
        Self { server: None, group: "DEFAULT_GROUP".to_owned(), data_ids }
    }
}

/// A list in a document of its own, as an operator writes it: one entry a line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ListProperties {
    /// A file.
    File(PathBuf),
    /// A data id in the group of the rules.
    DataId(String),
}
