use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::Io;
use super::text::Text;

/// Pieces up to this size are put together with what stands before them, and written at once; others are
/// written from where they are.
pub(super) const SMALL: usize = 8 << 10;

/// Where bytes go.
pub(super) trait Sink {
    /// Writes some of them.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>>;

    /// Sends what was written, where that waits for more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>>;
}

impl Sink for Io {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(self), cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(self), cx)
    }
}

/// A message on its way: what of it has not been written yet.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    /// What is written next.
    buffer: Text,
    /// A piece of the body that is written after it.
    piece: Bytes,
    /// What is still to come; `None` when all of it has.
    body: Option<B>,
    chunked: bool,
    /// Whether fields are sent behind it.
    trailers: bool,
    /// How many bytes have been written.
    written: u64,
    /// Whether the connection takes no more for now.
    stuck: bool,
}

impl<B> Outgoing<B> {
    /// A message whose head is written into `head` already.
    pub(super) const fn new(head: Text, body: Option<B>, chunked: bool) -> Self {
        let piece = Bytes::new();
        Self { buffer: head, piece, body, chunked, trailers: true, written: 0, stuck: false }
    }

    /// Leaves out what may stand behind the body.
    pub(super) fn without_trailers(self) -> Self {
        Self { trailers: false, ..self }
    }

    /// Nothing.
    pub(super) fn none() -> Self {
        Self::new(Text::default(), None, false)
    }

    /// Returns how many bytes have been written.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Tells whether it is the connection that is waited for, rather than more of the body.
    pub(super) const fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The body, while some of it is still to come.
    pub(super) const fn body(&mut self) -> Option<&mut B> {
        self.body.as_mut()
    }

    /// Tells whether all of it has been written.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.buffer.is_empty() && self.piece.is_empty()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// Writes what there is, until all of it has been written.
    ///
    /// # Errors
    ///
    /// The outer where the body ends early, the inner where the connection does: its other end may have
    /// answered all the same.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
    ) -> Poll<Result<std::io::Result<()>, B::Error>> {
        loop {
            let more = self.gather(cx)?;
            self.stuck = true;
            if let Err(error) = ready!(self.poll_drain(cx, to)) {
                return Poll::Ready(Ok(Err(error)));
            }
            if self.is_done() {
                // Whoever writes next needs the memory.
                self.buffer = Text::default();
                return to.poll_flush(cx).map(Ok);
            }
            self.stuck = false;
            if !more && self.buffer.is_empty() {
                // What is written over TLS may wait to be sent.
                return match to.poll_flush(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Ok(Err(error))),
                    _ => Poll::Pending,
                };
            }
        }
    }

    /// Writes what has been gathered.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
    ) -> Poll<std::io::Result<()>> {
        while !self.buffer.is_empty() {
            let count = ready!(to.poll_write(cx, self.buffer.left()))?;
            self.buffer.advance(some(count)?);
            self.written += count as u64;
        }
        while !self.piece.is_empty() {
            let count = ready!(to.poll_write(cx, &self.piece))?;
            self.piece.advance(some(count)?);
            self.written += count as u64;
            if self.piece.is_empty() && self.chunked {
                self.buffer.push(b"\r\n");
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes pieces of the body for as long as they can be put together; tells whether there may be more
    /// now.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, B::Error> {
        while self.piece.is_empty() && self.buffer.left().len() < SMALL {
            let Some(body) = &mut self.body else { return Ok(true) };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(false) };
            match frame.transpose()?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => self.take(data),
                // Nothing comes behind trailers.
                Some(Err(frame)) => self.finish(frame.trailers_ref()),
                None => self.finish(None),
            }
        }
        Ok(true)
    }

    fn take(&mut self, data: Bytes) {
        // An empty chunk would end the body.
        if data.is_empty() {
            return;
        }
        if self.chunked {
            let size = format!("{:x}\r\n", data.len());
            self.buffer.push(size.as_bytes());
        }
        if data.len() > SMALL {
            self.piece = data;
            return;
        }
        self.buffer.push(&data);
        if self.chunked {
            self.buffer.push(b"\r\n");
        }
    }

    fn finish(&mut self, trailers: Option<&http::HeaderMap>) {
        self.body = None;
        if !self.chunked {
            return;
        }
        self.buffer.push(b"0\r\n");
        for (name, value) in trailers.filter(|_| self.trailers).into_iter().flatten() {
            self.buffer.push(name.as_str().as_bytes());
            self.buffer.push(b": ");
            self.buffer.push(value.as_bytes());
            self.buffer.push(b"\r\n");
        }
        self.buffer.push(b"\r\n");
    }
}

/// A connection that takes nothing is none.
fn some(count: usize) -> std::io::Result<usize> {
    if count == 0 { Err(std::io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}
