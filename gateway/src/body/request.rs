use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use gray_propagation::Carriers;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{BodyError, Progress, without_lanes};
use crate::error::ClientError;
use crate::http1::IncomingBody;

/// What the body of a request comes from.
#[derive(Debug)]
pub(crate) enum ClientBody {
    /// There is none.
    None,
    /// A connection of HTTP/1.1.
    Http1(IncomingBody),
    /// A stream of HTTP/2.
    Http2(Incoming),
}

impl ClientBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        match self {
            Self::None => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(ClientError::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(ClientError::from),
        }
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: ClientBody,
    left: u64,
    carriers: Arc<Carriers>,
    progress: Progress,
    /// Ends when an instance has had time to say `100 Continue`; the body is held back until it does.
    gate: Option<Pin<Box<Sleep>>>,
    /// How long the client may be silent while the instance is not answering.
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// A body of at most `limit` bytes, whose trailers may not carry a lane in.
    pub(crate) fn new(inner: ClientBody, limit: u64, carriers: Arc<Carriers>) -> Self {
        Self {
            progress: Progress::new(!matches!(inner, ClientBody::None)),
            inner,
            left: limit,
            carriers,
            gate: None,
            idle: Duration::MAX,
            timer: None,
        }
    }

    /// Lets the client be silent for so long, except while the instance is answering.
    pub(crate) const fn may_stall(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// Takes the body, unless it is empty, and leaves an empty one.
    pub(crate) fn take(&mut self) -> Option<Self> {
        if self.is_end_stream() {
            return None;
        }
        let none = self.none();
        Some(std::mem::replace(self, none))
    }

    /// An empty body, of which the same is known.
    pub(crate) fn none(&self) -> Self {
        Self {
            inner: ClientBody::None,
            left: 0,
            carriers: Arc::clone(&self.carriers),
            progress: self.progress.clone(),
            gate: None,
            idle: self.idle,
            timer: None,
        }
    }

    /// Returns what is known about the body while it is being sent.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Ends when the client has been silent for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.progress.set_awaited(true);
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if !self.progress.is_answering() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + idle);
        }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = self.inner.poll_frame(cx) else {
            return self.poll_stalled(cx).map(|()| Some(Err(BodyError::Stalled)));
        };
        self.timer = None;
        self.progress.set_awaited(false);
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = without_lanes(frame?, &self.carriers);
        self.progress.add_piece();
        if let Some(data) = frame.data_ref() {
            match self.left.checked_sub(data.remaining() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Holds the body back until it is told to go on, or has had time to be told.
    pub(crate) fn hold_back(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        self.gate = Some(Box::pin(tokio::time::sleep(PATIENCE)));
    }

    /// Lets a body go that was held back.
    pub(crate) fn go_on(&mut self) {
        self.gate = None;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // An instance that answered otherwise never says so: the client is not told to go on.
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        let piece = ready!(self.poll_piece(cx));
        if let Some(Err(error)) = &piece {
            self.progress.fail(error);
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            ClientBody::None => true,
            ClientBody::Http1(body) => body.is_end_stream(),
            ClientBody::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            ClientBody::None => SizeHint::with_exact(0),
            ClientBody::Http1(body) => body.size_hint(),
            ClientBody::Http2(body) => body.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // Nobody asks the client for more.
        self.progress.set_awaited(false);
    }
}
