//! Who owns a message, and how that changes while consumers run.

mod absence;
mod fences;
mod lease;
mod names;
mod refusal;
mod standing;
mod table;

pub use self::absence::Absence;
pub use self::fences::{Fence, Fences, Owner};
pub use self::lease::{ConnectionId, Lease};
pub use self::names::{InvalidQueue, MemberId, QueueKey, Side};
pub use self::refusal::{FenceError, UnknownBroker, UnknownMember};
pub use self::standing::{Duty, Standing, Verdict};
pub use self::table::{Intent, Member, Ownership};
