use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::handle::{Gateway, Peer};
use super::signs::{Signs, Streams};
use super::sniff::{Spoken, sniff};
use super::taken::Taken;
use super::{Listener, Stop, proxy_protocol};
use crate::Error;
use crate::body::{ClientBody, ResponseBody};
use crate::head::{Answered, RequestHead};
use crate::http1::{self, Handler, IncomingBody, Io, Upgrading};
use crate::properties::LimitProperties;

/// Serves connections until it is told to stop.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    gateway: Arc<Gateway>,
    limits: LimitProperties,
    room: Arc<Semaphore>,
    stop: Stop,
}

/// Counts a connection for as long as it is there.
struct Counted {
    gateway: Arc<Gateway>,
    _room: OwnedSemaphorePermit,
}

impl Counted {
    fn new(gateway: &Arc<Gateway>, room: OwnedSemaphorePermit) -> Self {
        gateway.metrics().connections.fetch_add(1, Ordering::Relaxed);
        Self { gateway: Arc::clone(gateway), _room: room }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gateway.metrics().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    pub(crate) fn new(gateway: Arc<Gateway>, limits: LimitProperties, stop: Stop) -> Self {
        let room = Arc::new(Semaphore::new(limits.connections));
        Self { gateway, limits, room, stop }
    }

    /// Accepts connections from a listener until it is told to stop.
    pub(crate) async fn run(self, listener: Listener) {
        const PAUSE: Duration = Duration::from_millis(50);
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                biased;
                () = server.stop.accepting.cancelled() => return,
                accepted = listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => server.take(stream, peer, &listener),
                // Out of file descriptors, most likely: others must end first.
                Err(error) => {
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection in a task of its own. Most of them are idle and speak HTTP/1.1 in the clear, and have
    /// no room for anything else.
    fn take(self: &Arc<Self>, stream: TcpStream, addr: SocketAddr, listener: &Listener) {
        let metrics = self.gateway.metrics();
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let counted = Counted::new(&self.gateway, room);
        let (server, named) = (Arc::clone(self), listener.proxy_protocol);
        match listener.tls.clone() {
            Some(tls) => self.stop.spawn(async move {
                note(addr, server.serve_tls(stream, addr, named, &tls).await, counted);
            }),
            None => self.stop.spawn(async move {
                note(addr, server.serve_plain(stream, addr, named).await, counted);
            }),
        }
    }

    /// Gets a connection ready, and returns whom it is from.
    async fn begin(
        &self,
        stream: &mut TcpStream,
        addr: SocketAddr,
        named: bool,
    ) -> io::Result<SocketAddr> {
        stream.set_nodelay(true)?;
        if !named {
            return Ok(addr);
        }
        let reading = Box::pin(proxy_protocol::read(stream));
        let read = tokio::time::timeout(self.limits.head_time.0, reading).await??;
        Ok(read.unwrap_or(addr))
    }

    async fn serve_plain(
        &self,
        mut stream: TcpStream,
        addr: SocketAddr,
        named: bool,
    ) -> io::Result<()> {
        let addr = self.begin(&mut stream, addr, named).await?;
        let spoken = tokio::select! {
            biased;
            spoken = sniff(&stream, self.limits.head_time.0) => spoken?,
            () = self.stop.accepting.cancelled() => return Ok(()),
        };
        let peer = Peer::new(addr, "http");
        match spoken {
            Spoken::Http1 => self.serve1(Io::Tcp(stream), peer).await,
            Spoken::Http2 => Box::pin(self.serve2(stream, peer)).await,
        }
    }

    async fn serve_tls(
        &self,
        mut stream: TcpStream,
        addr: SocketAddr,
        named: bool,
        tls: &tokio_rustls::TlsAcceptor,
    ) -> io::Result<()> {
        let addr = self.begin(&mut stream, addr, named).await?;
        let shaking = Box::pin(tls.accept(stream));
        let stream = tokio::time::timeout(self.limits.head_time.0, shaking).await??;
        let peer = Peer::new(addr, "https");
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Box::pin(self.serve2(stream, peer)).await,
            _ => self.serve1(Io::Tls(Box::new(stream.into())), peer).await,
        }
    }

    async fn serve1(&self, io: Io, peer: Peer) -> io::Result<()> {
        let handler = Answering { gateway: &self.gateway, peer };
        let served = http1::serve(io, &self.limits, &handler, &self.stop.accepting).await;
        served.map_err(io::Error::other)
    }

    async fn serve2<S>(&self, stream: S, peer: Peer) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (gateway, peer) = (Arc::clone(&self.gateway), Arc::new(peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let (gateway, peer) = (Arc::clone(&gateway), Arc::clone(&peer));
            async move {
                let (parts, body) = request.into_parts();
                let (head, body) = (Box::new(RequestHead::from(&parts)), ClientBody::Http2(body));
                // What it was made from is of no use any more.
                drop(parts);
                let handling = AssertUnwindSafe(gateway.handle(head, body, &peer, None));
                let answered = handling.catch_unwind().await;
                let answered = answered.unwrap_or_else(|_| gateway.refuse(&Error::Panicked, &peer));
                Ok::<_, Infallible>(answered.map(|body| Taken::current().of(body)).into_response())
            }
        });
        let signs = Signs::new(self.limits.write_time.0);
        let io = TokioIo::new(signs.of_bytes(stream));
        let http = self.http2(signs.of_streams());
        let mut connection = pin!(http.serve_connection(io, service));
        tokio::select! {
            served = connection.as_mut() => return served.map_err(io::Error::other),
            () = self.stop.accepting.cancelled() => {},
            () = signs.abused() => {
                return Err(io::Error::other("the client gives up nearly all that it asks for"));
            },
            () = signs.idle(self.limits.head_time.0, self.limits.keep_alive.0) => {},
        }
        connection.as_mut().graceful_shutdown();
        // It ends when the client has acknowledged that, which one that is frozen never does.
        tokio::select! {
            served = connection.as_mut() => served.map_err(io::Error::other),
            () = signs.abused() => Ok(()),
            () = signs.gone() => Ok(()),
        }
    }

    fn http2(&self, streams: Streams) -> http2::Builder<Streams> {
        const WINDOW: u32 = 1 << 20;
        let head = u32::try_from(self.limits.head_size.0).unwrap_or(u32::MAX);
        let mut http = http2::Builder::new(streams);
        http.timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(head)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(self.limits.keep_alive.0)
            .keep_alive_timeout(self.limits.head_time.0);
        http
    }
}

/// Takes note of how a connection ended, which counts until then.
fn note(addr: SocketAddr, ended: io::Result<()>, counted: Counted) {
    if let Err(error) = ended {
        debug!(%addr, %error, "connection ended");
    }
    drop(counted);
}

/// Answers the requests of one connection of HTTP/1.1.
struct Answering<'a> {
    gateway: &'a Gateway,
    peer: Peer,
}

impl Handler for Answering<'_> {
    type Body = ResponseBody;

    async fn handle(
        &self,
        head: Box<RequestHead>,
        body: Option<IncomingBody>,
        upgrading: Option<Upgrading>,
    ) -> Answered<ResponseBody> {
        let body = body.map_or(ClientBody::None, ClientBody::Http1);
        self.gateway.handle(head, body, &self.peer, upgrading).await
    }

    fn refuse(&self, error: Error) -> Answered<ResponseBody> {
        tracing::debug!(peer = %self.peer.address.ip, %error, "no request");
        self.gateway.refuse(&error, &self.peer)
    }
}
