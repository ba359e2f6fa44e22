//! Keeps the messages of a lane with the consumers of that lane, while lanes come and go.
//!
//! Whether a consumer may handle a message is decided by [`Ownership`] alone: a table that says from
//! which offset of which queue on a lane's messages belong to the consumers of the lane, and from
//! which on to those of base. Whoever is alive, and whatever the rules say, can only ask for the table
//! to be changed; how it is changed so that no message is lost or handled twice is written in
//! [`Ownership`], [`Standing`] and [`Lease`], and explored in `tests/switch`.
//!
//! An application consumes by a [`Consumer`], over any [`MessageBroker`] there is a client for. The
//! table is kept in a [`StateStore`].

mod audit;
mod broker;
mod consumer;
mod group;
mod message;
mod messaging;
mod ownership;
mod producer;
#[cfg(feature = "rocketmq")]
pub mod rocketmq;
mod seats;
mod settings;
mod status;
mod store;

pub use self::audit::{Finding, Severity, audit};
pub use self::broker::{Attendance, Filter, MessageBroker, PullRequest, Pulled, Subscription};
pub use self::consumer::{
    Consumer, ConsumerError, ConsumerProperties, Count, Counts, Delivery, Filtering, From,
    HandlerError, Order, Origin, Outcome, Reading,
};
pub use self::group::{GroupName, InvalidGroup};
pub use self::message::{Message, Receipt, ReceivedMessage, Unreadable};
pub use self::messaging::{Messaging, OwnStatus};
pub use self::ownership::{
    Absence, ConnectionId, Duty, Fence, FenceError, Fences, Intent, InvalidQueue, Lease, Member,
    MemberId, Owner, Ownership, QueueKey, Side, Standing, UnknownBroker, UnknownMember, Verdict,
};
pub use self::producer::{MessageSink, Producer, SendError};
pub use self::seats::{Seat, Seats};
pub use self::settings::{
    ConsumeMode, GroupMessages, MessageSettings, MessagesOverride, MessagesProperties, Settings,
};
pub use self::status::{MemberStatus, QueueStatus, SideStatus, TopicState, TopicStatus, status};
pub use self::store::SqlStore;
pub use self::store::{
    ChangeError, Entry, FindError, ForgetError, Ledger, MemoryStore, OpenError, StateStore,
    StoreError, open_store,
};
pub use self::store::{NacosStore, NotCompared};
