use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::http1::Watch;

tokio::task_local! {
    /// The stream that is being run.
    static STREAM: Taken;
}

/// How far a client has taken the answer of a stream of HTTP/2.
///
/// hyper asks for the next piece of a body once the client has made room for the one before: how long that takes
/// is seen by nobody but whoever looks from outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    answered: bool,
    /// Since when the client has had a piece that it has not made room for.
    since: Option<Instant>,
}

impl Taken {
    /// That of the stream that is being run here.
    pub(super) fn current() -> Self {
        STREAM.try_with(Self::clone).unwrap_or_default()
    }

    /// Tells whether the stream was answered at all.
    pub(super) fn is_answered(&self) -> bool {
        self.state().answered
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State { answered: true, since };
    }

    /// Runs a stream, unless its client takes nothing of its answer for so long.
    pub(super) async fn watch<F: Future>(&self, stream: F, limit: Duration) {
        let mut stream = pin!(STREAM.scope(self.clone(), stream));
        let mut watch = Watch::default();
        poll_fn(|cx| {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(since) = self.state().since else { return Poll::Pending };
            ready!(watch.poll_until(cx, since + limit));
            tracing::debug!("a client takes nothing of an answer over HTTP/2");
            Poll::Ready(())
        })
        .await;
    }

    /// Watches how a body is taken.
    pub(super) fn of<B>(self, body: B) -> Given<B> {
        self.set(None);
        Given { body, taken: self }
    }
}

/// A body of which it is known how it is taken.
#[derive(Debug)]
pub(super) struct Given<B> {
    body: B,
    taken: Taken,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Given<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.taken.set(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_some() {
            self.taken.set(Some(Instant::now()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
