use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use gray_config::HumanDuration;
#[cfg(feature = "nacos")]
use gray_config::nacos::NacosProperties;
use gray_lb::LaneDocuments;
use gray_propagation::{GrayStatus, Lane};

use crate::StartError;
use crate::lanes::named;
use crate::variables::{InvalidVariable, Variables};

/// The data id that services of the Spring Cloud design share (seed S1).
const COMMON: &str = "common-config.yaml";

/// Where services are asked how they are, by custom: Spring's, Kubernetes', Prometheus', and gRPC's.
const HEALTH_PATHS: [&str; 8] = [
    "/actuator",
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/favicon.ico",
    "/grpc.health.v1.Health",
];

/// What a service says about itself, and where it finds others.
///
/// ```
/// use gray_starter::StarterProperties;
///
/// let environment = |name: &str| match name {
///     "GRAYLANE_VERSION" => Some("V2".to_owned()),
///     "NACOS_ADDR" => Some("nacos-1:8848,nacos-2:8848".to_owned()),
///     _ => None,
/// };
/// let properties = StarterProperties::from(&environment, "order-app").unwrap();
/// assert_eq!(properties.version.as_deref(), Some("V2"));
/// # #[cfg(feature = "nacos")]
/// assert_eq!(properties.nacos.unwrap().servers.len(), 2);
/// ```
///
/// In code, beginning with the name; fields may be added in later versions:
///
/// ```
/// use gray_starter::StarterProperties;
///
/// let mut properties = StarterProperties::of("order-app");
/// properties.version = Some("V2".to_owned());
/// properties.registry = Some("registry.yaml".into());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StarterProperties {
    /// The service's name.
    pub service: String,
    /// Its version, which it announces as metadata `version` (`GRAYLANE_VERSION`).
    pub version: Option<String>,
    /// Under which key versions are announced, its own and others' (`GRAYLANE_VERSION_KEY`); `version`
    /// where not given.
    pub version_key: Option<String>,
    /// The lane it belongs to, where the version does not say (`GRAYLANE_LANE`).
    pub lane: Option<String>,
    /// What else it announces (`GRAYLANE_METADATA`, as `key=value,key=value`).
    pub metadata: BTreeMap<String, String>,
    /// The Nacos servers (`NACOS_ADDR`, `NACOS_NAMESPACE`, `NACOS_USERNAME`, `NACOS_PASSWORD`).
    #[cfg(feature = "nacos")]
    pub nacos: Option<NacosProperties>,
    /// The group of its services and documents (`NACOS_GROUP`); `DEFAULT_GROUP` where not given.
    pub group: Option<String>,
    /// The groups of lanes whose instances have one of their own (`GRAYLANE_LANE_GROUPS`, as
    /// `gray=GRAY_GROUP`); a copy with such a lane as [`lane`](Self::lane) registers there, and needs no
    /// version.
    pub lane_groups: BTreeMap<String, String>,
    /// The same of namespaces, by their ids (`GRAYLANE_LANE_NAMESPACES`, as `blue=blue-id`).
    pub lane_namespaces: BTreeMap<String, String>,
    /// The cluster it registers in (`NACOS_CLUSTER`); `DEFAULT` where not given.
    pub cluster: Option<String>,
    /// The clusters it takes instances of (`NACOS_CLUSTERS`, with commas); all where not given, as
    /// Spring Cloud Alibaba does.
    pub clusters: Vec<String>,
    /// The documents on Nacos that say which version each lane has (`GRAYLANE_DATA_IDS`, with
    /// commas).
    pub data_ids: Vec<String>,
    /// The prefix of the keys in documents of the Spring Cloud design (`GRAYLANE_PREFIX`);
    /// `kerwin.tool.gray` where not given.
    pub prefix: Option<String>,
    /// Files that say it, instead of Nacos (`GRAYLANE_RULES`, with commas).
    pub rules: Vec<PathBuf>,
    /// A file with instances, instead of Nacos (`GRAYLANE_REGISTRY`).
    pub registry: Option<PathBuf>,
    /// The version of the base environment, where no document says it (`GRAYLANE_BASE`).
    pub base: Option<String>,
    /// The version of each lane, where no document says it (`GRAYLANE_LANES`, as
    /// `gray=V2,blue=V3`).
    pub lanes: BTreeMap<String, String>,
    /// Headers that carry the lane's name beside `gray`, such as `x-mse-tag` (`GRAYLANE_HEADERS`,
    /// with commas).
    pub headers: Vec<String>,
    /// Whether W3C Baggage carries it too (`GRAYLANE_BAGGAGE=true`).
    pub baggage: bool,
    /// The property of messages that carries the lane (`GRAYLANE_MESSAGE_PROPERTY`); `gray` where not given.
    pub message_property: Option<String>,
    /// Keys whose signed tags ask for reports (`GRAYLANE_TAG_KEYS`, as `id:secret,id:secret`).
    pub tag_keys: Vec<String>,
    /// The address that others reach this copy at (`GRAYLANE_ADVERTISE`), where it is not the one that
    /// it listens at: behind a translator of addresses, for example.
    pub advertise: Option<IpAddr>,
    /// For how long a copy goes on accepting after it has left the registry, until others have heard of it
    /// (`GRAYLANE_NOTICE`); two seconds where not given.
    pub notice: Option<HumanDuration>,
    /// For how long requests may take to end after that (`GRAYLANE_DRAIN`); half a minute where not given.
    pub drain: Option<HumanDuration>,
    /// The paths that orchestrators and collectors of metrics ask without any tag, which is then not counted
    /// as lost (`GRAYLANE_HEALTH_PATHS`, with commas), and everything below them; the usual ones where not
    /// given.
    pub health_paths: Vec<String>,
    /// The networks that instances may be in (`GRAYLANE_ALLOW`, with commas); all where not given.
    pub allow: Vec<String>,
}

/// Where the instances of a lane are, as far as that is not where those of base are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Apart {
    pub(crate) group: Option<String>,
    pub(crate) namespace: Option<String>,
}

/// Without its secrets.
impl fmt::Debug for StarterProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, version, lane, group, registry, rules, .. } = self;
        let mut f = f.debug_struct("StarterProperties");
        #[cfg(feature = "nacos")]
        f.field("nacos", &self.nacos);
        f.field("service", service)
            .field("version", version)
            .field("lane", lane)
            .field("group", group)
            .field("registry", registry)
            .field("rules", rules)
            .finish_non_exhaustive()
    }
}

impl StarterProperties {
    /// Names a service, and says nothing else about it.
    pub fn of(service: impl Into<String>) -> Self {
        Self { service: service.into(), ..Self::default() }
    }

    /// Reads the variables of the process's environment.
    ///
    /// # Errors
    ///
    /// A variable that cannot be understood.
    pub fn from_env(service: &str) -> Result<Self, InvalidVariable> {
        Self::from(&|name| std::env::var(name).ok(), service)
    }

    /// Reads variables from wherever they are looked up.
    ///
    /// # Errors
    ///
    /// A variable that cannot be understood.
    pub fn from(
        lookup: &dyn Fn(&str) -> Option<String>,
        service: &str,
    ) -> Result<Self, InvalidVariable> {
        let said = Variables(lookup);
        #[cfg(feature = "nacos")]
        let nacos = said.nacos();
        #[cfg(not(feature = "nacos"))]
        said.no_nacos()?;
        Ok(Self {
            service: service.to_owned(),
            version: said.text("GRAYLANE_VERSION"),
            version_key: said.text("GRAYLANE_VERSION_KEY"),
            lane: said.text("GRAYLANE_LANE"),
            metadata: said.pairs("GRAYLANE_METADATA")?,
            #[cfg(feature = "nacos")]
            nacos,
            group: said.text("NACOS_GROUP"),
            lane_groups: said.pairs("GRAYLANE_LANE_GROUPS")?,
            lane_namespaces: said.pairs("GRAYLANE_LANE_NAMESPACES")?,
            cluster: said.text("NACOS_CLUSTER"),
            clusters: said.list("NACOS_CLUSTERS"),
            data_ids: said.list("GRAYLANE_DATA_IDS"),
            prefix: said.text("GRAYLANE_PREFIX"),
            rules: said.list("GRAYLANE_RULES").into_iter().map(PathBuf::from).collect(),
            registry: said.text("GRAYLANE_REGISTRY").map(PathBuf::from),
            base: said.text("GRAYLANE_BASE"),
            lanes: said.pairs("GRAYLANE_LANES")?,
            headers: said.list("GRAYLANE_HEADERS"),
            baggage: said.flag("GRAYLANE_BAGGAGE")?,
            message_property: said.text("GRAYLANE_MESSAGE_PROPERTY"),
            tag_keys: said.list("GRAYLANE_TAG_KEYS"),
            advertise: said.address("GRAYLANE_ADVERTISE")?,
            notice: said.duration("GRAYLANE_NOTICE")?,
            drain: said.duration("GRAYLANE_DRAIN")?,
            health_paths: said.paths("GRAYLANE_HEALTH_PATHS")?,
            allow: said.list("GRAYLANE_ALLOW"),
        })
    }

    pub(crate) fn health_paths(&self) -> Vec<String> {
        let own = self.health_paths.clone();
        if own.is_empty() { HEALTH_PATHS.map(str::to_owned).into() } else { own }
    }

    pub(crate) fn version_key(&self) -> &str {
        self.version_key.as_deref().unwrap_or("version")
    }

    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or("DEFAULT_GROUP")
    }

    /// The lanes whose instances are known by their group, or namespace, and not by their version.
    pub(crate) fn apart(&self) -> Result<BTreeMap<Lane, Apart>, StartError> {
        let lane = |name: &String| match named(name)? {
            GrayStatus::Gray(lane) => Ok(lane),
            GrayStatus::All | GrayStatus::Prod => Err(StartError::BaseApart(name.clone())),
        };
        let mut apart: BTreeMap<Lane, Apart> = BTreeMap::new();
        for (name, group) in &self.lane_groups {
            apart.entry(lane(name)?).or_default().group = Some(group.clone());
        }
        for (name, namespace) in &self.lane_namespaces {
            apart.entry(lane(name)?).or_default().namespace = Some(namespace.clone());
        }
        Ok(apart)
    }

    /// How the documents are written that say how lanes are served.
    pub(crate) fn lane_documents(&self) -> LaneDocuments {
        let mut how = LaneDocuments::default();
        if let Some(prefix) = &self.prefix {
            how.prefix.clone_from(prefix);
        }
        how.order = self.rules.iter().map(|path| path.display().to_string()).collect();
        how.order.extend(self.documents());
        how
    }

    /// The documents on Nacos that are followed: those that are named, or the design's own unless
    /// lanes are said elsewhere.
    pub(crate) fn documents(&self) -> Vec<String> {
        let elsewhere = !self.rules.is_empty() || self.base.is_some() || !self.lanes.is_empty();
        match self.data_ids.is_empty() {
            true if elsewhere => Vec::new(),
            true => vec![COMMON.to_owned()],
            false => self.data_ids.clone(),
        }
    }
}

#[cfg(all(test, feature = "nacos"))]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_an_equals_sign_is_named() {
        let environment =
            |name: &str| (name == "GRAYLANE_LANES").then(|| "gray=V2,blue".to_owned());
        let error = StarterProperties::from(&environment, "a").unwrap_err();
        assert_eq!(error.to_string(), "GRAYLANE_LANES: `blue` is not of the form key=value");
    }

    /// Each of these once did something else than was meant, and said nothing.
    #[test]
    fn values_that_cannot_be_meant_are_named() {
        for (name, value, expected) in [
            ("GRAYLANE_LANES", "gray=", "`gray=` is not of the form key=value"),
            ("GRAYLANE_LANES", "gray=V2,gray=V3", "`gray=V3` is not the only one of its key"),
            ("GRAYLANE_BAGGAGE", "maybe", "`maybe` is not true or false"),
            ("GRAYLANE_HEALTH_PATHS", "health", "`health` is not a path, which begins with `/`"),
        ] {
            let environment = |asked: &str| (asked == name).then(|| value.to_owned());
            let error = StarterProperties::from(&environment, "a").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: {expected}")), "{error}");
        }
        for (text, expected) in [("1", true), ("Yes", true), ("off", false)] {
            let environment = |name: &str| (name == "GRAYLANE_BAGGAGE").then(|| text.to_owned());
            assert_eq!(StarterProperties::from(&environment, "a").unwrap().baggage, expected);
        }
    }

    /// A header that frames a message broke each call of a lane; what `main` shows of an error are its words.
    #[tokio::test]
    async fn a_header_that_says_something_else_carries_no_lane() {
        let mut properties = StarterProperties::of("a");
        properties.headers = vec!["Content-Length".to_owned()];
        properties.registry = Some("registry.yaml".into());
        let error = crate::Starter::start(properties).unwrap_err();
        let words =
            "GRAYLANE_HEADERS: `Content-Length` says something else, and cannot carry the lane";
        assert_eq!((error.to_string().as_str(), format!("{error:?}").as_str()), (words, words));
        let error = crate::Starter::start(StarterProperties::of("a")).unwrap_err();
        assert_eq!(
            format!("{error:?}"),
            "there is no registry; set NACOS_ADDR or GRAYLANE_REGISTRY"
        );
    }

    const ENVIRONMENT: [(&str, &str); 28] = [
        ("GRAYLANE_NOTICE", "500ms"),
        ("GRAYLANE_DRAIN", "1m"),
        ("GRAYLANE_VERSION", "V2"),
        ("GRAYLANE_VERSION_KEY", "release"),
        ("GRAYLANE_PREFIX", "shop.gray"),
        ("GRAYLANE_LANE", "gray"),
        ("GRAYLANE_METADATA", "zone=a, rack = 7"),
        ("NACOS_ADDR", "n1:8848, n2:8848"),
        ("NACOS_NAMESPACE", "ns"),
        ("NACOS_USERNAME", "u"),
        ("NACOS_PASSWORD", "hush"),
        ("NACOS_GROUP", "G"),
        ("GRAYLANE_LANE_GROUPS", "gray=GRAY"),
        ("GRAYLANE_LANE_NAMESPACES", "blue=id"),
        ("NACOS_CLUSTER", "C"),
        ("NACOS_CLUSTERS", "C,D"),
        ("GRAYLANE_DATA_IDS", "one.yaml,two.yaml"),
        ("GRAYLANE_RULES", "/a.yaml"),
        ("GRAYLANE_REGISTRY", "/r.yaml"),
        ("GRAYLANE_BASE", "V1"),
        ("GRAYLANE_LANES", "gray=V2,blue=V3"),
        ("GRAYLANE_HEADERS", "x-mse-tag"),
        ("GRAYLANE_BAGGAGE", "TRUE"),
        ("GRAYLANE_MESSAGE_PROPERTY", "tag"),
        ("GRAYLANE_TAG_KEYS", "k:hush"),
        ("GRAYLANE_ADVERTISE", "192.0.2.7"),
        ("GRAYLANE_HEALTH_PATHS", "/up,/stats"),
        ("GRAYLANE_ALLOW", "10.0.0.0/8"),
    ];

    /// Every variable that is documented, and what becomes of it.
    #[test]
    fn each_variable_is_understood() {
        let environment = |name: &str| {
            let known = ENVIRONMENT.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| (*value).to_owned())
        };
        let read = StarterProperties::from(&environment, "a").unwrap();
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, it)| ((*key).to_owned(), (*it).to_owned())).collect()
        };
        let list = |parts: &[&str]| -> Vec<String> { parts.iter().map(|&it| it.into()).collect() };
        let text = |text: &str| Some(text.to_owned());
        let nacos = NacosProperties {
            servers: list(&["n1:8848", "n2:8848"]),
            namespace: "ns".to_owned(),
            username: "u".to_owned(),
            password: "hush".to_owned(),
            ..NacosProperties::default()
        };
        let expected = StarterProperties {
            service: "a".to_owned(),
            version: text("V2"),
            version_key: text("release"),
            prefix: text("shop.gray"),
            lane: text("gray"),
            metadata: map(&[("zone", "a"), ("rack", "7")]),
            nacos: Some(nacos),
            group: text("G"),
            lane_groups: map(&[("gray", "GRAY")]),
            lane_namespaces: map(&[("blue", "id")]),
            cluster: text("C"),
            clusters: list(&["C", "D"]),
            data_ids: list(&["one.yaml", "two.yaml"]),
            rules: vec!["/a.yaml".into()],
            registry: Some("/r.yaml".into()),
            base: text("V1"),
            lanes: map(&[("gray", "V2"), ("blue", "V3")]),
            headers: list(&["x-mse-tag"]),
            baggage: true,
            message_property: text("tag"),
            tag_keys: list(&["k:hush"]),
            advertise: Some([192, 0, 2, 7].into()),
            notice: Some(HumanDuration::millis(500)),
            drain: Some(HumanDuration::secs(60)),
            health_paths: list(&["/up", "/stats"]),
            allow: list(&["10.0.0.0/8"]),
        };
        assert_eq!(read, expected);
        // Secrets are in no log.
        assert!(!format!("{read:?}").contains("hush"), "{read:?}");
        let wrong = |name: &str| (name == "GRAYLANE_ADVERTISE").then(|| "here".to_owned());
        let error = StarterProperties::from(&wrong, "a").unwrap_err().to_string();
        assert_eq!(error, "GRAYLANE_ADVERTISE: `here` is not an IP address");
    }

    /// What is where base is would be served to everybody.
    #[tokio::test]
    async fn a_lane_apart_is_somewhere_else() {
        for (name, group) in [("gray", "DEFAULT_GROUP"), ("base", "OTHER"), ("no lane", "OTHER")] {
            let properties = StarterProperties {
                service: "a".to_owned(),
                nacos: Some(NacosProperties::default()),
                lane_groups: [(name.to_owned(), group.to_owned())].into(),
                ..StarterProperties::default()
            };
            let error = crate::Starter::start(properties).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }

    #[tokio::test]
    async fn what_separates_properties_names_none() {
        for (name, fine) in [("x_tag", true), ("", false), ("x-mse-tag", false), ("a\u{1}b", false)]
        {
            let mut properties = StarterProperties::of("a");
            properties.registry = Some("registry.yaml".into());
            properties.message_property = Some(name.to_owned());
            let started = crate::Starter::start(properties).map(|it| it.message_carrier());
            let named = started.as_ref().map(gray_propagation::MessageCarrier::name);
            assert!(if fine { matches!(named, Ok(it) if it == name) } else { named.is_err() });
        }
    }

    #[test]
    fn the_designs_document_is_followed_unless_lanes_are_said_elsewhere() {
        let plain = StarterProperties::default();
        assert_eq!(plain.documents(), ["common-config.yaml"]);
        let own = StarterProperties { base: Some("V1".to_owned()), ..plain };
        assert_eq!(own.documents(), [""; 0]);
    }
}
