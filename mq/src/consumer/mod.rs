//! Consumers that handle the messages of their lane, and no others.

mod assignment;
mod attendance;
mod beginning;
mod committing;
#[allow(clippy::module_inception, reason = "the public type's own file")]
mod consumer;
mod core;
mod counts;
mod drain;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
mod handling;
mod liveness;
mod membership;
mod place;
mod progress;
mod reader;
mod steering;
#[cfg(test)]
mod warnings;

pub use self::consumer::{Consumer, ConsumerError};
pub use self::core::{ConsumerProperties, Delivery, Filtering, From, HandlerError, Order};
pub use self::counts::{Count, Counts, Origin, Outcome, Reading};
