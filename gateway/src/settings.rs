use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use gray_config::{Document, Faults, KeyPath, Override, Problems, Publisher, live};
use gray_filters::{CidrSet, Senses, TrustedProxies, Users};
use gray_lb::{Algorithm, Directory, Guard, ServiceName};
use gray_propagation::{Carriers, Lane, may_carry};
use http::HeaderName;

use crate::explain::Explainer;
use crate::properties::{
    DEFAULT, GatewayProperties, ListProperties, check_bounds, tag_keys, warn_of_idle,
};
use crate::proxy::Calling;
use crate::revision::{Revision, RuleDocuments};
use crate::routes::Routes;
use crate::server::{Certificates, ProxyProtocol};
use crate::tags::TagPolicy;
use crate::upstream::UpstreamTls;

/// The static configuration, checked and ready for use.
#[derive(Debug)]
pub struct Settings {
    pub(crate) listeners: Vec<(SocketAddr, Option<Certificates>, ProxyProtocol)>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) routes: Routes,
    pub(crate) callings: foldhash::HashMap<ServiceName, Calling>,
    pub(crate) default_calling: Calling,
    pub(crate) algorithm: Algorithm,
    pub(crate) algorithms: HashMap<ServiceName, Algorithm>,
    pub(crate) tls: UpstreamTls,
    /// Whether instances on loopback may be called where no networks are named.
    loopback: bool,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) tags: TagPolicy,
    pub(crate) carriers: Carriers,
    pub(crate) rule_documents: RuleDocuments,
    /// Replaces what the gateway can find out about requests, when its files change.
    pub(crate) senses: Option<Publisher<Senses>>,
    /// The lane of each Nacos group that instances are looked for in.
    pub(crate) nacos_lanes: Vec<Option<Lane>>,
    /// Where others reach the gateway, if it registers itself.
    pub(crate) registered: Option<SocketAddr>,
    /// What the operator wrote.
    pub properties: GatewayProperties,
}

/// A static configuration, with everything that is wrong or odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// What it says, as far as it is right.
    pub settings: Settings,
    /// The text, for saying where something stands.
    pub document: Document,
    /// What is wrong or odd.
    pub faults: Faults,
}

impl Loaded {
    /// Returns the settings, and what is odd about them.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn right(self) -> Result<(Settings, Problems), Problems> {
        let problems = self.document.problems(&self.faults);
        if problems.has_errors() { Err(problems) } else { Ok((self.settings, problems)) }
    }
}

impl Settings {
    /// Reads and checks what an operator wrote in a file, flags and variables.
    ///
    /// # Errors
    ///
    /// Why it cannot be read at all.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Loaded, Problems> {
        let (properties, document, mut faults) = GatewayProperties::load(path, overrides)?;
        let settings = Self::read(properties, &mut faults);
        Ok(Loaded { settings, document, faults })
    }

    /// Checks what an operator wrote.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn new(properties: GatewayProperties, document: &Document) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let settings = Self::read(properties, &mut faults);
        if faults.has_errors() { Err(document.problems(&faults)) } else { Ok(settings) }
    }

    /// Returns where requests go.
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Returns what refuses instances; `own` are the addresses that the gateway listens on.
    pub(crate) fn guard(&self, mut own: Vec<SocketAddr>) -> Guard {
        own.extend(self.registered);
        // The properties were checked when they were read.
        let guard = Guard::new(&self.properties.discovery.guard, own);
        let guard = guard.unwrap_or_else(|_| Guard::closed());
        if self.loopback { guard.with_loopback() } else { guard }
    }

    /// Returns what explains requests by this configuration.
    pub fn explainer<'a>(
        &'a self,
        revision: &'a Revision,
        directory: &'a Directory,
    ) -> Explainer<'a> {
        Explainer {
            routes: &self.routes,
            revision,
            directory,
            carriers: &self.carriers,
            proxies: &self.trusted_proxies,
            tags: &self.tags,
            max_target: self.properties.limits.target_size.bytes(),
        }
    }

    /// Returns how the verdict is written for the next hop.
    pub const fn carriers(&self) -> &Carriers {
        &self.carriers
    }

    /// Reads what is right; what is wrong is noted, and nobody is to be served by the rest.
    fn read(properties: GatewayProperties, faults: &mut Faults) -> Self {
        let root = KeyPath::ROOT;
        let readable = !faults.has_errors();
        let listeners = listeners(&properties, faults);
        let admin = admin(&properties, faults);
        let routes =
            Routes::new(&properties.routes, properties.timeouts, &root.key("routes"), faults);
        if properties.routes.is_empty() && readable {
            faults.error(&root.key("routes"), "there is no route");
        }
        let (callings, tls) = callings(&properties, faults);
        let named = || properties.services.iter().filter(|(name, _)| *name != DEFAULT);
        let algorithms = named().map(|(name, it)| (ServiceName::new(name.as_str()), it.balance));
        let algorithms = algorithms.collect();
        let default = properties.services.get(DEFAULT).cloned().unwrap_or_default();
        let default_calling = callings.get(&ServiceName::new(DEFAULT)).cloned().unwrap_or_default();
        let networks = |key: &str, texts: &[String], faults: &mut Faults| {
            TrustedProxies::new(networks(&root.key(key), texts, faults).unwrap_or_default())
        };
        let trusted_proxies = networks("trustedProxies", &properties.trusted_proxies, faults);
        let trusted_tags = networks("trustedTags", &properties.trusted_tags, faults);
        let tag_keys = tag_keys(&properties.signed_tags, &root.key("signedTags"), faults);
        let carriers = carriers(&properties, faults);
        let reached = routes.services();
        warn_of_idle(&properties, &reached, faults);
        check_bounds(&properties, faults);
        let (senses, senses_live) = live(senses(&properties, faults));
        let nacos_lanes = nacos_lanes(&properties, faults);
        let registered = registered(&properties, faults);
        let loopback = guard(&properties, &listeners, faults);
        Self {
            listeners,
            admin,
            routes,
            callings,
            default_calling,
            algorithm: default.balance,
            algorithms,
            tls,
            loopback,
            trusted_proxies,
            tags: TagPolicy { trusted: trusted_tags, keys: tag_keys },
            carriers,
            rule_documents: RuleDocuments {
                format: properties.rules.format,
                prefix: properties.rules.prefix.clone(),
                order: order(&properties),
                lists: lists(&properties),
                senses: senses_live,
                routed: reached,
            },
            senses: Some(senses),
            nacos_lanes,
            registered,
            properties,
        }
    }
}

fn listeners(
    properties: &GatewayProperties,
    faults: &mut Faults,
) -> Vec<(SocketAddr, Option<Certificates>, ProxyProtocol)> {
    let at = KeyPath::ROOT.key("listeners");
    // Where something cannot be read, that may be why.
    if properties.listeners.is_empty() && !faults.has_errors() {
        faults.error(&at, "there is no listener; write `listeners: [{address: 0.0.0.0:8080}]`");
    }
    let mut listeners = Vec::new();
    for (index, listener) in properties.listeners.iter().enumerate() {
        let at = at.index(index);
        let addr = address(&listener.address, &at.key("address"), faults);
        let tls = match &listener.tls {
            None => Some(None),
            Some(tls) => faults.check(&at.key("tls"), Certificates::open(tls)).map(Some),
        };
        if let (Some(addr), Some(tls)) = (addr, tls) {
            let proxy_protocol = if listener.proxy_protocol {
                ProxyProtocol::Expected
            } else {
                ProxyProtocol::Unknown
            };
            listeners.push((addr, tls, proxy_protocol));
        }
    }
    listeners
}

fn admin(properties: &GatewayProperties, faults: &mut Faults) -> Option<SocketAddr> {
    let text = &properties.admin.address;
    if text.is_empty() {
        return None;
    }
    if !cfg!(feature = "mq") && !properties.messages.rocketmq.is_empty() {
        let at = KeyPath::ROOT.dotted("messages.rocketmq");
        faults.error(&at, "this program was built without the feature `mq`, and knows no brokers");
    }
    let at = KeyPath::ROOT.dotted("admin.address");
    let addr = address(text, &at, faults)?;
    if !addr.ip().is_loopback() {
        faults.warning(&at, "the admin page can be read by anyone who reaches this address");
        if properties.admin.writable {
            let message = "a page that can be reached from elsewhere may not be writable";
            faults.error(&KeyPath::ROOT.dotted("admin.writable"), message);
        }
    }
    Some(addr)
}

fn address(text: &str, at: &KeyPath, faults: &mut Faults) -> Option<SocketAddr> {
    let parsed = text.parse::<SocketAddr>();
    let explained = parsed.map_err(|_| {
        format!("`{text}` is no address with a port, such as 0.0.0.0:8080 or [::]:8080")
    });
    faults.check(at, explained)
}

fn callings(
    properties: &GatewayProperties,
    faults: &mut Faults,
) -> (foldhash::HashMap<ServiceName, Calling>, UpstreamTls) {
    let mut callings = foldhash::HashMap::default();
    let mut tls = UpstreamTls::default();
    for (name, service) in &properties.services {
        let at = KeyPath::ROOT.key("services").key(name);
        match Calling::new(service.protocol, &service.hash_by) {
            Some(calling) => {
                callings.insert(ServiceName::new(name.as_str()), calling);
            }
            None => faults.error(&at.key("hashBy"), "this is no header name"),
        }
        if service.protocol == crate::properties::Protocol::Https {
            tls.add(name, service, &at, faults);
        }
    }
    (callings, tls)
}

fn networks(at: &KeyPath, texts: &[String], faults: &mut Faults) -> Option<CidrSet> {
    CidrSet::parse(texts.iter().map(String::as_str))
        .map_err(|errors| {
            for (position, error) in errors {
                faults.error(&at.index(position), error);
            }
        })
        .ok()
}

fn carriers(properties: &GatewayProperties, faults: &mut Faults) -> Carriers {
    let at = KeyPath::ROOT.dotted("propagation.headers");
    let mut names: Vec<HeaderName> = Vec::new();
    for (index, text) in properties.propagation.headers.iter().enumerate() {
        let name = text.parse().map_err(|_| format!("`{text}` is no header name"));
        let Some(name) = faults.check(&at.index(index), name) else { continue };
        if may_carry(&name) {
            names.push(name);
        } else {
            faults.error(
                &at.index(index),
                format!("`{text}` says something else, and cannot carry the lane"),
            );
        }
    }
    let carriers = Carriers::default().with_headers(names);
    if properties.propagation.baggage { carriers.with_baggage() } else { carriers }
}

/// Opens the files by which the gateway finds out about requests, noting what is wrong.
pub(crate) fn senses(properties: &GatewayProperties, faults: &mut Faults) -> Senses {
    let cookie = &properties.sticky_cookie;
    Senses {
        users: Users::open(&properties.user, &KeyPath::ROOT.key("user"), faults),
        places: properties.places.open(&KeyPath::ROOT.key("places"), faults),
        issued_cookie: cookie.enabled.then(|| cookie.name.clone()),
    }
}

/// Returns the names of rule documents: files, then what is in Nacos.
fn order(properties: &GatewayProperties) -> Vec<String> {
    let files = properties.rules.files.iter().map(|path| path.display().to_string());
    let on_nacos = properties.rules.nacos.iter().flat_map(|nacos| nacos.data_ids.iter().cloned());
    files.chain(on_nacos).collect()
}

/// Returns the documents that are lists: their names, and the names that rules use.
fn lists(properties: &GatewayProperties) -> BTreeMap<String, String> {
    let document = |list: &ListProperties| match list {
        ListProperties::File(path) => path.display().to_string(),
        ListProperties::DataId(id) => id.clone(),
    };
    let lists = properties.rules.lists.iter();
    lists.map(|(name, list)| (document(list), name.clone())).collect()
}

fn nacos_lanes(properties: &GatewayProperties, faults: &mut Faults) -> Vec<Option<Lane>> {
    let at = KeyPath::ROOT.dotted("discovery.nacos");
    let groups = properties.discovery.nacos.iter().enumerate();
    groups
        .map(|(index, group)| {
            let lane = group.lane.as_ref()?;
            faults.check(&at.index(index).key("lane"), lane.parse())
        })
        .collect()
}

/// Reads where others reach the gateway.
fn registered(properties: &GatewayProperties, faults: &mut Faults) -> Option<SocketAddr> {
    let register = properties.discovery.register.as_ref()?;
    let at = KeyPath::ROOT.dotted("discovery.register");
    if register.service.is_empty() {
        faults.error(&at.key("service"), "a registration needs a service");
    }
    address(&register.address, &at.key("address"), faults)
}

/// Checks which instances may be called, and tells whether loopback may.
///
/// A gateway that listens on loopback only is one for trying things out: it may call loopback.
fn guard(
    properties: &GatewayProperties,
    listeners: &[(SocketAddr, Option<Certificates>, ProxyProtocol)],
    faults: &mut Faults,
) -> bool {
    let guard = &properties.discovery.guard;
    let at = KeyPath::ROOT.dotted("discovery.guard");
    if let Err(errors) = Guard::new(guard, Vec::new()) {
        for (key, index, message) in errors {
            faults.error(&at.key(key).index(index), message);
        }
    }
    let loopback = |addr: &SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    listeners.iter().all(|(addr, ..)| loopback(addr))
}
