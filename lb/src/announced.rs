use std::collections::BTreeMap;

/// An instance as a registry tells it: nothing in it has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Announced {
    /// Its address; registries accept any text here.
    pub ip: String,
    /// Its port; registries accept any number here.
    pub port: i64,
    /// Its weight; it need not be a number at all.
    pub weight: f64,
    /// Whether its registry believes it to be alive.
    pub healthy: bool,
    /// Whether an operator left it switched on.
    pub enabled: bool,
    /// The cluster it belongs to.
    pub cluster: Option<String>,
    /// What it says about itself.
    pub metadata: BTreeMap<String, String>,
}
