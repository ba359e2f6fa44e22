//! The heads of messages, as the gateway works on them: one text, and where the lines in it are.
//!
//! Whatever speaks HTTP/1.1 fills and writes them as they are; where HTTP/2 is spoken they are made from
//! hyper's own, and turned back into them.

mod answer;
mod call;
mod fields;
mod host;
mod read;
mod request;
mod swar;
mod target;

pub use self::answer::{AnswerHead, Answered};
pub use self::call::Call;
pub use self::fields::HeadFields;
pub(crate) use self::host::is_host;
pub(crate) use self::read::{Wrong, is_token, text_end};
pub use self::request::RequestHead;
pub use self::target::RequestTarget;
