//! Who owns a message, and how that changes while consumers run.

mod fences;
mod names;
mod standing;
mod table;

pub use self::fences::{Fence, Fences, Owner};
pub use self::names::{InvalidQueue, MemberId, QueueKey, Side};
pub use self::standing::{Duty, Standing, Verdict};
pub use self::table::{FenceError, Intent, Member, Ownership, UnknownMember};
