//! The JSON messages of the protocol, as far as they are used here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::NacosError;
use super::wire::Payload;

/// What errors call a push.
const PUSH: &str = "push";

/// The three names that together identify a configuration document.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigKey {
    /// The data id, such as `gateway-app.yaml`.
    pub data_id: String,
    /// The group, such as `DEFAULT_GROUP`.
    pub group: String,
}

/// What every answer says about how it went.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Outcome {
    pub(super) result_code: i64,
    pub(super) error_code: i64,
    pub(super) message: Option<String>,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { result_code: 200, error_code: 0, message: None }
    }
}

/// What a server sends unasked, as far as it is short; Java writes `null` for what it does not say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Message {
    pub(super) request_id: Option<String>,
    pub(super) data_id: Option<String>,
    pub(super) group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct ConfigAnswer {
    pub(super) content: Option<String>,
    pub(super) md5: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListenAnswer {
    pub(super) changed_configs: Vec<ChangedConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ChangedConfig {
    pub(super) data_id: String,
    pub(super) group: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceAnswer {
    pub(super) service_info: Option<NacosService>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceListAnswer {
    pub(super) count: usize,
    pub(super) service_names: Vec<String>,
}

/// A service and its instances, as the server tells them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NacosService {
    /// The service's name.
    pub name: String,
    /// The group it is registered in.
    pub group_name: String,
    /// The server's clock when it looked, in milliseconds.
    pub last_ref_time: i64,
    /// The instances.
    pub hosts: Vec<NacosInstance>,
}

/// A service that was pushed: its name and time are read, the instances only if they are asked for, since
/// in a storm of pushes most are out of date before anybody looks.
#[derive(Clone, Debug)]
pub struct PushedService {
    /// The service's name.
    pub name: String,
    /// The group it is registered in.
    pub group_name: String,
    /// The server's clock when it looked, in milliseconds.
    pub last_ref_time: i64,
    payload: Payload,
}

impl PushedService {
    /// Reads a push; `None` if it tells of no service.
    pub(super) fn read_from(payload: Payload) -> Result<Option<Self>, NacosError> {
        let answer: ServiceHeadAnswer = payload.read(PUSH)?;
        Ok(answer.service_info.map(|ServiceHead { name, group_name, last_ref_time }| Self {
            name,
            group_name,
            last_ref_time,
            payload,
        }))
    }

    /// Reads it whole.
    ///
    /// # Errors
    ///
    /// Where the server wrote something else than a service.
    pub fn read(&self) -> Result<NacosService, NacosError> {
        let answer: ServiceAnswer = self.payload.read(PUSH)?;
        Ok(answer.service_info.unwrap_or_default())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceHeadAnswer {
    service_info: Option<ServiceHead>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceHead {
    name: String,
    group_name: String,
    last_ref_time: i64,
}

/// An instance as the server tells it: nothing in it is to be trusted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NacosInstance {
    /// Its address; servers accept any text here.
    pub ip: String,
    /// Its port; servers accept any number here.
    pub port: i64,
    /// Its weight; a number, or the text `NaN`.
    pub weight: Value,
    /// Whether its heartbeats come.
    pub healthy: bool,
    /// Whether an operator left it switched on.
    pub enabled: bool,
    /// Whether it goes when its connection does.
    pub ephemeral: bool,
    /// The cluster it belongs to.
    pub cluster_name: Option<String>,
    /// What it announces, `version` among it.
    pub metadata: BTreeMap<String, String>,
}

impl Default for NacosInstance {
    fn default() -> Self {
        Self {
            ip: String::new(),
            port: 0,
            weight: Value::from(1.0),
            healthy: true,
            enabled: true,
            ephemeral: true,
            cluster_name: None,
            metadata: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_java_server_leaves_out_loses_nothing_else() {
        let text = r#"{"requestId":"7","headers":{},"dataId":"a.yaml","group":null,"tenant":null}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(message.request_id.as_deref(), Some("7"));
        assert_eq!((message.data_id.as_deref(), message.group), (Some("a.yaml"), None));
    }
}
