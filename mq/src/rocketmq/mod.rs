//! Apache RocketMQ 4.9 and 5, over its remoting protocol.
//!
//! A client of its own: what isolation needs of a consumer (each pull from an offset of ours, answers
//! told apart by queue, revocations before they happen, offsets that are acknowledged) no client for
//! Rust gives, see docs/messages.md. It never decides anything: it asks servers and reads answers.

mod answer;
mod broker;
mod cluster;
mod command;
mod connection;
mod giving_back;
mod known;
mod message;
mod pulling;
mod route;
mod routes;
mod slot;
mod transaction;

pub use self::broker::Broker;
pub use self::cluster::RocketMq;
pub use self::command::FrameError;
pub use self::connection::{Connection, RocketMqError};
pub use self::route::{TopicRoute, route};
pub use self::transaction::{Transaction, TransactionProducer};
