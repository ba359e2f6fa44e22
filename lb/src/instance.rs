use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use gray_propagation::Lane;
use serde::{Deserialize, Serialize};

/// The name a service is registered under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Names a service.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Shares the name.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The version an instance announces in its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Version(Arc<str>);

impl Version {
    /// Names a version.
    pub fn new(version: impl Into<Arc<str>>) -> Self {
        Self(version.into())
    }

    /// Returns the version's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How much of the traffic an instance takes, beside others: a positive number in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// The weight of an instance that says nothing about it.
    pub const ONE: Self = Self(1000);

    /// The largest weight, which is also Nacos's.
    const MAX: f64 = 10_000.0;

    /// A weight from 0, which takes no traffic, to 10,000; `None` for any other number.
    pub fn new(weight: f64) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, reason = "at most 10,000,000")]
        #[allow(clippy::cast_sign_loss, reason = "not negative")]
        let valid = |weight: f64| Self((weight * 1000.0).round() as u32);
        (0.0..=Self::MAX).contains(&weight).then(|| valid(weight))
    }

    /// Returns the weight in thousandths.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

/// One running copy of a service.
///
/// Two are equal only if everything about them is: a changed label is a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it announces, if anything.
    pub version: Option<Version>,
    /// The lane whose own registry it was found in, if it was found in one.
    pub lane: Option<Lane>,
    /// How much of the traffic it takes.
    pub weight: Weight,
    /// Whether its registry believes it to be alive.
    pub healthy: bool,
    /// Whether an operator left it switched on.
    pub enabled: bool,
    /// The cluster it belongs to.
    pub cluster: Option<Arc<str>>,
    /// Everything it announces.
    pub metadata: BTreeMap<String, String>,
}

impl Instance {
    /// A healthy instance of weight one that announces nothing.
    pub const fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            version: None,
            lane: None,
            weight: Weight::ONE,
            healthy: true,
            enabled: true,
            cluster: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Tells whether neither a version nor a lane is known of it.
    pub const fn is_unlabelled(&self) -> bool {
        self.version.is_none() && self.lane.is_none()
    }

    /// Tells whether it may be called.
    pub const fn is_available(&self) -> bool {
        self.healthy && self.enabled && self.weight.0 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_sane_number() {
        for weight in [f64::NAN, f64::INFINITY, -1.0, 1e308, 10_000.1] {
            assert_eq!(Weight::new(weight), None, "{weight}");
        }
        assert_eq!(Weight::new(0.5), Some(Weight(500)));
        assert_eq!(Weight::new(0.0), Some(Weight(0)));
    }
}
