use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "nacos")]
use gray_config::nacos::NacosProperties;
use gray_config::{
    ConfigSource as _, Documents, FileSource, Follow, Live, Merged, Problems, causes, follow, live,
};
use gray_lb::{
    Balancer, Directory, Discovery, FileDiscovery, Guard, GuardProperties, LaneDocuments,
    Maintenance, ServedLanes, Wanted, maintain,
};
use gray_propagation::{
    Carriers, GrayStatus, InvalidKey, InvalidLane, Lane, MessageCarrier, TagKey, TagKeys, may_carry,
};
use http::HeaderName;
use tokio::task::JoinSet;

#[cfg(feature = "grpc")]
use crate::channel::{Connections, GrayChannel};
#[cfg(feature = "client")]
use crate::client::GrayClient;
use crate::edges::Edges;
use crate::lanes::{OwnLane, follow_lanes, sources};
use crate::layer::{GrayLayer, Incoming};
#[cfg(feature = "nacos")]
use crate::nacos::{Naming, reachable_at};
use crate::outgoing::{Core, Outgoing};
use crate::registration::Registration;
use crate::{InvalidVariable, PropagateLayer, StarterProperties};

/// The largest registry file that is read.
const MAX_REGISTRY: u64 = 16 << 20;

/// Makes a service part of gray release: its server by [`layer`](Self::layer), its calls by
/// [`client`](Self::client) and [`channel`](Self::channel), its place in the registry by
/// [`register`](Self::register).
///
/// Its background tasks end with the last of it and of what it has made.
#[derive(Clone, Debug)]
pub struct Starter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    properties: StarterProperties,
    #[cfg(feature = "nacos")]
    naming: Option<Naming>,
    #[cfg(feature = "grpc")]
    outgoing: Outgoing,
    own: OwnLane,
    layer: GrayLayer,
    carriers: Carriers,
    edges: Edges,
    #[cfg(feature = "client")]
    client: GrayClient,
    #[cfg(feature = "grpc")]
    connections: Connections,
    followers: Mutex<JoinSet<()>>,
}

/// Why a service cannot be part of gray release. What a `main` that ends with it shows says it in words.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A variable of the environment cannot be understood.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    /// Something is no lane.
    #[error("`{0}` is no lane")]
    Lane(String, #[source] InvalidLane),
    /// Something is no name for a property of messages.
    #[error(
        "{0:?} cannot be the property of messages that carries the lane: brokers filter by names of letters, digits and `_` that do not begin with a digit"
    )]
    MessageProperty(String),
    /// The base environment is given a group or a namespace as if it were a lane.
    #[error(
        "`{0}` is the base environment, not a lane: its group and namespace are NACOS_GROUP and NACOS_NAMESPACE"
    )]
    BaseApart(String),
    /// The base environment is given a version as if it were a lane.
    #[error("`{0}` is the base environment, not a lane: its version is GRAYLANE_BASE")]
    BaseVersion(String),
    /// A lane's group and namespace are those of the base environment.
    #[error("the lane `{0}` is given the group and the namespace of the base environment")]
    NotApart(Lane),
    /// Something is no key.
    #[error("a tag key cannot be used")]
    Key(#[from] InvalidKey),
    /// Something is no header name.
    #[error("GRAYLANE_HEADERS: `{0}` is no header name")]
    Header(String),
    /// A header says something else, and cannot carry the lane.
    #[error("GRAYLANE_HEADERS: `{0}` says something else, and cannot carry the lane")]
    Reserved(String),
    /// Something is no network.
    #[error("GRAYLANE_ALLOW: {0}")]
    Network(String),
    /// There is neither a Nacos server nor a registry file.
    #[error("there is no registry; set NACOS_ADDR or GRAYLANE_REGISTRY")]
    NoRegistry,
    /// No HTTP client can be had.
    #[cfg(feature = "client")]
    #[error("no HTTP client can be had")]
    Client(#[from] reqwest::Error),
    /// The address that others reach this machine at cannot be found out.
    #[error("the address that others reach this machine at cannot be found out")]
    Address(#[from] std::io::Error),
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&causes(self))
    }
}

impl Starter {
    /// Starts with what the environment says (see [`StarterProperties`]).
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn from_env(service: &str) -> Result<Self, StartError> {
        Self::start(StarterProperties::from_env(service)?)
    }

    /// Starts following the registry and the lanes, in the background.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(properties: StarterProperties) -> Result<Self, StartError> {
        let mut tasks = JoinSet::new();
        let (lanes, health) = follow_lanes(&properties, &mut tasks)?;
        let own = OwnLane::new(&properties, lanes, health)?;
        let keys = properties.tag_keys.iter().map(|text| TagKey::parse(text));
        let keys: TagKeys = keys.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
        let wanted: Wanted = std::iter::empty().collect();
        #[cfg(feature = "nacos")]
        let naming = Naming::new(&properties)?;
        let registries = registries(
            &properties,
            #[cfg(feature = "nacos")]
            naming.as_ref(),
            &wanted,
        )?;
        let mut maintenance = Maintenance::new(guard(&properties)?);
        properties.version_key().clone_into(&mut maintenance.version_key);
        let health = maintenance.health();
        let (publisher, directory) = live(Directory::default());
        tasks.spawn(maintain(registries, maintenance, publisher));
        let tasks = Arc::new(tasks);
        let service: Arc<str> = properties.service.as_str().into();
        let (carriers, edges) = (carriers(&properties)?, Edges::default());
        let outgoing = Outgoing::new(Core {
            service: Arc::clone(&service),
            own: own.clone(),
            balancer: Balancer::new(directory),
            health,
            wanted,
            carriers: carriers.clone(),
            edges: edges.clone(),
            asked: Mutex::default(),
            hops: Mutex::default(),
            _tasks: Arc::clone(&tasks),
        });
        let incoming = Incoming {
            service,
            own: own.clone(),
            carriers: carriers.clone(),
            keys,
            edges: edges.clone(),
            health_paths: properties.health_paths(),
            _tasks: tasks,
        };
        Ok(Self(Arc::new(Inner {
            #[cfg(feature = "client")]
            client: GrayClient::new(outgoing.clone(), http_client()?),
            #[cfg(feature = "grpc")]
            connections: Connections::default(),
            properties,
            #[cfg(feature = "nacos")]
            naming,
            #[cfg(feature = "grpc")]
            outgoing,
            own,
            layer: GrayLayer::new(incoming),
            carriers,
            edges,
            followers: Mutex::default(),
        })))
    }

    #[cfg(feature = "serve")]
    pub(crate) fn properties(&self) -> &StarterProperties {
        &self.0.properties
    }

    /// Returns the layer for the service's server.
    pub fn layer(&self) -> GrayLayer {
        self.0.layer.clone()
    }

    /// Returns the layer for clients that go where they are told to: it writes the lane, by the carriers
    /// that are configured, and whom the call is from.
    pub fn propagate(&self) -> PropagateLayer {
        let layer = PropagateLayer::new(self.0.carriers.clone()).from_service(self.service());
        layer.with_own(self.0.own.clone())
    }

    /// Returns the client for calls to other services over HTTP.
    #[cfg(feature = "client")]
    pub fn client(&self) -> GrayClient {
        self.0.client.clone()
    }

    /// Returns a channel for calls to another service over gRPC.
    #[cfg(feature = "grpc")]
    pub fn channel(&self, service: &str) -> GrayChannel {
        let (outgoing, connections) = (self.0.outgoing.clone(), self.0.connections.clone());
        GrayChannel::new(outgoing, gray_lb::ServiceName::new(service), connections)
    }

    /// Returns the status of what this copy does of its own accord: jobs, for example, which are to
    /// run in [`scope`](gray_propagation::scope) of it where they call anything but through this
    /// starter.
    pub fn own_status(&self) -> GrayStatus {
        self.0.own.status()
    }

    /// The same where lanes are served like this: for what has to be decided by one reading of the
    /// documents, such as a message's lane and whether it says it.
    pub fn own_status_in(&self, served: &ServedLanes) -> GrayStatus {
        self.0.own.status_in(served)
    }

    /// Waits until it is known which version each lane has: until its documents were in force once, where it
    /// has any. Why it waits is warned of.
    pub async fn known(&self) {
        self.0.own.known().await;
    }

    /// Returns the lanes that there are, as far as is known.
    pub fn lanes(&self) -> BTreeSet<Lane> {
        self.0.own.all()
    }

    /// Returns how the documents are written that say it, for those who read more of them.
    pub fn lane_documents(&self) -> LaneDocuments {
        self.0.properties.lane_documents()
    }

    /// Returns the lanes whose instances have a group or a namespace of their own, whether or not any
    /// document names them.
    pub fn lanes_apart(&self) -> BTreeSet<Lane> {
        self.0.own.apart.clone()
    }

    /// Follows the documents that say how lanes are served, for what else they say: `parse` is given
    /// all of them whenever one changes. Where there are none, the value stays what it is.
    pub fn follow<T, P>(&self, initial: T, parse: P) -> Live<T>
    where
        T: Send + Sync + 'static,
        P: Fn(&Documents) -> Result<(T, Problems), Problems> + Send + Sync + 'static,
    {
        let (publisher, value) = live(initial);
        let sources = sources(&self.0.properties);
        if !sources.is_empty() {
            let updates = Box::new(Merged::new(sources)).updates();
            let follow = follow(updates, Follow::new(parse, None), publisher);
            self.0.followers.lock().unwrap_or_else(PoisonError::into_inner).spawn(follow);
        }
        value
    }

    /// Returns how its messages carry their lane.
    pub fn message_carrier(&self) -> MessageCarrier {
        let name = self.0.properties.message_property.as_ref();
        name.map_or_else(MessageCarrier::default, MessageCarrier::named)
    }

    /// Returns the service's name.
    pub fn service(&self) -> &str {
        &self.0.properties.service
    }

    /// Returns the Nacos servers, where there are any.
    #[cfg(feature = "nacos")]
    pub fn nacos(&self) -> Option<&NacosProperties> {
        self.0.properties.nacos.as_ref()
    }

    /// Returns what was counted about calls.
    pub fn edges(&self) -> &Edges {
        &self.0.edges
    }

    /// Registers this copy, which listens at this address, and keeps it registered. To be called
    /// when it is ready to serve; it waits until lanes are known too, however long that takes: whoever is
    /// called before could take a request of any lane for its own. Where the registry is a file, nothing is
    /// registered.
    ///
    /// # Errors
    ///
    /// Where it listens on all addresses, and the one that others reach it at cannot be found out.
    pub async fn register(&self, addr: SocketAddr) -> Result<Registration, StartError> {
        self.0.own.known().await;
        if let Some(odd) = self.0.own.oddity() {
            tracing::warn!(service = self.service(), "{odd}");
        }
        #[cfg(feature = "nacos")]
        if let Some(naming) = &self.0.naming {
            let addr = self.reachable(addr).await?;
            return Ok(Registration::of(naming.keep(&self.0.properties, addr)));
        }
        Ok(Registration::none())
    }

    /// Returns the address that others reach a listener at: the one that is configured
    /// (`GRAYLANE_ADVERTISE`), its own, or where it listens on all addresses, the one from which this
    /// machine reaches the registry.
    ///
    /// # Errors
    ///
    /// Where that cannot be found out.
    pub async fn reachable(&self, addr: SocketAddr) -> std::io::Result<SocketAddr> {
        if let Some(advertised) = self.0.properties.advertise {
            return Ok(SocketAddr::new(advertised, addr.port()));
        }
        #[cfg(feature = "nacos")]
        if let Some(naming) = &self.0.naming {
            let ip = reachable_at(addr, naming.server()).await?;
            return Ok(SocketAddr::new(ip, addr.port()));
        }
        Ok(addr)
    }
}

/// The carriers of the lane beside the `gray` header.
fn carriers(properties: &StarterProperties) -> Result<Carriers, StartError> {
    if let Some(name) = &properties.message_property
        && !is_identifier(name)
    {
        return Err(StartError::MessageProperty(name.clone()));
    }
    let header = |text: &String| match text.parse::<HeaderName>() {
        Ok(name) if may_carry(&name) => Ok(name),
        Ok(_) => Err(StartError::Reserved(text.clone())),
        Err(_) => Err(StartError::Header(text.clone())),
    };
    let headers = properties.headers.iter().map(header).collect::<Result<Vec<_>, _>>()?;
    let carriers = Carriers::default().with_headers(headers);
    Ok(if properties.baggage { carriers.with_baggage() } else { carriers })
}

/// Tells whether the filters of brokers, which are SQL, can name a property so.
fn is_identifier(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Where instances are found: in a file where one is named, else on Nacos.
fn registries(
    properties: &StarterProperties,
    #[cfg(feature = "nacos")] naming: Option<&Naming>,
    wanted: &Wanted,
) -> Result<Vec<Box<dyn Discovery>>, StartError> {
    if let Some(path) = &properties.registry {
        let source = FileSource::new([path.clone()], MAX_REGISTRY);
        return Ok(vec![Box::new(FileDiscovery::new(Box::new(source)))]);
    }
    #[cfg(feature = "nacos")]
    if let Some(naming) = naming {
        return Ok(naming.discoveries(properties, wanted));
    }
    // Who calls nobody by name needs to find nobody.
    if cfg!(any(feature = "client", feature = "grpc")) {
        return Err(StartError::NoRegistry);
    }
    Ok(Vec::new())
}

/// A service is not the edge: where nothing else is said, it calls whatever is registered.
fn guard(properties: &StarterProperties) -> Result<Guard, StartError> {
    let mut allow = properties.allow.clone();
    if allow.is_empty() {
        allow = ["0.0.0.0/0", "::/0"].map(str::to_owned).into();
    }
    let ports = vec!["1-65535".to_owned()];
    Guard::new(&GuardProperties { allow, ports }, Vec::new()).map_err(|errors| {
        let messages: Vec<String> = errors.into_iter().map(|(_, _, message)| message).collect();
        StartError::Network(messages.join(", "))
    })
}

#[cfg(feature = "client")]
fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    const CONNECT: std::time::Duration = std::time::Duration::from_secs(2);
    // Between two pieces of an answer, and until the first.
    const SILENCE: std::time::Duration = std::time::Duration::from_mins(1);
    reqwest::Client::builder()
        .no_proxy()
        .read_timeout(SILENCE)
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, fits: bool) {
        let message_property = Some(name.to_owned());
        let properties =
            StarterProperties { message_property, ..StarterProperties::of("order-app") };
        match carriers(&properties) {
            Ok(_) => assert!(fits, "{name:?}"),
            Err(error) => {
                assert!(!fits && matches!(error, StartError::MessageProperty(_)), "{error}");
            }
        }
    }

    /// `x-gray` is subtracted by a broker's filter: it found no message, and said nothing of it.
    #[test]
    fn messages_carry_the_lane_in_what_a_filter_can_name() {
        for name in ["gray", "x_gray", "_7", "Tag2"] {
            check(name, true);
        }
        for name in ["", "x-gray", "7gray", "x gray", "x.gray", "gray\n", "灰"] {
            check(name, false);
        }
    }
}
