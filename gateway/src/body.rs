//! Bodies on their way through the gateway: passed on piece by piece, never collected.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use gray_propagation::Carriers;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::headers;
use crate::observe::Ending;
use crate::upstream::Lease;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is larger than allowed.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// Nothing came for too long.
    #[error("the body stalled")]
    Stalled,
    /// The connection that it came on failed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// What is known about a request while its body is being sent.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pieces: AtomicU64,
    /// Whether the next piece is still to come from the client.
    awaited: AtomicBool,
    /// Whether the instance is answering: while its answer goes on the client may be silent, as with
    /// streams both ways.
    answering: AtomicBool,
    /// Why the body ended early, where it did: what is sent over HTTP/2 does not say.
    failed: OnceLock<Blame>,
}

/// Whose fault it is that a request's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It is larger than allowed.
    TooLarge,
    /// The client did not go on.
    Stalled,
    /// The client's connection failed.
    Broken,
}

impl Progress {
    /// Returns a number that grows with each piece that was passed on.
    fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// Returns why the body ended early, if it did.
    pub(crate) fn failed(&self) -> Option<Blame> {
        self.failed.get().copied()
    }

    fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    fn set_answering(&self, answering: bool) {
        self.answering.store(answering, Ordering::Relaxed);
    }

    fn fail(&self, error: &BodyError) {
        let blame = match error {
            BodyError::TooLarge => Blame::TooLarge,
            BodyError::Stalled => Blame::Stalled,
            BodyError::Broken(_) => Blame::Broken,
        };
        // The first reason is the one that counts.
        let _ = self.failed.set(blame);
        self.set_awaited(false);
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` for a copy of a request that has no body.
    inner: Option<Incoming>,
    left: u64,
    carriers: Arc<Carriers>,
    progress: Arc<Progress>,
    gate: Option<Gate>,
    /// How long the client may be silent while the instance is not answering.
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Holds a body back until the instance says `100 Continue`, or has had time to.
#[derive(Debug)]
struct Gate {
    /// `None` once nobody can say it any more.
    opened: Option<oneshot::Receiver<()>>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    /// An instance that answered otherwise never opens it: the client is not told to go on.
    fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        match self.opened.as_mut().map(|opened| Pin::new(opened).poll(cx)) {
            Some(Poll::Ready(Ok(()))) => return true,
            Some(Poll::Ready(Err(_))) => self.opened = None,
            Some(Poll::Pending) | None => {}
        }
        self.patience.as_mut().poll(cx).is_ready()
    }
}

impl RequestBody {
    /// A body of at most `limit` bytes, whose trailers may not carry a lane in.
    pub(crate) fn new(inner: Incoming, limit: u64, carriers: Arc<Carriers>) -> Self {
        Self {
            inner: Some(inner),
            left: limit,
            carriers,
            progress: Arc::default(),
            gate: None,
            idle: Duration::MAX,
            timer: None,
        }
    }

    /// Lets the client be silent for so long, except while the instance is answering.
    pub(crate) const fn may_stall(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// Copies a body that is empty; there is no copy of any other.
    pub(crate) fn copy_of_none(&self) -> Option<Self> {
        let none = || Self {
            inner: None,
            left: 0,
            carriers: Arc::clone(&self.carriers),
            progress: Arc::clone(&self.progress),
            gate: None,
            idle: self.idle,
            timer: None,
        };
        self.is_end_stream().then(none)
    }

    /// Returns what is known about the body while it is being sent.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Ends when the client has been silent for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.progress.set_awaited(true);
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if !self.progress.answering.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + idle);
        }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
            return self.poll_stalled(cx).map(|()| Some(Err(BodyError::Stalled)));
        };
        self.timer = None;
        self.progress.set_awaited(false);
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = without_lanes(frame?, &self.carriers);
        self.progress.pieces.fetch_add(1, Ordering::Relaxed);
        if let Some(data) = frame.data_ref() {
            match self.left.checked_sub(data.remaining() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Holds the body back until what is returned is told, or has had its time.
    pub(crate) fn hold_back(&mut self) -> oneshot::Sender<()> {
        const PATIENCE: Duration = Duration::from_secs(3);
        let (open, opened) = oneshot::channel();
        self.gate =
            Some(Gate { opened: Some(opened), patience: Box::pin(tokio::time::sleep(PATIENCE)) });
        open
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            if !gate.is_open(cx) {
                return Poll::Pending;
            }
            self.gate = None;
        }
        let piece = ready!(self.poll_piece(cx));
        if let Some(Err(error)) = &piece {
            self.progress.fail(error);
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // Nobody asks the client for more.
        self.progress.set_awaited(false);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    /// Taken when the body ends; dropped with the body where it is cut short.
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Source {
    Instance(InstanceBody, Arc<Carriers>),
    Own(Full<Bytes>),
}

/// The body of an instance's answer, with what it occupies until its end.
#[derive(Debug)]
pub(crate) struct InstanceBody {
    inner: Incoming,
    lease: Option<Lease>,
    idle: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// How the request goes on meanwhile, and how far it had come when the timer was set.
    progress: Arc<Progress>,
    seen: u64,
}

impl InstanceBody {
    /// A body that occupies a lease until its end, may stall for so long (up to twice that where the
    /// request went on for a while) and must have come by the deadline.
    pub(crate) fn new(
        inner: Incoming,
        lease: Lease,
        idle: Duration,
        deadline: Option<Instant>,
        progress: Arc<Progress>,
    ) -> Self {
        progress.set_answering(true);
        Self { inner, lease: Some(lease), idle, deadline, timer: None, progress, seen: 0 }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                if frame.is_none() {
                    self.finish();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Poll::Pending => {
                ready!(self.poll_stalled(cx));
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
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

    fn finish(&mut self) {
        self.progress.set_answering(false);
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for InstanceBody {
    fn drop(&mut self) {
        self.progress.set_answering(false);
    }
}

impl ResponseBody {
    /// The body of an instance's answer, whose trailers carry no lane out.
    pub(crate) const fn of(body: InstanceBody, carriers: Arc<Carriers>) -> Self {
        Self { source: Source::Instance(body, carriers), ending: None }
    }

    /// A body of the gateway's own.
    pub(crate) const fn of_own(body: Full<Bytes>) -> Self {
        Self { source: Source::Own(body), ending: None }
    }

    /// Tells someone when the body has ended.
    ///
    /// A body without content is never asked for its first piece, so it has ended already.
    pub(crate) fn with_ending(mut self, ending: Ending) -> Self {
        if self.is_end_stream() {
            if let Source::Instance(body, _) = &mut self.source {
                body.finish();
            }
            ending.done();
        } else {
            self.ending = Some(ending);
        }
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Instance(body, carriers) => ready!(body.poll_piece(cx))
                .map(|frame| frame.map(|frame| without_lanes(frame, carriers))),
            Source::Own(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map_err(|never| match never {})),
        };
        if let Some(ending) = &mut this.ending {
            match &frame {
                Some(Ok(frame)) => {
                    ending.count(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                Some(Err(error)) => ending.broke(error.to_string()),
                None => {}
            }
        }
        if frame.is_none() || matches!(frame, Some(Err(_))) || this.is_end_stream() {
            if let Source::Instance(body, _) = &mut this.source
                && !matches!(frame, Some(Err(_)))
            {
                body.finish();
            }
            if let Some(ending) = this.ending.take() {
                ending.done();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Instance(body, _) => body.inner.is_end_stream(),
            Source::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Instance(body, _) => body.inner.size_hint(),
            Source::Own(body) => body.size_hint(),
        }
    }
}

/// Removes from trailers what must not come that way: lanes, and fields of one connection.
fn without_lanes(mut frame: Frame<Bytes>, carriers: &Carriers) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        carriers.strip(trailers);
        headers::strip_response(trailers, false);
    }
    frame
}

/// Waits for something for as long as pieces of the request keep going out, or are still to come from
/// the client, and then for `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    progress: &Progress,
    future: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(future);
    let mut seen = progress.pieces();
    let timer = tokio::time::sleep(limit);
    tokio::pin!(timer);
    loop {
        tokio::select! {
            biased;
            value = &mut future => return Some(value),
            () = &mut timer => {
                let now = progress.pieces();
                if now == seen && !progress.awaited.load(Ordering::Relaxed) {
                    return None;
                }
                seen = now;
                timer.as_mut().reset(Instant::now() + limit);
            }
        }
    }
}
