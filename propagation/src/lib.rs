//! What travels with a request, from the gateway through every service and message.
//!
//! A [`GrayStatus`] says which versions of a service may serve the request; [`Carriers`] write it
//! onto the next hop and keep a client from forging it. A [`Context`] stays with the task that serves
//! the request ([`scope`], [`current`]) and with what that task starts. This crate knows no rule, no
//! instance and no transport beyond a header map.
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
mod context;
mod field_name;
mod fields;
mod hop;
mod lane;
mod message;
mod path;
mod reserved;
mod signed;
mod status;
mod task;
mod traceparent;

pub use self::carriers::{Carriers, GRAY_HEADER};
pub use self::context::Context;
pub use self::field_name::{FieldName, field};
pub use self::fields::{Fields, Lines, lines, visible};
pub use self::hop::{HOP_HEADER, HopTag};
pub use self::lane::{InvalidLane, Lane};
pub use self::message::{MessageCarrier, MessageProperties};
pub use self::path::{Hop, PATH_HEADER, Probe};
pub use self::reserved::may_carry;
pub use self::signed::{InvalidKey, InvalidTag, MAX_AGE, SignedTag, TAG_HEADER, TagKey, TagKeys};
pub use self::status::{GrayStatus, UnknownStatus};
pub use self::task::{
    Carried, InContext, current, current_status, in_current, scope, spawn, spawn_blocking,
    sync_scope,
};
pub use self::traceparent::{TRACEPARENT, TRACESTATE};
