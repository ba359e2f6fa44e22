//! The Nacos servers of a gateway: its rules, its registries, and its own registration.

use std::collections::HashMap;
use std::net::SocketAddr;

use gray_config::NacosSource;
use gray_config::nacos::{ConfigKey, Link, Module, NacosInstance, NacosProperties};
use gray_lb::{NacosDiscovery, NacosGroup, ServiceName};
use gray_propagation::Lane;
use tracing::warn;

use crate::properties::{
    GatewayProperties, ListProperties, NacosDiscoveryProperties, RegisterProperties,
};

/// One link to each server that is named, and to each half of it.
#[derive(Debug)]
pub(crate) struct Servers {
    usual: NacosProperties,
    links: HashMap<(NacosProperties, Module), Link>,
}

impl Servers {
    /// Knows the server that is meant where none is named.
    pub(crate) fn new(usual: NacosProperties) -> Self {
        Self { usual, links: HashMap::new() }
    }

    /// Returns the links that were needed so far.
    pub(crate) fn links(&self) -> Vec<Link> {
        self.links.values().cloned().collect()
    }

    /// Returns the rules that are on Nacos, lists among them, if any are.
    pub(crate) fn rules(&mut self, properties: &GatewayProperties) -> Option<NacosSource> {
        let rules = &properties.rules;
        let nacos = rules.nacos.as_ref()?;
        let lists = rules.lists.values().filter_map(|list| match list {
            ListProperties::File(_) => None,
            ListProperties::DataId(id) => Some(id),
        });
        let key = |id: &String| ConfigKey { data_id: id.clone(), group: nacos.group.clone() };
        let keys = nacos.data_ids.iter().chain(lists).map(key).collect();
        Some(NacosSource::new(self.link(nacos.server.as_ref(), Module::Config), keys))
    }

    /// Returns a group as a registry of these services.
    pub(crate) fn registry(
        &mut self,
        properties: &NacosDiscoveryProperties,
        lane: Option<Lane>,
        services: impl IntoIterator<Item = ServiceName>,
    ) -> NacosDiscovery {
        let link = self.link(properties.server.as_ref(), Module::Naming);
        let (group, clusters) = (properties.group.clone(), properties.clusters.clone());
        let wanted = services.into_iter().collect();
        NacosDiscovery::new(link, NacosGroup { group, clusters, lane }, wanted)
    }

    /// Returns what registers the gateway itself.
    pub(crate) fn registration(
        &mut self,
        properties: RegisterProperties,
        addr: SocketAddr,
    ) -> Registration {
        let link = self.link(None, Module::Naming);
        let source = ("preserved.register.source".to_owned(), "GRAYLANE".to_owned());
        let instance = NacosInstance {
            ip: addr.ip().to_string(),
            port: addr.port().into(),
            metadata: std::iter::once(source).chain(properties.metadata.clone()).collect(),
            ..NacosInstance::default()
        };
        let RegisterProperties { service, group, .. } = properties;
        Registration { link, service, group, instance }
    }

    fn link(&mut self, server: Option<&NacosProperties>, module: Module) -> Link {
        let properties = server.unwrap_or(&self.usual).clone();
        let key = (properties.clone(), module);
        self.links.entry(key).or_insert_with(|| Link::new(properties, module)).clone()
    }
}

/// The gateway's own place in a registry.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    link: Link,
    service: String,
    group: String,
    instance: NacosInstance,
}

impl Registration {
    /// Keeps the gateway registered, for as long as the future is polled.
    pub(crate) async fn keep(&self) {
        self.link.keep_registered(&self.service, &self.group, &self.instance).await;
    }

    /// Takes the gateway off, so that nobody sends it anything new.
    pub(crate) async fn end(&self) {
        let ended = self.link.deregister(&self.service, &self.group, &self.instance).await;
        if let Err(error) = ended {
            warn!(service = self.service, %error, "not deregistered");
        }
    }
}
