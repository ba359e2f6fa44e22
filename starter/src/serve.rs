use axum::Router;
use axum::serve::ListenerExt;
use gray_config::HumanDuration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::{Registration, StartError, Starter};

/// How long a copy goes on accepting after it has left the registry, where nothing else is said.
const NOTICE: HumanDuration = HumanDuration::secs(2);

/// How long requests may take to end after that, where nothing else is said.
const DRAIN: HumanDuration = HumanDuration::secs(30);

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It could not be registered.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Some requests had not ended in time. They go on until the process ends.
    #[error("some requests had not ended {0} after the service had stopped accepting")]
    Cut(HumanDuration),
    /// Its listener failed.
    #[error("the service ended")]
    Serve(#[from] std::io::Error),
}

/// Ends when the process is told to stop: by SIGTERM, as orchestrators do, or by Ctrl-C.
pub async fn told_to_stop() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => drop(terminated.recv().await),
            Err(error) => {
                tracing::warn!(%error, "SIGTERM ends this process at once");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        // Where it cannot be listened for, it ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

impl Starter {
    /// Serves a router in lanes: registers when it listens, and when `stop` is done leaves the
    /// registry, waits until others have noticed, and lets requests end, for half a minute
    /// ([`notice`](crate::StarterProperties::notice), [`drain`](crate::StarterProperties::drain)).
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
        self.serve_when(std::future::ready(()), listener, router, stop).await
    }

    /// As [`serve`](Self::serve), but registers only when `ready` is done: when caches are warm, for
    /// example. Until then whoever knows the address is answered, such as probes of an orchestrator.
    ///
    /// # Errors
    ///
    /// See [`ServeError`].
    pub async fn serve_when(
        &self,
        ready: impl Future<Output = ()>,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let addr = listener.local_addr()?;
        let properties = self.properties();
        let (notice, drain) =
            (properties.notice.unwrap_or(NOTICE), properties.drain.unwrap_or(DRAIN));
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
        tokio::pin!(serving, stop);
        let registering = async {
            ready.await;
            self.register(addr).await
        };
        let registration = tokio::select! {
            served = &mut serving => return Ok(served?),
            registered = registering => Some(registered?),
            () = &mut stop => None,
        };
        if registration.is_some() {
            tokio::select! {
                served = &mut serving => return Ok(served?),
                () = stop => {}
            }
        }
        if let Some(registration) = registration.filter(Registration::is_kept) {
            registration.end().await;
            tokio::select! {
                served = &mut serving => return Ok(served?),
                () = tokio::time::sleep(notice.0) => {}
            }
        }
        let _ = leave.send(());
        match tokio::time::timeout(drain.0, serving).await {
            Ok(served) => Ok(served?),
            Err(_) => Err(ServeError::Cut(drain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;
    use crate::StarterProperties;

    /// A request that never ends does not keep its service from ending.
    #[tokio::test]
    async fn requests_are_waited_for_as_long_as_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("registry.yaml");
        std::fs::write(&registry, "services: {}\n").unwrap();
        let starter = Starter::start(StarterProperties {
            service: "a".to_owned(),
            base: Some("V1".to_owned()),
            registry: Some(registry),
            drain: Some(HumanDuration::millis(300)),
            ..StarterProperties::default()
        });
        let starter = starter.unwrap();
        let (asked, told) = oneshot::channel::<()>();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Some(asked)));
        let handler = get(async move || {
            drop(asked.lock().unwrap().take());
            std::future::pending::<()>().await;
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let stop = async {
            let _ = told.await;
        };
        let began = Instant::now();
        let served = starter.serve(listener, Router::new().route("/", handler), stop).await;
        assert!(matches!(served, Err(ServeError::Cut(_))), "{served:?}");
        assert!(served.unwrap_err().to_string().contains("300ms"));
        assert!(began.elapsed() > Duration::from_millis(300));
    }
}
