use gray_config::{ByteSize, HumanDuration};
use gray_lb::Algorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a service is called, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpstreamProperties {
    /// What its instances speak.
    pub protocol: Protocol,
    /// How its instances are chosen.
    pub balance: Algorithm,
    /// What consistent hashing keeps to.
    pub hash_by: HashBy,
    /// A PEM file with the authorities that its certificates are checked against; the system's
    /// where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<std::path::PathBuf>,
    /// The name its certificates are for; the service's own name where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// What instances speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/2 with prior knowledge for gRPC, HTTP/1.1 for everything else.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// HTTP/1.1 or HTTP/2 over TLS, as the instance prefers.
    Https,
}

/// What consistent hashing keeps to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HashBy {
    /// The client's address.
    #[default]
    ClientIp,
    /// A header.
    Header(String),
}

/// How long things may take, as an operator writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TimeoutProperties {
    /// Until an instance takes a connection.
    pub connect: HumanDuration,
    /// Until an instance begins to answer, from the last byte of the request on.
    pub first_byte: HumanDuration,
    /// Between two pieces of a body or of an upgraded connection: of a request until the instance
    /// begins to answer, then of either direction.
    pub idle: HumanDuration,
    /// For the whole of a request and its answer; none where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<HumanDuration>,
}

impl Default for TimeoutProperties {
    fn default() -> Self {
        Self {
            connect: HumanDuration::secs(2),
            first_byte: HumanDuration::secs(60),
            idle: HumanDuration::secs(60),
            total: None,
        }
    }
}

/// How long things may take on one route, as an operator writes it: what is not said is as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteTimeoutProperties {
    /// Until an instance takes a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<HumanDuration>,
    /// Until an instance begins to answer, from the last byte of the request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<HumanDuration>,
    /// Between two pieces of a body or of an upgraded connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<HumanDuration>,
    /// For the whole of a request and its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<HumanDuration>,
}

impl RouteTimeoutProperties {
    /// Returns what holds on the route, where `all` is what holds elsewhere.
    pub fn over(self, all: TimeoutProperties) -> TimeoutProperties {
        TimeoutProperties {
            connect: self.connect.unwrap_or(all.connect),
            first_byte: self.first_byte.unwrap_or(all.first_byte),
            idle: self.idle.unwrap_or(all.idle),
            total: self.total.or(all.total),
        }
    }
}

/// How much of anything is accepted, as an operator writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitProperties {
    /// Connections at a time, over all listeners.
    pub connections: usize,
    /// The size of a request's head.
    pub head_size: ByteSize,
    /// The number of a request's headers; over HTTP/2 all cookies count as one.
    pub headers: usize,
    /// The size of a request's target.
    pub target_size: ByteSize,
    /// The size of a request's body; none where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_size: Option<ByteSize>,
    /// How long the head of a request may take from its first byte on, and the first byte of a connection.
    pub head_time: HumanDuration,
    /// How long a connection may be idle between requests.
    pub keep_alive: HumanDuration,
    /// How long a client may take nothing of its answer.
    pub write_time: HumanDuration,
    /// Streams at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Idle connections kept to each instance.
    pub idle_upstream: usize,
    /// How many instances are tried when they cannot be reached.
    pub attempts: usize,
    /// How long the gateway goes on accepting after it has said that it is not ready, so that load
    /// balancers can notice.
    pub unready: HumanDuration,
    /// How long requests may take to end after that.
    pub drain: HumanDuration,
}

impl Default for LimitProperties {
    fn default() -> Self {
        Self {
            connections: 20_000,
            head_size: ByteSize::kib(64),
            headers: 100,
            target_size: ByteSize::kib(8),
            body_size: None,
            head_time: HumanDuration::secs(10),
            keep_alive: HumanDuration::secs(60),
            write_time: HumanDuration::secs(60),
            streams: 100,
            idle_upstream: 128,
            attempts: 3,
            unready: HumanDuration::secs(1),
            drain: HumanDuration::secs(30),
        }
    }
}

/// How the verdict is written for the next hop, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PropagationProperties {
    /// Headers that carry the lane's name beside `gray`, such as `x-mse-tag`.
    pub headers: Vec<String>,
    /// Whether the W3C `baggage` header carries it too.
    pub baggage: bool,
    /// Whether answers may say how they were decided, in `X-Graylane-Decision`, to clients that ask
    /// with `X-Graylane-Explain: 1`.
    pub decision_header: bool,
}

/// The cookie for clients without any other key, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StickyCookieProperties {
    /// Whether it is given at all.
    pub enabled: bool,
    /// Its name.
    pub name: String,
    /// How long it lasts.
    pub max_age: HumanDuration,
}

impl Default for StickyCookieProperties {
    fn default() -> Self {
        Self {
            enabled: false,
            name: "graylane-id".to_owned(),
            max_age: HumanDuration::secs(30 * 24 * 3600),
        }
    }
}

/// The page for operators, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminProperties {
    /// Where it is; nowhere if empty.
    pub address: String,
    /// Whether it can be used to decide who handles the messages of a lane.
    pub writable: bool,
}

impl Default for AdminProperties {
    fn default() -> Self {
        Self { address: "127.0.0.1:9901".to_owned(), writable: false }
    }
}

/// The log of requests, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLogProperties {
    /// Whether requests are logged.
    pub enabled: bool,
    /// The file that lines are appended to; standard output where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<std::path::PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_what_is_otherwise_on_it_and_nothing_else() {
        let all = TimeoutProperties {
            first_byte: HumanDuration::secs(5),
            total: Some(HumanDuration::secs(20)),
            ..TimeoutProperties::default()
        };
        let own = RouteTimeoutProperties {
            idle: Some(HumanDuration::secs(7)),
            ..RouteTimeoutProperties::default()
        };
        assert_eq!(own.over(all), TimeoutProperties { idle: HumanDuration::secs(7), ..all });
        let own = RouteTimeoutProperties { total: Some(HumanDuration::secs(60)), ..own };
        assert_eq!(own.over(all).total, Some(HumanDuration::secs(60)));
        assert_eq!(own.over(all).first_byte, HumanDuration::secs(5));
    }
}
