//! A thin client of Nacos 2 and 3 (its gRPC protocol), for configuration and naming.
//!
//! nacos-sdk 0.8 waits up to 64 s before it connects again and cannot be told to stop, so what
//! changed in an outage would come into force a minute late. The protocol beneath is small: two
//! calls that carry JSON. [`Link`] keeps one connection to one of several servers, and says by its
//! epoch when everything has to be asked for again; each request has a time limit.
//!
//! Sources: `api/src/main/proto/nacos_grpc_service.proto` and `com.alibaba.nacos.api.remote` of
//! alibaba/nacos.

mod api;
mod connection;
mod error;
mod link;
mod login;
mod message;
mod properties;
mod wire;

pub use self::error::NacosError;
pub use self::link::{Link, LinkState, Module, Push, Stats};
pub use self::message::{ConfigKey, NacosInstance, NacosService, PushedService};
pub use self::properties::NacosProperties;
