use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::BodyError;

/// What is known about a request while its body is being sent; of one without a body there is nothing to know.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Option<Arc<State>>);

#[derive(Debug, Default)]
struct State {
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
    /// Of a request that has a body, or has none.
    pub(super) fn new(has_body: bool) -> Self {
        Self(has_body.then(Arc::default))
    }

    /// Returns a number that grows with each piece that was passed on.
    pub(crate) fn pieces(&self) -> u64 {
        self.0.as_ref().map_or(0, |state| state.pieces.load(Ordering::Relaxed))
    }

    /// Returns why the body ended early, if it did.
    pub(crate) fn failed(&self) -> Option<Blame> {
        self.0.as_ref()?.failed.get().copied()
    }

    /// Tells whether the next piece is still to come from the client.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.awaited.load(Ordering::Relaxed))
    }

    pub(super) fn add_piece(&self) {
        if let Some(state) = &self.0 {
            state.pieces.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_answering(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.answering.load(Ordering::Relaxed))
    }

    pub(super) fn set_awaited(&self, awaited: bool) {
        if let Some(state) = &self.0 {
            state.awaited.store(awaited, Ordering::Relaxed);
        }
    }

    pub(super) fn set_answering(&self, answering: bool) {
        if let Some(state) = &self.0 {
            state.answering.store(answering, Ordering::Relaxed);
        }
    }

    pub(super) fn fail(&self, error: &BodyError) {
        let blame = match error {
            BodyError::TooLarge => Blame::TooLarge,
            BodyError::Stalled => Blame::Stalled,
            BodyError::Broken(_) | BodyError::Instance(_) => Blame::Broken,
        };
        if let Some(state) = &self.0 {
            // The first reason is the one that counts.
            let _ = state.failed.set(blame);
        }
        self.set_awaited(false);
    }
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
                if now == seen && !progress.is_awaited() {
                    return None;
                }
                seen = now;
                timer.as_mut().reset(Instant::now() + limit);
            }
        }
    }
}
