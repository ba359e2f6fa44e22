use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::task::TaskTracker;

use super::sniff::PREFACE;

/// How long a connection shows no sign of life that nothing goes on upon.
const SILENCE: Duration = Duration::from_secs(2);

/// The signs of life of a connection of HTTP/2: bytes either way, and streams that are not done.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    bytes: Arc<AtomicU64>,
    /// How many bytes have been read.
    read: Arc<AtomicU64>,
    streams: Streams,
}

/// Runs the streams of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    running: TaskTracker,
    /// How many have been begun.
    begun: Arc<AtomicU64>,
}

impl Signs {
    /// Counts what is read and written.
    pub(super) fn of_bytes<S>(&self, stream: S) -> impl AsyncRead + AsyncWrite + Unpin + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (all, written) = (Arc::clone(&self.bytes), Arc::clone(&self.bytes));
        let read = Arc::clone(&self.read);
        let count = |of: &AtomicU64, some: &[u8]| {
            of.fetch_add(some.len() as u64, Ordering::Relaxed);
        };
        let stream = InspectReader::new(stream, move |some: &[u8]| {
            count(&all, some);
            count(&read, some);
        });
        InspectWriter::new(stream, move |some: &[u8]| count(&written, some))
    }

    /// Counts the streams.
    pub(super) fn of_streams(&self) -> Streams {
        self.streams.clone()
    }

    /// Ends when the client has not begun to speak HTTP/2 within the first time, or has had no stream for the
    /// second.
    pub(super) async fn idle(&self, first: Duration, idle: Duration) {
        tokio::time::sleep(first).await;
        if self.read.load(Ordering::Relaxed) < PREFACE.len() as u64 {
            return;
        }
        loop {
            let before = self.streams.begun.load(Ordering::Relaxed);
            tokio::time::sleep(idle).await;
            let begun = self.streams.begun.load(Ordering::Relaxed);
            if self.streams.running.is_empty() && begun == before {
                return;
            }
        }
    }

    /// Ends when there is no stream, and nothing has been read or written for a while.
    pub(super) async fn gone(&self) {
        loop {
            let before = self.bytes.load(Ordering::Relaxed);
            tokio::time::sleep(SILENCE).await;
            if self.streams.running.is_empty() && self.bytes.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.spawn(stream);
    }
}
