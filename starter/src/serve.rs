use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::{StartError, Starter};

/// How long a copy goes on accepting after it has left the registry: until others have heard of it.
const NOTICE: Duration = Duration::from_secs(2);

/// How long requests may take to end after that.
const DRAIN: Duration = Duration::from_secs(30);

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It could not be registered.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Some requests had not ended in time. They go on until the process ends.
    #[error("some requests had not ended {DRAIN:?} after the service was to stop")]
    Cut,
    /// Its listener failed.
    #[error("the service ended")]
    Serve(#[from] std::io::Error),
}

impl Starter {
    /// Serves a router in lanes: registers when it listens, and when `stop` is done leaves the
    /// registry, waits until others have noticed, and lets requests end, for half a minute.
    ///
    /// # Errors
    ///
    /// See [`ServeError`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let addr = listener.local_addr()?;
        let registration = self.register(addr).await?;
        let (leave, told) = oneshot::channel::<()>();
        let told = async move {
            // Whoever drops the sender has ended as well.
            let _ = told.await;
        };
        let router = router.layer(self.layer());
        // Without it each small answer would wait for the acknowledgement of the one before.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY cannot be set");
            }
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(told).into_future();
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = stop => {}
        }
        if registration.is_kept() {
            registration.end().await;
            tokio::select! {
                served = &mut serving => return Ok(served?),
                () = tokio::time::sleep(NOTICE) => {}
            }
        }
        let _ = leave.send(());
        match tokio::time::timeout(DRAIN, serving).await {
            Ok(served) => Ok(served?),
            Err(_) => Err(ServeError::Cut),
        }
    }
}
