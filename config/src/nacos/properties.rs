use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::HumanDuration;

/// How a Nacos server is reached, as an operator writes it.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NacosProperties {
    /// `host:port` of each server, the HTTP port; gRPC is expected at that port + 1000.
    pub servers: Vec<String>,
    /// The namespace's id (not its name); empty for `public`.
    pub namespace: String,
    /// The user, where the server asks for one.
    pub username: String,
    /// The user's password.
    #[serde(skip_serializing)]
    pub password: String,
    /// How long one request may take.
    pub timeout: HumanDuration,
}

/// Without the password.
impl fmt::Debug for NacosProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers, namespace, username, password: _, timeout } = self;
        f.debug_struct("NacosProperties")
            .field("servers", servers)
            .field("namespace", namespace)
            .field("username", username)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}

impl Default for NacosProperties {
    fn default() -> Self {
        Self {
            servers: vec!["127.0.0.1:8848".to_owned()],
            namespace: String::new(),
            username: String::new(),
            password: String::new(),
            timeout: HumanDuration::secs(3),
        }
    }
}

impl NacosProperties {
    /// What to call the namespace in a message.
    pub fn namespace_name(&self) -> &str {
        if self.namespace.is_empty() { "public" } else { &self.namespace }
    }
}
