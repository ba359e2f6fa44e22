//! Keeps the messages of a lane with the consumers of that lane, while lanes come and go.
//!
//! Whether a consumer may handle a message is decided by [`Ownership`] alone: a table that says from
//! which offset of which queue on a lane's messages belong to the consumers of the lane, and from
//! which on to those of base. Whoever is alive, and whatever the rules say, can only ask for the table
//! to be changed; how it is changed so that no message is lost or handled twice is written in
//! [`Ownership`] and [`Standing`], and explored in `tests/switch`.

mod ownership;
#[cfg(feature = "rocketmq")]
pub mod rocketmq;

pub use self::ownership::{
    Duty, Fence, FenceError, Fences, Intent, InvalidQueue, Member, MemberId, Owner, Ownership,
    QueueKey, Side, Standing, UnknownMember, Verdict,
};
