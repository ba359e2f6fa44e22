//! The harness of the system tests: real processes on 127.0.0.1, ended when a test ends.

mod database;
mod gateway;
mod nacos;
mod ports;
mod process;
mod relay;
mod rocketmq;
mod spring;
mod stand_in;
mod stub;
mod verify;

pub use self::database::{Database, Sql};
pub use self::gateway::Gateway;
pub use self::nacos::{Kind, Nacos};
pub use self::ports::free_port;
pub use self::process::{Process, binary, eventually};
pub use self::relay::{Relay, Way};
pub use self::rocketmq::{Release, RocketMq};
pub use self::spring::spring_service;
pub use self::stand_in::{Prepared, StandIn};
pub use self::stub::{Echo, Stub};
pub use self::verify::{scene_documents, verify};
