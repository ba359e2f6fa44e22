//! Takes connections from clients, and requests from connections.

mod accept;
mod handle;
mod listener;
mod proxy_protocol;
mod signs;
mod sniff;
mod stop;
mod taken;
mod tls;

pub(crate) use self::accept::Server;
pub(crate) use self::handle::{Gateway, Policy};
pub(crate) use self::listener::{Listener, ProxyProtocol};
pub(crate) use self::stop::Stop;
pub(crate) use self::tls::Certificates;
