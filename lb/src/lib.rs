//! Picks the instance that serves a request.
//!
//! [`Discovery`] tells which instances there are, [`Guard`] refuses those that must not be called,
//! [`maintain`] sorts the rest into [`Subsets`] whenever they change, and [`Balancer::pick`] finds
//! one for a lane. Which version a lane has is said by the [`LaneTable`] that the caller passes, so
//! that a request keeps its own. This crate does not know HTTP.

mod announced;
mod balancer;
mod directory;
mod discovery;
mod documents;
mod guard;
mod instance;
mod lanes;
mod member;
mod pause;
mod picker;
mod properties;
mod retention;
mod saving;
mod snapshot;
mod subsets;

pub use self::announced::Announced;
pub use self::balancer::{Balancer, NoInstance, Picked, Want};
pub use self::directory::{Directory, DirectoryHealth, Maintenance, maintain};
pub use self::discovery::{Discovery, FileDiscovery, News, Registry, Trust, Wanted};
#[cfg(feature = "nacos")]
pub use self::discovery::{NacosDiscovery, NacosGroup};
pub use self::documents::{Format, LaneDocuments, LanesProperties, ServedLanes, SpringLanes};
pub use self::guard::{Guard, GuardProperties, Refusal};
pub use self::instance::{Instance, ServiceName, Version, Weight};
pub use self::lanes::{Fallback, LaneTable, Lanes, Unversioned};
pub use self::member::{InFlight, Member};
pub use self::picker::{Algorithm, Picker};
pub use self::properties::{
    BaseProperties, GrayVersionProperties, LaneProperties, ServiceProperties,
};
pub use self::subsets::Subsets;
