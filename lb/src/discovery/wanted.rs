use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::ServiceName;

/// The services whose instances somebody wants to know; it only grows.
#[derive(Clone, Debug)]
pub struct Wanted(Arc<watch::Sender<BTreeSet<ServiceName>>>);

impl Wanted {
    /// Adds a service, unless it is wanted already.
    pub fn add(&self, service: &ServiceName) {
        self.0.send_if_modified(|services| {
            !services.contains(service) && services.insert(service.clone())
        });
    }

    /// Returns the services, and tells of further ones.
    #[cfg(feature = "nacos")]
    pub(super) fn follow(&self) -> watch::Receiver<BTreeSet<ServiceName>> {
        self.0.subscribe()
    }
}

impl FromIterator<ServiceName> for Wanted {
    fn from_iter<I: IntoIterator<Item = ServiceName>>(services: I) -> Self {
        Self(Arc::new(watch::Sender::new(services.into_iter().collect())))
    }
}
