//! What operators and their tools ask the gateway: a page of its own, read-only unless it is made
//! writable.

mod api;
mod guard;
#[cfg(feature = "mq")]
mod messages;
mod readiness;
mod scrape;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::{get, post};
use gray_config::nacos::Link;
use gray_config::{Health, Live, Problems};
use gray_lb::DirectoryHealth;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[cfg(feature = "mq")]
pub(crate) use self::messages::Messages;
use crate::properties::GatewayProperties;
use crate::reloads::Reloads;
use crate::server::Gateway;

/// What the page shows.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) rules: Live<Health>,
    pub(crate) instances: Live<DirectoryHealth>,
    /// What is wrong with each registry that is a file.
    pub(crate) rejected: Vec<watch::Receiver<Option<Problems>>>,
    pub(crate) links: Vec<Link>,
    pub(crate) reloads: Reloads,
    /// The messages of lanes, where there are brokers.
    #[cfg(feature = "mq")]
    pub(crate) messages: Option<Messages>,
    pub(crate) properties: GatewayProperties,
    pub(crate) stopped: AtomicBool,
}

impl View {
    /// Says from now on that the gateway is not ready.
    pub(crate) fn stopping(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Takes the page's address.
pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {addr} (admin.address): {error}"))
    })
}

/// Serves the page for as long as the gateway runs.
pub(crate) async fn serve(listener: TcpListener, view: Arc<View>) {
    let router = Router::new()
        .route("/healthz", get(readiness::healthz))
        .route("/readyz", get(readiness::readyz))
        .route("/metrics", get(scrape::metrics))
        .route("/api/v1/version", get(api::version))
        .route("/api/v1/config", get(api::config))
        .route("/api/v1/rules", get(api::rules))
        .route("/api/v1/services", get(api::services))
        .route("/api/v1/lanes", get(api::lanes))
        .route("/api/v1/explain", post(api::explain))
        .route("/api/v1/openapi.json", get(api::openapi));
    #[cfg(feature = "mq")]
    let router = router
        .route("/api/v1/messages", get(messages::list))
        .route("/api/v1/messages/audit", get(messages::findings))
        .route("/api/v1/messages/switch", post(messages::switch));
    let is_loopback = listener.local_addr().is_ok_and(|addr| addr.ip().is_loopback());
    let router = if is_loopback {
        router.layer(axum::middleware::from_fn(guard::by_its_own_name))
    } else {
        router
    };
    let router = router.with_state(view);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin page ended");
    }
}
