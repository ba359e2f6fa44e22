use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
}

/// Takes a connection off when it has ended, in whatever way.
struct Ended {
    running: Arc<Mutex<Running>>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        lock(&self.running).tasks.remove(&self.number);
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Serves a connection.
    pub(super) fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        // Held until it is known, so that it cannot end before that.
        let mut running = lock(&self.running);
        let number = running.next;
        running.next += 1;
        let ended = Ended { running: Arc::clone(&self.running), number };
        let task = self.tracker.spawn(async move {
            let _ended = ended;
            serving.await;
        });
        running.tasks.insert(number, task.abort_handle());
    }

    /// Stops accepting, lets requests end within a limit, and cuts off whatever is left.
    pub(crate) async fn drain(&self, limit: Duration) -> bool {
        self.accepting.cancel();
        self.tracker.close();
        let drained = tokio::time::timeout(limit, self.tracker.wait()).await.is_ok();
        let left: Vec<AbortHandle> = lock(&self.running).tasks.values().cloned().collect();
        for task in left {
            tracing::debug!("a connection is cut off");
            task.abort();
        }
        drained
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
        assert!(stop.drain(Duration::ZERO).await);
    }
}
