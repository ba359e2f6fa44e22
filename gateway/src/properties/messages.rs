use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the messages of lanes are, as an operator writes it: for the page for operators, which says
/// how they stand. The gateway itself neither produces nor consumes any.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BrokerProperties {
    /// The name servers of RocketMQ, such as `127.0.0.1:9876`; none if there are no messages.
    pub rocketmq: Vec<String>,
    /// Where the tables are: `nacos`, `postgres://…` or `mysql://…`.
    #[serde(skip_serializing)]
    pub state: String,
}

impl Default for BrokerProperties {
    fn default() -> Self {
        Self { rocketmq: Vec::new(), state: "nacos".to_owned() }
    }
}
