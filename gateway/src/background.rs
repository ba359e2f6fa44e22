//! The thread of all that nobody waits for: registries, rules, certificates.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// How much less than requests it counts where they want the same CPU: a third.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// A thread with a runtime of its own, so that a storm of pushes or a large rule document keeps no
/// request waiting. What runs on it is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    tasks: JoinSet<()>,
    /// The thread ends when this is dropped.
    _ending: oneshot::Sender<()>,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Where the system has no thread or no file descriptors left.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ending, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("background".to_owned());
        thread.spawn(move || {
            give_way();
            // It comes to an end by the sender's being dropped, which is no failure here.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, tasks: JoinSet::new(), _ending: ending })
    }

    /// Runs something until it ends, or this is dropped.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn_on(task, &self.handle)
    }

    /// Does something whose own tasks are to run here.
    pub(crate) fn within<T>(&self, what: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        what()
    }
}

/// Lets threads that serve requests go first.
#[cfg(target_os = "linux")]
fn give_way() {
    // On Linux a thread has a priority of its own. Without it, it is a thread like the others.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the background runs at the usual priority");
    }
}

#[cfg(not(target_os = "linux"))]
const fn give_way() {}
