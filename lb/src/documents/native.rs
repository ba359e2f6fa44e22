use std::collections::BTreeMap;

use gray_config::{Document, Faults, KeyPath, did_you_mean};
use gray_propagation::Lane;

use crate::{
    BaseProperties, Fallback, LaneProperties, LaneTable, Lanes, ServiceName, ServiceProperties,
    Version,
};

/// What a document in Graylane's own format says about lanes, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanesProperties {
    /// The base environment.
    pub base: BaseProperties,
    /// The gray lanes.
    pub lanes: Vec<LaneProperties>,
    /// What to do when a lane has no instance.
    pub fallback: Fallback,
    /// What is different for some services.
    pub services: BTreeMap<String, ServiceProperties>,
}

impl LanesProperties {
    /// Reads these keys of a document, and no others.
    pub(super) fn read(document: &Document, faults: &mut Faults) -> Self {
        let root = KeyPath::ROOT;
        Self {
            base: read(document, &root.key("base"), faults),
            lanes: read(document, &root.key("lanes"), faults),
            fallback: read(document, &root.key("fallback"), faults),
            services: read(document, &root.key("services"), faults),
        }
    }

    /// Returns how lanes are served, and whether each is switched on, noting what is wrong.
    pub fn table(&self, at: &KeyPath, faults: &mut Faults) -> (LaneTable, BTreeMap<Lane, bool>) {
        let mut switches = BTreeMap::new();
        let mut versions = BTreeMap::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let at = at.key("lanes").index(index).key("name");
            let Some(name) = faults.check(&at, lane.name.parse::<Lane>()) else { continue };
            if switches.insert(name, lane.enabled).is_some() {
                faults.error(&at, format!("a second lane is named `{name}`"));
            }
            versions.extend(lane.version.as_deref().map(|it| (name, Version::new(it))));
        }
        let default = Lanes {
            base: self.base.version.as_deref().map(Version::new),
            unversioned: self.base.unversioned,
            versions,
            fallback: self.fallback,
            routed: true,
        };
        // A list that could not be read may lack it.
        let is_whole = faults.is_whole(&at.key("lanes"));
        let services = self.services.iter().map(|(name, service)| {
            let at = at.key("services").key(name);
            for lane in service.lanes.keys().filter(|_| is_whole) {
                check_declared(lane, &switches, &at.key("lanes").key(lane), faults);
            }
            (ServiceName::new(name.as_str()), default.with(service, &at, faults))
        });
        let services = services.collect();
        (LaneTable { default, services }, switches)
    }
}

/// Notes a lane that a service serves otherwise, and that is none.
fn check_declared(lane: &str, switches: &BTreeMap<Lane, bool>, at: &KeyPath, faults: &mut Faults) {
    let Ok(name) = lane.parse::<Lane>() else { return };
    if !switches.contains_key(&name) {
        let help = did_you_mean(lane, switches.keys().map(Lane::as_str)).map_or_else(
            || "declare it under `lanes`".to_owned(),
            |meant| format!("did you mean `{meant}`?"),
        );
        faults.error_with_help(at, format!("there is no lane `{lane}`"), Some(help));
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(
    document: &Document,
    at: &KeyPath,
    faults: &mut Faults,
) -> T {
    if document.contains(at) { document.read(at, faults).unwrap_or_default() } else { T::default() }
}
