//! What travels with a request, from the gateway through every service and message.
//!
//! A [`GrayStatus`] says which versions of a service may serve the request; [`Carriers`] write it
//! onto the next hop and keep a client from forging it. This crate knows no rule, no instance and
//! no transport beyond a header map.
//!
//! ```
//! use gray_propagation::{Carriers, GrayStatus, Lane};
//!
//! let mut headers = http::HeaderMap::new();
//! Carriers::default().inject(GrayStatus::Gray(Lane::GRAY), &mut headers);
//! assert_eq!(headers["gray"], "GRAY");
//! ```

mod baggage;
mod carriers;
mod lane;
mod status;
mod traceparent;

pub use self::carriers::{Carriers, GRAY_HEADER};
pub use self::lane::{InvalidLane, Lane};
pub use self::status::{GrayStatus, UnknownStatus};
pub use self::traceparent::TRACEPARENT;
