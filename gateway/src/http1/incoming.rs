use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::Io;
use super::framing::Framing;
use super::outgoing::Sink;
use super::stream::{Cut, READ, Rest, Stream};

/// What a client is told that waits with its body until it is asked for it (RFC 9110, section 15.2.1).
const INVITATION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection: its task reads requests and writes answers, and the body of a request is read by
/// whoever passes it on, which over HTTP/2 is another task.
///
/// It is locked while bytes are read or written, never while anybody waits.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) stream: Stream,
    /// What is still to be written of the invitation, where the client waits for one.
    invitation: &'static [u8],
    /// Counts requests: a body belongs to one of them.
    number: u64,
    /// Whether what is left of the body is read over by the connection itself.
    abandoned: bool,
    /// The connection's task, while somebody else may read the body.
    task: Option<Waker>,
}

impl Shared {
    pub(super) fn new(io: Io) -> Self {
        let stream = Stream::new(io);
        let (invitation, task) = (&[][..], None);
        Self(Arc::new(Mutex::new(Inner { stream, invitation, number: 0, abandoned: false, task })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with the body of a request; `expected` where its client waits to be asked for it.
    pub(super) fn begin(&self, framing: Framing, expected: bool) -> IncomingBody {
        let mut inner = self.lock();
        inner.number += 1;
        inner.abandoned = false;
        inner.stream.rest = Rest::of(framing);
        inner.invitation = if expected { INVITATION } else { &[] };
        let number = inner.number;
        drop(inner);
        IncomingBody { shared: self.clone(), number, ended: false }
    }

    /// Asks for nothing any more, where nobody has begun to ask: the answer says what becomes of it. Tells
    /// whether it is known where the request ends, so that another one may follow.
    pub(super) fn begin_answer(&self) -> bool {
        let mut inner = self.lock();
        let uninvited = inner.invitation.len() == INVITATION.len();
        if uninvited {
            inner.invitation = &[];
        }
        // Whoever was not asked for its body may send it or not (RFC 9110, section 10.1.1).
        let unknown = uninvited && !inner.stream.rest.is_over();
        !unknown && !matches!(inner.stream.rest, Rest::Unknown(_))
    }

    /// Ends when the client has gone. What it sends meanwhile is another request, of which some is read.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if !inner.stream.rest.is_over() {
            // Whoever reads the body learns it first.
            if !inner.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                inner.task = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        while inner.stream.read.is_empty() {
            match ready!(inner.stream.poll_read(cx, READ)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Takes the connection over, and what has been read of it.
    pub(super) fn into_parts(self) -> Option<(Io, BytesMut)> {
        let inner = Arc::into_inner(self.0)?;
        let stream = inner.into_inner().unwrap_or_else(PoisonError::into_inner).stream;
        Some((stream.io, stream.read))
    }
}

impl Inner {
    /// Has whoever still reads the body told that it does not come whole.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// Writes what is left of the invitation.
    fn poll_invite(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.invitation.is_empty() {
            let written =
                AsyncWrite::poll_write(Pin::new(&mut self.stream.io), cx, self.invitation);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.invitation = self.invitation.get(count..).unwrap_or_default(),
            }
        }
        AsyncWrite::poll_flush(Pin::new(&mut self.stream.io), cx)
    }
}

impl Sink for Shared {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        if !inner.invitation.is_empty() {
            ready!(inner.poll_invite(cx))?;
        }
        AsyncWrite::poll_write(Pin::new(&mut inner.stream.io), cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.lock().stream.io), cx)
    }
}

/// The body of a request, read from its connection as it is asked for.
#[derive(Debug)]
pub(crate) struct IncomingBody {
    shared: Shared,
    number: u64,
    /// Whether all of it has been read here.
    ended: bool,
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Self { shared, number, ended } = self.get_mut();
        if *ended {
            return Poll::Ready(None);
        }
        let mut inner = shared.lock();
        if inner.number != *number || inner.abandoned {
            return Poll::Ready(Some(Err(Cut::Unreadable("no end that is waited for"))));
        }
        if inner.invitation.len() == INVITATION.len() && !inner.stream.read.is_empty() {
            // Who has sent some of it waits for nothing.
            inner.invitation = &[];
        }
        if !inner.invitation.is_empty() {
            ready!(inner.poll_invite(cx)).map_err(Cut::Broken)?;
        }
        let frame = inner.stream.poll_frame(cx);
        let over = inner.stream.rest.is_over();
        *ended = over;
        let task = if over { inner.task.take() } else { None };
        drop(inner);
        // From here on it watches for the client.
        task.iter().for_each(Waker::wake_by_ref);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::with_exact(0);
        }
        let inner = self.shared.lock();
        if inner.number == self.number && !inner.abandoned {
            inner.stream.rest.size_hint()
        } else {
            SizeHint::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Somebody else would pass on what came so far as if it were all.
    #[tokio::test]
    async fn a_body_that_the_connection_reads_over_does_not_end_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let shared = Shared::new(Io::Tcp(listener.accept().await.unwrap().0));
        for is_abandoned in [false, true] {
            let mut body = shared.begin(Framing::Length(4), false);
            client.write_all(b"ab").await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
            if is_abandoned {
                shared.lock().abandon();
            }
            client.write_all(b"cd").await.unwrap();
            let rest = body.frame().await.unwrap();
            assert_eq!(rest.is_err(), is_abandoned, "{rest:?}");
            assert_eq!(body.is_end_stream(), !is_abandoned);
        }
        // Nor does one whose connection has gone on to another request.
        let mut body = shared.begin(Framing::Length(4), false);
        let _next = shared.begin(Framing::Length(4), false);
        assert!(body.frame().await.unwrap().is_err());
    }
}
