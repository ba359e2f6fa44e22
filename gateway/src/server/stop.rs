use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a server is told to stop, and waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Told when nothing new is to be taken.
    pub(super) accepting: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Mutex<Running>>,
}

/// The connections that there are, to be cut off at the end: each would otherwise have to look, whenever it is
/// woken, whether that is so.
#[derive(Debug, Default)]
struct Running {
    next: u64,
    tasks: HashMap<u64, AbortHandle>,
    /// Those that had ended before they were known.
    gone: HashSet<u64>,
    /// Whether whatever comes is cut off at once.
    is_over: bool,
}

impl Running {
    /// Takes a connection up that has been begun, unless it has ended already.
    fn add(&mut self, number: u64, task: AbortHandle) {
        if !self.gone.remove(&number) {
            self.tasks.insert(number, task);
        }
    }

    fn remove(&mut self, number: u64) {
        if self.tasks.remove(&number).is_none() {
            self.gone.insert(number);
        }
    }
}

/// Takes a connection off when it has ended, in whatever way.
struct Ended {
    running: Arc<Mutex<Running>>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        lock(&self.running).remove(self.number);
    }
}

pin_project! {
    /// A connection that is noted for as long as it is there: a block would have room for it twice, since it
    /// moves what it waits for.
    struct Noted<F> {
        #[pin]
        serving: F,
        _ended: Ended,
    }
}

impl<F: Future<Output = ()>> Future for Noted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().serving.poll(cx)
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Serves a connection.
    pub(super) fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let number = self.number();
        let ended = Ended { running: Arc::clone(&self.running), number };
        // Nothing is locked meanwhile: a runtime that ends drops what it is given here and now.
        let task = self.tracker.spawn(Noted { serving, _ended: ended });
        let mut running = lock(&self.running);
        let is_over = running.is_over;
        running.add(number, task.abort_handle());
        drop(running);
        if is_over {
            task.abort();
        }
    }

    fn number(&self) -> u64 {
        let mut running = lock(&self.running);
        running.next += 1;
        running.next
    }

    /// Stops accepting, lets requests end within a limit, and cuts off whatever is left.
    pub(crate) async fn drain(&self, limit: Duration) -> bool {
        self.accepting.cancel();
        self.tracker.close();
        let drained = tokio::time::timeout(limit, self.tracker.wait()).await.is_ok();
        for task in self.end() {
            tracing::debug!("a connection is cut off");
            task.abort();
        }
        drained
    }

    /// Cuts off whatever comes from now on, and returns what is there.
    fn end(&self) -> Vec<AbortHandle> {
        let mut running = lock(&self.running);
        running.is_over = true;
        running.tasks.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_not_ended_in_time_is_cut_off() {
        let stop = Stop::default();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        stop.spawn(async {});
        stop.spawn(async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        });
        assert!(!stop.drain(Duration::from_secs(1)).await);
        // It was dropped.
        assert!(told.await.is_err());
        stop.tracker.wait().await;
        assert!(lock(&stop.running).tasks.is_empty());
        assert!(stop.drain(Duration::from_secs(1)).await);
        // Whoever comes as late as that is cut off at once.
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        stop.spawn(async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        });
        assert!(told.await.is_err());
        stop.tracker.wait().await;
        assert!(lock(&stop.running).tasks.is_empty());
        assert!(lock(&stop.running).gone.is_empty());
    }

    #[test]
    fn a_runtime_that_ends_waits_for_nobody() {
        let stop = Stop::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (handle, again) = (runtime.handle().clone(), stop.clone());
        drop(runtime);
        // It is dropped where it is spawned.
        let _entered = handle.enter();
        again.spawn(std::future::pending());
        assert!(lock(&stop.running).tasks.is_empty());
    }
}
