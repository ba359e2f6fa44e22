use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Certificates;

/// Whether connections begin with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    /// Every one must.
    Expected,
    /// None may.
    Unknown,
}

/// A place where the gateway listens.
pub(crate) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) proxy_protocol: bool,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.socket.local_addr())
    }
}

impl Listener {
    /// Starts listening.
    pub(crate) async fn bind(
        addr: SocketAddr,
        tls: Option<&Certificates>,
        proxy_protocol: ProxyProtocol,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(addr).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
        })?;
        let tls = tls.map(|certificates| TlsAcceptor::from(Arc::clone(&certificates.config())));
        let proxy_protocol = proxy_protocol == ProxyProtocol::Expected;
        Ok(Self { socket, tls, proxy_protocol })
    }

    /// Returns the address, with the port that was found.
    pub(crate) fn addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}
