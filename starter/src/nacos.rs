//! A service's Nacos: the base environment's group, and those of lanes that have one of their own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use gray_config::nacos::{Link, Module, NacosInstance, NacosProperties};
use gray_lb::{Discovery, NacosDiscovery, NacosGroup, Wanted};
use gray_propagation::{GrayStatus, Lane};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::lanes::named;
use crate::{StartError, StarterProperties};

/// Where the instances of a lane, or of base, are registered.
#[derive(Clone, Debug)]
struct Home {
    link: Link,
    group: String,
}

/// Where instances are registered, this copy among them.
#[derive(Debug)]
pub(crate) struct Naming {
    base: Home,
    lanes: BTreeMap<Lane, Home>,
}

impl Naming {
    /// Returns none where there is no Nacos.
    pub(crate) fn new(properties: &StarterProperties) -> Result<Option<Self>, StartError> {
        let Some(nacos) = &properties.nacos else { return Ok(None) };
        let base = Home {
            link: Link::new(nacos.clone(), Module::Naming),
            group: properties.group().to_owned(),
        };
        let mut lanes = BTreeMap::new();
        for (lane, apart) in properties.apart()? {
            let link = match apart.namespace {
                None => base.link.clone(),
                Some(namespace) => {
                    let nacos = NacosProperties { namespace, ..nacos.clone() };
                    Link::new(nacos, Module::Naming)
                }
            };
            let group = apart.group.unwrap_or_else(|| base.group.clone());
            if group == base.group && link.properties().namespace == nacos.namespace {
                return Err(StartError::NotApart(lane));
            }
            lanes.insert(lane, Home { link, group });
        }
        Ok(Some(Self { base, lanes }))
    }

    /// Returns the registries, one for each group.
    pub(crate) fn discoveries(
        &self,
        properties: &StarterProperties,
        wanted: &Wanted,
    ) -> Vec<Box<dyn Discovery>> {
        let lanes = self.lanes.iter().map(|(lane, home)| (Some(*lane), home));
        let discovery = |(lane, home): (Option<Lane>, &Home)| -> Box<dyn Discovery> {
            let (group, clusters) = (home.group.clone(), properties.clusters.clone());
            let group = NacosGroup { group, clusters, lane };
            Box::new(NacosDiscovery::new(home.link.clone(), group, wanted.clone()))
        };
        std::iter::once((None, &self.base)).chain(lanes).map(discovery).collect()
    }

    /// Returns the first server's address.
    pub(crate) fn server(&self) -> &str {
        self.base.link.properties().servers.first().map_or("", String::as_str)
    }

    /// Keeps this copy registered, where its lane is if it is configured to be of one. What lane its version
    /// has may change with the next document.
    pub(crate) fn keep(&self, properties: &StarterProperties, addr: SocketAddr) -> Kept {
        let configured = properties.lane.as_deref().and_then(|lane| named(lane).ok());
        let home = match configured {
            Some(GrayStatus::Gray(lane)) => self.lanes.get(&lane).unwrap_or(&self.base),
            Some(GrayStatus::All | GrayStatus::Prod) | None => &self.base,
        };
        Kept::new(home.clone(), properties, addr)
    }
}

/// A copy that is kept registered.
#[derive(Debug)]
pub(crate) struct Kept {
    home: Home,
    service: String,
    instance: NacosInstance,
    task: AbortHandle,
}

impl Kept {
    fn new(home: Home, properties: &StarterProperties, addr: SocketAddr) -> Self {
        let own = [
            (properties.version_key(), properties.version.as_deref()),
            ("lane", properties.lane.as_deref()),
            ("preserved.register.source", Some("GRAYLANE")),
        ];
        let own = own.into_iter().filter_map(|(key, it)| Some((key.to_owned(), it?.to_owned())));
        let instance = NacosInstance {
            ip: addr.ip().to_string(),
            port: addr.port().into(),
            cluster_name: properties.cluster.clone(),
            // What the copy says of itself is not to be said otherwise.
            metadata: properties.metadata.clone().into_iter().chain(own).collect(),
            ..NacosInstance::default()
        };
        let service = properties.service.clone();
        let kept = (home.clone(), service.clone(), instance.clone());
        let task = tokio::spawn(async move {
            let (Home { link, group }, service, instance) = kept;
            link.keep_registered(&service, &group, &instance).await;
        });
        Self { home, service, instance, task: task.abort_handle() }
    }

    /// Takes the copy off the registry.
    pub(crate) async fn end(self) {
        self.task.abort();
        let Home { link, group } = &self.home;
        if let Err(error) = link.deregister(&self.service, group, &self.instance).await {
            tracing::warn!(service = self.service, %error, "not deregistered");
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the address that others reach this machine at: the one from which it reaches the registry.
pub(crate) async fn reachable_at(addr: SocketAddr, registry: &str) -> std::io::Result<IpAddr> {
    if !addr.ip().is_unspecified() {
        return Ok(addr.ip().to_canonical());
    }
    let socket = UdpSocket::bind(SocketAddr::new(addr.ip(), 0)).await?;
    // Nothing is sent: the system only looks up the way.
    socket.connect(registry).await?;
    Ok(socket.local_addr()?.ip().to_canonical())
}
