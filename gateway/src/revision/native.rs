use std::collections::BTreeMap;

use gray_config::{Document, Faults, KeyPath};
use gray_filters::{Lists, RuleProperties, rules_of};
use gray_lb::{BaseProperties, Fallback, LaneProperties, LanesProperties, ServiceProperties};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::documents::Meaning;

/// Graylane's own rule document, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NativeProperties {
    /// Whether requests are classified at all; while they are not, every request reaches every
    /// version.
    pub enabled: bool,
    /// The base environment.
    pub base: BaseProperties,
    /// The gray lanes.
    pub lanes: Vec<LaneProperties>,
    /// What to do when a lane has no instance.
    pub fallback: Fallback,
    /// What is different for some services.
    pub services: BTreeMap<String, ServiceProperties>,
    /// The rules; the first that hits decides, and where none does, base serves.
    pub rules: Vec<RuleProperties>,
}

impl Default for NativeProperties {
    fn default() -> Self {
        Self {
            enabled: true,
            base: BaseProperties::default(),
            lanes: Vec::new(),
            fallback: Fallback::default(),
            services: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

/// Reads a document; `None` instead of rules where it is switched off.
pub(super) fn read(document: &Document, lists: &Lists, faults: &mut Faults) -> Meaning {
    let root = KeyPath::ROOT;
    let properties: NativeProperties = document.read(&root, faults).unwrap_or_default();
    let NativeProperties { enabled, base, lanes, fallback, services, rules } = properties;
    let (table, switches) =
        LanesProperties { base, lanes, fallback, services }.table(&root, faults);
    let rules = rules_of(&rules, &switches, lists, &root.key("rules"), faults);
    Meaning {
        rules: enabled.then_some(rules),
        lanes: table,
        open: switches.into_iter().filter_map(|(lane, on)| on.then_some(lane)).collect(),
    }
}
