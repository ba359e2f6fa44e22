use std::net::{IpAddr, SocketAddr};

use gray_config::nacos::{Link, NacosInstance};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::StarterProperties;

/// A copy of a service in the registry, from [`register`](crate::Starter::register) to its end.
///
/// Dropped, it is kept no more, and leaves the registry when the connection to it is missed, which lives as
/// long as the last of its [`Starter`](crate::Starter): [`end`](Self::end) it instead.
#[derive(Debug)]
#[must_use = "a registration that is dropped is not kept any more"]
pub struct Registration(Option<Kept>);

#[derive(Debug)]
struct Kept {
    link: Link,
    service: String,
    group: String,
    instance: NacosInstance,
    task: AbortHandle,
}

impl Registration {
    /// A registration that is none, since the registry is a file.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Keeps a copy registered, through outages of the registry.
    pub(crate) fn keep(link: Link, properties: &StarterProperties, addr: SocketAddr) -> Self {
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
            metadata: own.chain(properties.metadata.clone()).collect(),
            ..NacosInstance::default()
        };
        let (service, group) = (properties.service.clone(), properties.group().to_owned());
        let kept = (link.clone(), service.clone(), group.clone(), instance.clone());
        let task = tokio::spawn(async move {
            let (link, service, group, instance) = kept;
            link.keep_registered(&service, &group, &instance).await;
        });
        Self(Some(Kept { link, service, group, instance, task: task.abort_handle() }))
    }

    /// Tells whether there is anything to take off.
    pub const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the copy off the registry, so that nobody sends it anything new; what was sent already
    /// has to be served.
    pub async fn end(mut self) {
        let Some(kept) = self.0.take() else { return };
        kept.task.abort();
        let ended = kept.link.deregister(&kept.service, &kept.group, &kept.instance).await;
        if let Err(error) = ended {
            tracing::warn!(service = kept.service, %error, "not deregistered");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(Kept { task, .. }) = &self.0 {
            task.abort();
        }
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
