//! What a gateway adds to and takes from the headers of a message.

mod alias;
mod forwarded;
mod hop;
mod request_id;
mod trailer;
mod via;

pub(crate) use self::forwarded::{Address, Arrival, forward, said_of};
pub(crate) use self::hop::{is_upgrade, strip_request, strip_response};
pub(crate) use self::request_id::RequestId;
pub(crate) use self::trailer::strip_trailers;
pub(crate) use self::via::{passes, sign};
