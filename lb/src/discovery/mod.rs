//! Where instances are found.

mod file;
#[cfg(feature = "nacos")]
mod heard;
#[cfg(feature = "nacos")]
mod nacos;
mod wanted;

use futures_util::stream::BoxStream;
use gray_propagation::Lane;
use tokio::time::Instant;

use crate::{Announced, ServiceName};

pub use self::file::{FileDiscovery, Registry};
#[cfg(feature = "nacos")]
pub use self::nacos::{NacosDiscovery, NacosGroup};
pub use self::wanted::Wanted;

/// What a registry says about one service.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// The service.
    pub service: ServiceName,
    /// All its instances.
    pub announced: Vec<Announced>,
    /// The lane whose own registry this is, if it is one.
    pub lane: Option<Lane>,
    /// How far it is believed.
    pub trust: Trust,
}

/// How far a registry's word is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// An operator wrote it.
    Certain,
    /// A server said it in the normal course of things.
    Pushed,
    /// A server said it just after its link came back, and is doubted until then.
    Settling(Instant),
}

/// A registry.
pub trait Discovery: Send {
    /// Returns what the registry is known by, the same in every run.
    fn name(&self) -> String;

    /// Returns the lane whose instances it knows, if it knows no others.
    fn lane(&self) -> Option<Lane> {
        None
    }

    /// Returns the news of this registry: the present state of each service first, then each change.
    fn updates(self: Box<Self>) -> BoxStream<'static, News>;
}
