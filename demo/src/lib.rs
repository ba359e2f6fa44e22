//! The services of two demos: user-app and order-app, which calls it (seed S1), and the chain
//! A -> B -> C (seed S2).
//!
//! Each says which version of it answered and in which lane, so that a person with curl can see where
//! a request went.

mod chain;
mod job;
mod metrics;
mod order;
mod service;
mod user;

pub use gray_starter::{Starter, StarterProperties};

pub use self::chain::{Astray, GrpcLink, Link, Messages, Transport, chain};
pub use self::job::{ask, job};
pub use self::metrics::metrics;
pub use self::order::order_app;
pub use self::service::Identity;
pub use self::user::user_app;
