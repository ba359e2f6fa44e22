use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::{StartError, Starter};

/// How long a copy goes on accepting after it has left the registry: until others have heard of it.
const NOTICE: Duration = Duration::from_secs(2);

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It could not be registered.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its listener failed.
    #[error("the service ended")]
    Serve(#[from] std::io::Error),
}

impl Starter {
    /// Serves a router in lanes: registers when it listens, and when `stop` is done leaves the
    /// registry, waits until others have noticed, and lets requests end.
    ///
    /// # Errors
    ///
    /// See [`ServeError`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let addr = listener.local_addr()?;
        let registration = self.register(addr).await?;
        let leave = async move {
            stop.await;
            if registration.is_kept() {
                registration.end().await;
                tokio::time::sleep(NOTICE).await;
            }
        };
        let router = router.layer(self.layer());
        // Without it each small answer would wait for the acknowledgement of the one before.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY cannot be set");
            }
        });
        axum::serve(listener, router).with_graceful_shutdown(leave).await?;
        Ok(())
    }
}
