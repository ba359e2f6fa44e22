use std::collections::BTreeMap;

use foldhash::HashMap;
use gray_propagation::Lane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ServiceName, Version};

/// What to do when the lane that a request asks for has no instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Fallback {
    /// Fail the request.
    Fail,
    /// Serve it by the base version; it stays tagged, so that the next hop is gray again.
    #[default]
    Base,
    /// Serve it by any version that belongs to no other lane.
    All,
}

impl Fallback {
    /// Returns the word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Base => "base",
            Self::All => "all",
        }
    }
}

/// What instances without a version are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Unversioned {
    /// Part of the base environment.
    #[default]
    Base,
    /// Reached only where no version is asked for.
    None,
}

/// How the lanes of one service are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// The version of the base environment; without one, base is what has no version.
    pub base: Option<Version>,
    /// What instances without a version are.
    pub unversioned: Unversioned,
    /// The version of each lane that has one.
    pub versions: BTreeMap<Lane, Version>,
    /// What to do when a lane has no instance.
    pub fallback: Fallback,
    /// Whether lanes matter to this service at all; if not, every instance serves every request.
    pub routed: bool,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            base: None,
            unversioned: Unversioned::default(),
            versions: BTreeMap::new(),
            fallback: Fallback::default(),
            routed: true,
        }
    }
}

impl Lanes {
    /// Tells whether a version belongs to a gray lane other than this one.
    pub(crate) fn is_foreign(&self, version: &Version, lane: Option<&Lane>) -> bool {
        Some(version) != self.base.as_ref()
            && self.versions.iter().any(|(name, it)| it == version && Some(name) != lane)
    }
}

/// How the lanes of every service are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneTable {
    /// For services that are not named.
    pub default: Lanes,
    /// For services that are.
    pub services: HashMap<ServiceName, Lanes>,
}

impl LaneTable {
    /// Returns how the lanes of a service are served.
    pub fn of(&self, service: &ServiceName) -> &Lanes {
        self.services.get(service).unwrap_or(&self.default)
    }
}
