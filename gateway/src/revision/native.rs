use std::collections::{BTreeMap, BTreeSet};

use gray_config::{Document, Faults, KeyPath};
use gray_filters::{Lists, RuleProperties, Senses, rules_of, warn_of_missing};
use gray_lb::{
    BaseProperties, Fallback, LaneProperties, LanesProperties, ServiceName, ServiceProperties,
};
use gray_mq::{MessageSettings, MessagesProperties, Settings};
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
    /// Which consumers handle the messages of lanes. It is for services, and only checked here.
    pub messages: MessagesProperties,
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
            messages: MessagesProperties::default(),
        }
    }
}

/// Reads a document; `None` instead of rules where it is switched off.
pub(super) fn read(
    document: &Document,
    lists: &Lists,
    senses: &Senses,
    faults: &mut Faults,
) -> Meaning {
    let root = KeyPath::ROOT;
    let properties: NativeProperties = document.read(&root, faults).unwrap_or_default();
    let NativeProperties { enabled, base, lanes, fallback, services, rules, messages } = properties;
    let (table, switches) =
        LanesProperties { base, lanes, fallback, services }.table(&root, faults);
    let at = root.key("rules");
    let (written, rules) = (&rules, rules_of(&rules, &switches, lists, &at, faults));
    warn_of_missing(written, &rules, senses, &at, faults);
    check_messages(&messages, switches.keys().copied().collect(), &root, faults);
    Meaning {
        rules: enabled.then_some(rules),
        lanes: table,
        open: switches.into_iter().filter_map(|(lane, on)| on.then_some(lane)).collect(),
    }
}

/// Returns where a document says which version a lane has, for a service or for all.
pub(super) fn place_of(lane: Lane, service: &ServiceName, document: &Document) -> Option<KeyPath> {
    let root = KeyPath::ROOT;
    let own = root.key("services").key(service.as_str()).key("lanes").key(lane.as_str());
    if document.contains(&own) {
        return Some(own);
    }
    let lanes = root.key("lanes");
    let all = (0..).map(|index| lanes.index(index)).take_while(|at| document.contains(at));
    let named = |at: &KeyPath| document.scalar(&at.key("name")) == Some(lane.as_str());
    let at = all.into_iter().find(named)?;
    Some(Some(at.key("version")).filter(|at| document.contains(at)).unwrap_or(at))
}

/// Notes what is wrong with what a document says about messages.
pub(super) fn check_messages(
    messages: &MessagesProperties,
    lanes: BTreeSet<Lane>,
    above: &KeyPath,
    faults: &mut Faults,
) {
    let mut settings = MessageSettings::of_all(Settings::default(), lanes);
    settings.take(messages, &above.key("messages"), faults);
}
