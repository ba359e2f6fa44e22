use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{BodyError, Progress};
use crate::http1::{Answer, Io, Lost};
use crate::upstream::{Lease, UpstreamError};

/// The body of an instance's answer, with what it occupies until its end.
#[derive(Debug)]
pub(crate) struct InstanceBody {
    pub(super) inner: Inner,
    idle: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// How the request goes on meanwhile, and how far it had come when the timer was set.
    progress: Progress,
    seen: u64,
}

/// What an instance's answer comes from.
#[derive(Debug)]
pub(crate) enum Inner {
    /// A connection of its own, which is given back at its end.
    Http1(Answer, Lease),
    /// A connection that others share.
    Http2(Incoming),
    /// It has ended.
    Ended,
}

impl Inner {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1(answer, _) => Pin::new(answer).poll_frame(cx).map_err(|lost| match lost {
                Lost::Body(error) => error,
                lost => UpstreamError::of(lost).into(),
            }),
            Self::Http2(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map_err(|error| UpstreamError::Http2(error).into()),
            Self::Ended => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(answer, _) => answer.is_end_stream(),
            Self::Http2(incoming) => incoming.is_end_stream(),
            Self::Ended => true,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(answer, _) => answer.size_hint(),
            Self::Http2(incoming) => incoming.size_hint(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

impl InstanceBody {
    /// A body that may stall for so long (up to twice that where the
    /// request went on for a while) and must have come by the deadline.
    pub(crate) fn new(
        inner: Inner,
        idle: Duration,
        deadline: Option<Instant>,
        progress: Progress,
    ) -> Self {
        progress.set_answering(true);
        Self { inner, idle, deadline, timer: None, progress, seen: 0 }
    }

    /// Takes the connection that the instance has agreed to use otherwise, and what has come on it already.
    pub(crate) fn upgraded(&mut self) -> Option<(Io, Bytes)> {
        if !matches!(self.inner, Inner::Http1(Answer::Upgraded(..), _)) {
            return None;
        }
        match std::mem::replace(&mut self.inner, Inner::Ended) {
            Inner::Http1(Answer::Upgraded(io, read), _) => Some((*io, read)),
            _ => None,
        }
    }

    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.inner.poll_frame(cx) {
            // However much there is to come.
            Poll::Ready(Some(Ok(_))) if self.is_late() => {
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
            Poll::Ready(frame) => {
                self.timer = None;
                if frame.is_none() {
                    self.finish();
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                ready!(self.poll_stalled(cx));
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
    }

    /// Tells whether all of it should have come.
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Ends when nothing has come or gone for too long, or all should have come.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let until = |idle: Duration| {
            let stalled = Instant::now() + idle;
            deadline.map_or(stalled, |deadline| deadline.min(stalled))
        };
        let (idle, pieces) = (self.idle, self.progress.pieces());
        let timer = self.timer.get_or_insert_with(|| {
            self.seen = pieces;
            Box::pin(tokio::time::sleep_until(until(idle)))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if late || self.seen == pieces {
                return Poll::Ready(());
            }
            self.seen = pieces;
            timer.as_mut().reset(until(idle));
        }
    }

    pub(super) fn finish(&mut self) {
        self.progress.set_answering(false);
        if let Inner::Http1(answer, lease) = std::mem::replace(&mut self.inner, Inner::Ended)
            && let Some(connection) = answer.into_connection()
        {
            lease.give_back(connection);
        }
    }
}

impl Drop for InstanceBody {
    fn drop(&mut self) {
        self.progress.set_answering(false);
    }
}
