use std::collections::BTreeMap;

use gray_config::{Faults, KeyPath};
use gray_propagation::Lane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Fallback, LaneTable, Lanes, ServiceName, Unversioned, Version};

/// `kerwin.tool.gray.version` as an operator of the Spring Cloud design writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrayVersionProperties {
    /// The version in production.
    pub prod_version: Option<String>,
    /// The version under trial.
    pub gray_version: Option<String>,
}

impl GrayVersionProperties {
    /// Returns how lanes are served in that design: exact versions, and no fallback.
    ///
    /// `routed` are the services that name the design's load balancer; where there are any, all
    /// others get every version.
    pub fn lanes(&self, routed: &[String]) -> LaneTable {
        let version = |version: &Option<String>| version.as_deref().map(Version::new);
        let gray = version(&self.gray_version).map(|version| (Lane::GRAY, version));
        let lanes = Lanes {
            base: version(&self.prod_version),
            unversioned: Unversioned::None,
            versions: gray.into_iter().collect(),
            fallback: Fallback::Fail,
            routed: true,
        };
        let named = |name: &String| (ServiceName::new(name.as_str()), lanes.clone());
        let services = routed.iter().map(named).collect();
        let default = Lanes { routed: routed.is_empty(), ..lanes };
        LaneTable { default, services }
    }
}

/// The base environment as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BaseProperties {
    /// Its version; without one, base is what has no version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What instances without a version are.
    pub unversioned: Unversioned,
}

/// A gray lane as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaneProperties {
    /// Its name; `gray` is the one that `GRAY` stands for on the wire.
    #[serde(default)]
    pub name: String,
    /// Its version; a lane with a registry of its own needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The kill switch: while it is off, no rule sends a request into the lane.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// What is different for one service, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceProperties {
    /// Its base version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What its instances without a version are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unversioned: Option<Unversioned>,
    /// The version of each lane that has another one here.
    pub lanes: BTreeMap<String, String>,
    /// What to do when a lane has no instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Whether lanes matter to it at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed: Option<bool>,
}

impl Lanes {
    /// Returns these lanes with what is different for one service, noting what is wrong with it.
    #[must_use]
    pub fn with(&self, properties: &ServiceProperties, at: &KeyPath, faults: &mut Faults) -> Self {
        let mut lanes = self.clone();
        if let Some(base) = &properties.base {
            lanes.base = Some(Version::new(base.as_str()));
        }
        for (name, version) in &properties.lanes {
            let at = at.key("lanes").key(name);
            if let Some(lane) = faults.check(&at, name.parse::<Lane>()) {
                lanes.versions.insert(lane, Version::new(version.as_str()));
            }
        }
        lanes.unversioned = properties.unversioned.unwrap_or(lanes.unversioned);
        lanes.fallback = properties.fallback.unwrap_or(lanes.fallback);
        lanes.routed = properties.routed.unwrap_or(lanes.routed);
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spring_design_knows_no_fallback_and_routes_only_named_services() {
        let properties = GrayVersionProperties {
            prod_version: Some("V1".to_owned()),
            gray_version: Some("V2".to_owned()),
        };
        let table = properties.lanes(&["user-app".to_owned()]);
        let user = table.of(&ServiceName::new("user-app"));
        assert_eq!(user.fallback, Fallback::Fail);
        assert_eq!(user.versions.get(&Lane::GRAY), Some(&Version::new("V2")));
        assert!(user.routed);
        assert!(!table.of(&ServiceName::new("other-app")).routed);
        assert!(properties.lanes(&[]).of(&ServiceName::new("other-app")).routed);
    }
}
