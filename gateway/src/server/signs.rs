use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::sniff::PREFACE;
use super::taken::Taken;

/// How long a connection shows no sign of life that nothing goes on upon.
const SILENCE: Duration = Duration::from_secs(2);

/// The signs of life of a connection of HTTP/2: bytes either way, and streams that are not done.
#[derive(Clone, Debug)]
pub(super) struct Signs {
    bytes: Arc<AtomicU64>,
    /// How many bytes have been read.
    read: Arc<AtomicU64>,
    streams: Streams,
}

/// How many streams a client may give up before they are answered, and more than those as long as they are the
/// fewer half: each costs a connection to an instance (CVE-2023-44487).
const GIVEN_UP: u64 = 100;

/// Runs the streams of a connection.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    running: TaskTracker,
    /// How many have been begun.
    begun: Arc<AtomicU64>,
    /// How many have ended without an answer.
    given_up: Arc<AtomicU64>,
    /// Told when there are too many of those.
    abused: CancellationToken,
    /// How long a client may take nothing of an answer.
    write_time: Duration,
}

impl Signs {
    /// Of a connection whose client may take nothing of an answer for so long.
    pub(super) fn new(write_time: Duration) -> Self {
        let streams = Streams {
            running: TaskTracker::default(),
            begun: Arc::default(),
            given_up: Arc::default(),
            abused: CancellationToken::new(),
            write_time,
        };
        Self { bytes: Arc::default(), read: Arc::default(), streams }
    }

    /// Ends when the client has given up too many streams.
    pub(super) async fn abused(&self) {
        self.streams.abused.cancelled().await;
    }

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

impl Streams {
    fn give_up(&self) {
        let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
        if given_up > GIVEN_UP && given_up > self.begun.load(Ordering::Relaxed) / 2 {
            self.abused.cancel();
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
        let (streams, taken) = (self.clone(), Taken::default());
        self.running.spawn(async move {
            taken.watch(stream, streams.write_time).await;
            if !taken.is_answered() {
                streams.give_up();
            }
        });
    }
}
