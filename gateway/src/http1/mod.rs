//! HTTP/1.1 as it is spoken to instances: heads read by httparse, bodies framed by RFC 9112, section 6,
//! and nothing between a request and its connection.

mod chunked;
mod client;
mod framing;
mod head;
mod io;
mod outgoing;
mod stream;
mod watch;

pub(crate) use self::client::{Answer, Connection, Granted, Lost};
pub(crate) use self::io::Io;
pub use self::stream::Cut;
