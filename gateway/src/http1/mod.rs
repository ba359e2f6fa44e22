//! HTTP/1.1, towards clients and towards instances: heads read and bodies framed to the letter of
//! RFC 9112, and nothing between a request and its connection.

mod answer_head;
mod chunked;
mod client;
mod date;
mod framing;
mod head;
mod incoming;
mod io;
mod large;
mod outgoing;
mod request_head;
mod server;
mod stream;
mod text;
mod watch;

pub(crate) use self::client::{Answer, Connection, Lost};
pub(crate) use self::framing::settle_length;
pub(crate) use self::incoming::IncomingBody;
pub(crate) use self::io::Io;
pub(crate) use self::server::{Handler, Upgraded, Upgrading, serve};
pub use self::stream::Cut;
pub(crate) use self::watch::Watch;
