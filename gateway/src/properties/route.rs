use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::traffic::RouteTimeoutProperties;

/// A route as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteProperties {
    /// Its name, unique; it stands in logs and metrics. The service's name where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests it takes; all of them where not given.
    #[serde(default, rename = "match")]
    pub matches: RouteMatchProperties,
    /// The service they go to.
    #[serde(default)]
    pub service: String,
    /// What is cut off the front of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// What is put in front of the path, after anything was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// Which host the instance is told was asked for.
    #[serde(default)]
    pub host: HostPolicy,
    /// How long things may take on this route; what is not said here is as for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeoutProperties>,
}

/// Which requests a route takes, as an operator writes it: all that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteMatchProperties {
    /// A host, such as `api.example.com` or `*.example.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathProperties>,
    /// Methods; any where not given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// Which paths fit, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PathProperties {
    /// This path and everything below it: `/order` takes `/order` and `/order/1`, not `/orders`.
    Prefix(String),
    /// This path only.
    Exact(String),
    /// Paths that match this pattern as a whole.
    Regex(String),
}

/// Which host the instance is told was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HostPolicy {
    /// The host that the client asked for.
    #[default]
    Keep,
    /// The instance's own address.
    Instance,
    /// This name.
    Name(String),
}
