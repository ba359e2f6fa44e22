use std::collections::BTreeMap;

use gray_config::{Document, Faults, KeyPath};
use gray_filters::{Lists, RuleProperties, rules_of};
use gray_lb::{
    BaseProperties, Fallback, LaneProperties, LaneTable, Lanes, ServiceName, ServiceProperties,
    Version,
};
use gray_propagation::Lane;
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
    let lanes = lanes(&properties.lanes, &root.key("lanes"), faults);
    let default = Lanes {
        base: properties.base.version.as_deref().map(Version::new),
        unversioned: properties.base.unversioned,
        versions: versions(&properties.lanes),
        fallback: properties.fallback,
        routed: true,
    };
    let services = properties.services.iter().map(|(name, service)| {
        let at = root.key("services").key(name);
        (ServiceName::new(name.as_str()), default.with(service, &at, faults))
    });
    let services = services.collect();
    let rules = rules_of(&properties.rules, &lanes, lists, &root.key("rules"), faults);
    Meaning {
        rules: properties.enabled.then_some(rules),
        lanes: LaneTable { default, services },
        open: lanes.into_iter().filter_map(|(lane, on)| on.then_some(lane)).collect(),
    }
}

/// Reads the lanes, and whether each is switched on.
fn lanes(properties: &[LaneProperties], at: &KeyPath, faults: &mut Faults) -> BTreeMap<Lane, bool> {
    let mut lanes = BTreeMap::new();
    for (index, lane) in properties.iter().enumerate() {
        let at = at.index(index).key("name");
        let Some(name) = faults.check(&at, lane.name.parse::<Lane>()) else { continue };
        if lanes.insert(name, lane.enabled).is_some() {
            faults.error(&at, format!("a second lane is named `{name}`"));
        }
    }
    lanes
}

fn versions(properties: &[LaneProperties]) -> BTreeMap<Lane, Version> {
    let version = |lane: &LaneProperties| {
        Some((lane.name.parse().ok()?, Version::new(lane.version.as_deref()?)))
    };
    properties.iter().filter_map(version).collect()
}
