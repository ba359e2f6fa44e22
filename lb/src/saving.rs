use std::time::Duration;

use gray_config::{Documents, Snapshot, SnapshotError, causes};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

/// How often instances are written to disk at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes what is known to the snapshot: at once, then at most once a second, beside everything else,
/// so that a disk which is slow or full holds nobody up.
#[derive(Debug)]
pub(crate) struct Saving {
    snapshot: Snapshot,
    changed: bool,
    not_before: Instant,
    running: Option<JoinHandle<Result<(), SnapshotError>>>,
}

impl Saving {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, changed: false, not_before: Instant::now(), running: None }
    }

    /// Takes note that there is something to be written.
    pub(crate) const fn changed(&mut self) {
        self.changed = true;
    }

    /// Goes on with the writing: waits until something is to be written or has been. It may be
    /// dropped at any time.
    pub(crate) async fn step(&mut self, documents: &Documents) {
        if let Some(running) = &mut self.running {
            match running.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    warn!(error = causes(&error), "instances not written to the snapshot");
                }
                Err(error) => warn!(%error, "instances not written to the snapshot"),
            }
            self.running = None;
        } else if self.changed {
            tokio::time::sleep_until(self.not_before).await;
            self.changed = false;
            self.not_before = Instant::now() + PAUSE;
            let (snapshot, documents) = (self.snapshot.clone(), documents.clone());
            self.running = Some(tokio::task::spawn_blocking(move || snapshot.save(&documents)));
        } else {
            std::future::pending::<()>().await;
        }
    }
}
