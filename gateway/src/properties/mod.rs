//! What an operator writes in `graylane.yaml`: the static configuration, read once at the start.

mod bounds;
mod discovery;
mod idle;
mod listener;
mod messages;
mod route;
mod rules;
mod tags;
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;

use gray_config::nacos::NacosProperties;
use gray_config::{Document, Faults, KeyPath, Override, Problem, Problems};
use gray_filters::{PlaceProperties, UserProperties};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::bounds::check_bounds;
pub use self::discovery::{DiscoveryProperties, NacosDiscoveryProperties, RegisterProperties};
pub(crate) use self::idle::warn_of_idle;
pub use self::listener::{CertificateProperties, ListenerProperties, TlsProperties};
pub use self::messages::BrokerProperties;
pub use self::route::{HostPolicy, PathProperties, RouteMatchProperties, RouteProperties};
pub use self::rules::{ListProperties, NacosRulesProperties, RulesProperties};
pub use self::tags::TagKeyProperties;
pub(crate) use self::tags::tag_keys;
pub use self::traffic::{
    AccessLogProperties, AdminProperties, HashBy, LimitProperties, PropagationProperties, Protocol,
    RouteTimeoutProperties, StickyCookieProperties, TimeoutProperties, UpstreamProperties,
};

/// The name under which a service is called that has no entry of its own.
pub(crate) const DEFAULT: &str = "default";

/// The static configuration as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayProperties {
    /// Where the gateway listens.
    pub listeners: Vec<ListenerProperties>,
    /// Which requests go to which service; the first that matches counts.
    pub routes: Vec<RouteProperties>,
    /// How each service is called, by its name; `default` is for all others.
    pub services: BTreeMap<String, UpstreamProperties>,
    /// The Nacos server, for whatever does not name one of its own.
    pub nacos: NacosProperties,
    /// Where instances are found.
    pub discovery: DiscoveryProperties,
    /// Where the rules come from.
    pub rules: RulesProperties,
    /// Where the user's number stands.
    pub user: UserProperties,
    /// Where cities come from.
    pub places: PlaceProperties,
    /// The cookie for clients that percentages could not tell apart otherwise.
    pub sticky_cookie: StickyCookieProperties,
    /// Proxies whose word about the client is believed: addresses and networks.
    pub trusted_proxies: Vec<String>,
    /// Peers whose `gray` header is taken for a verdict: addresses and networks.
    pub trusted_tags: Vec<String>,
    /// Keys whose signed tags are taken for a verdict, whoever sends them: for probes, and for
    /// gateways in front of this one.
    pub signed_tags: Vec<TagKeyProperties>,
    /// How the verdict is written for the next hop.
    pub propagation: PropagationProperties,
    /// How long things may take, unless a route says otherwise.
    pub timeouts: TimeoutProperties,
    /// How much of anything is accepted.
    pub limits: LimitProperties,
    /// Where the messages of lanes are, for the page for operators.
    pub messages: BrokerProperties,
    /// The page for operators.
    pub admin: AdminProperties,
    /// The log of requests.
    pub access_log: AccessLogProperties,
}

impl GatewayProperties {
    /// Reads the static configuration from a file, flags and variables: as far as it can be read, with
    /// what is wrong with it.
    ///
    /// # Errors
    ///
    /// Why it cannot be read at all.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<(Self, Document, Faults), Problems> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Problem::whole(name.as_str(), format!("cannot be read: {error}")))?;
        let document = Document::parse(&name, &text)?
            .interpolate(&|name| std::env::var(name).ok())
            .override_with(overrides)?;
        let mut faults = Faults::default();
        let properties: Option<Self> = document.read(&KeyPath::ROOT, &mut faults);
        Ok((properties.unwrap_or_default(), document, faults))
    }
}
