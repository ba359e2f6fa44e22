use axum::Router;
use axum::extract::State;
use axum::routing::get;
use gray_starter::Starter;

/// Makes `GET /metrics`: what was counted about calls from and to this copy, as Prometheus reads it.
pub fn metrics(starter: Starter) -> Router {
    let shown = get(async |State(starter): State<Starter>| starter.edges().to_prometheus());
    Router::new().route("/metrics", shown).with_state(starter)
}
