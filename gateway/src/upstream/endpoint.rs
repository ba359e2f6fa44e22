use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::connect::connect;
use super::{Target, UpstreamTls, Wire};
use crate::body::RequestBody;
use crate::http1::{Connection, Io};

/// The connections to one instance.
#[derive(Debug)]
pub(super) struct Endpoint {
    idle: ArrayQueue<Connection>,
    /// The one HTTP/2 connection. The lock is held while it is made, so that it is made once.
    shared: Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// Whether TLS agreed on HTTP/1.1.
    http1_only: AtomicBool,
}

/// A connection that may take a request now.
#[derive(Debug)]
pub(super) enum Sender {
    Http1 { connection: Connection, reused: bool },
    Http2 { sender: http2::SendRequest<RequestBody>, reused: bool },
}

impl Sender {
    /// Whether it has carried a request before.
    pub(super) const fn is_reused(&self) -> bool {
        match self {
            Self::Http1 { reused, .. } | Self::Http2 { reused, .. } => *reused,
        }
    }
}

impl Endpoint {
    pub(super) fn new(idle: usize) -> Self {
        Self {
            idle: ArrayQueue::new(idle.max(1)),
            shared: Mutex::new(None),
            http1_only: AtomicBool::new(false),
        }
    }

    /// Returns an idle connection, if there is one.
    pub(super) fn idle(&self) -> Option<Sender> {
        while let Some(mut connection) = self.idle.pop() {
            // One that the instance has closed meanwhile is no failure of it.
            if connection.is_alive() {
                return Some(Sender::Http1 { connection, reused: true });
            }
        }
        None
    }

    /// Makes a connection; the one over HTTP/2 only where there is none.
    pub(super) async fn connect(&self, to: &Target, tls: &UpstreamTls) -> std::io::Result<Sender> {
        if to.wire == Wire::Http1 {
            let stream = connect(to.addr, to.timeouts.connect.0).await?;
            return Ok(fresh(Io::Tcp(stream)));
        }
        let connecting = self.checkout_shared(to, tls);
        tokio::time::timeout(to.timeouts.connect.0, connecting).await?
    }

    /// Returns the shared connection, or makes it; an instance that turns out to speak HTTP/1.1 gets
    /// connections of its own from then on.
    async fn checkout_shared(&self, to: &Target, tls: &UpstreamTls) -> std::io::Result<Sender> {
        if self.http1_only.load(Ordering::Relaxed) {
            return connect_shared(to, tls).await;
        }
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Sender::Http2 { sender: sender.clone(), reused: true });
        }
        let sender = connect_shared(to, tls).await?;
        match &sender {
            Sender::Http2 { sender, .. } => *shared = Some(sender.clone()),
            Sender::Http1 { .. } => self.http1_only.store(true, Ordering::Relaxed),
        }
        drop(shared);
        Ok(sender)
    }
}

async fn connect_shared(to: &Target, tls: &UpstreamTls) -> std::io::Result<Sender> {
    let stream = connect(to.addr, to.timeouts.connect.0).await?;
    let Wire::Tls(service) = &to.wire else { return handshake2(stream).await };
    match tls.handshake(service, stream).await? {
        (stream, true) => handshake2(stream).await,
        (stream, false) => Ok(fresh(Io::Tls(Box::new(stream.into())))),
    }
}

fn fresh(io: Io) -> Sender {
    Sender::Http1 { connection: Connection::new(io), reused: false }
}

async fn handshake2<S>(stream: S) -> std::io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    const WINDOW: u32 = 1 << 20;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(hyper_util::rt::TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an instance ended");
        }
    });
    Ok(Sender::Http2 { sender, reused: false })
}

/// Where a connection goes that an answer still occupies.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Endpoint>);

impl Lease {
    pub(super) const fn of(endpoint: Arc<Endpoint>) -> Self {
        Self(endpoint)
    }

    /// Makes a connection available again.
    pub(crate) fn give_back(self, connection: Connection) {
        // A full queue closes the connection, which is what a full queue is for.
        let _ = self.0.idle.push(connection);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Tokio tells a task that has done much to wait, which once looked like a connection that is alive.
    #[tokio::test]
    async fn however_many_connections_have_ended_none_of_them_is_used() {
        const MANY: usize = 200;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Endpoint::new(MANY));
        for _ in 0..MANY {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            // It is known to be readable before it is asked.
            drop(listener.accept().await.unwrap());
            stream.readable().await.unwrap();
            let connection = Connection::new(Io::Tcp(stream));
            Lease::of(Arc::clone(&endpoint)).give_back(connection);
        }
        assert_eq!(endpoint.idle.len(), MANY);
        assert!(endpoint.idle().is_none());
        assert!(endpoint.idle.is_empty());
    }
}
