//! The services of the Spring Cloud design's demo: order-app, which calls user-app.
//!
//! Each answers with its own port and version, so that curl shows which one served. A service passes
//! the lane on that it was called in; without one it stays in its own.

mod caller;
mod order;
mod service;
mod user;

pub use self::caller::Caller;
pub use self::order::order_app;
pub use self::service::{Identity, serve};
pub use self::user::user_app;
