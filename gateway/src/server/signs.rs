use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::task::TaskTracker;

/// How long a connection shows no sign of life that nothing goes on upon.
const SILENCE: Duration = Duration::from_secs(2);

/// The signs of life of a connection of HTTP/2: bytes either way, and streams that are not done.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    bytes: Arc<AtomicU64>,
    streams: TaskTracker,
}

/// Runs the streams of a connection.
#[derive(Clone, Debug)]
pub(super) struct Streams(TaskTracker);

impl Signs {
    /// Counts what is read and written.
    pub(super) fn of_bytes<S>(&self, stream: S) -> impl AsyncRead + AsyncWrite + Unpin + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (read, written) = (Arc::clone(&self.bytes), Arc::clone(&self.bytes));
        let count = |of: &AtomicU64, some: &[u8]| {
            of.fetch_add(some.len() as u64, Ordering::Relaxed);
        };
        let stream = InspectReader::new(stream, move |some: &[u8]| count(&read, some));
        InspectWriter::new(stream, move |some: &[u8]| count(&written, some))
    }

    /// Counts the streams.
    pub(super) fn of_streams(&self) -> Streams {
        Streams(self.streams.clone())
    }

    /// Ends when there is no stream, and nothing has been read or written for a while.
    pub(super) async fn gone(&self) {
        loop {
            let before = self.bytes.load(Ordering::Relaxed);
            tokio::time::sleep(SILENCE).await;
            if self.streams.is_empty() && self.bytes.load(Ordering::Relaxed) == before {
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
        self.0.spawn(stream);
    }
}
