use axum::Router;
use axum::extract::State;
use axum::routing::get;
use gray_mq::Counts;
use gray_starter::Starter;

/// Makes `GET /metrics`: what was counted about calls from and to this copy, and about messages where it consumes
/// any, as Prometheus reads it.
pub fn metrics(starter: Starter, messages: Option<Counts>) -> Router {
    let shown = get(async |State((starter, messages)): State<(Starter, Option<Counts>)>| {
        let messages = messages.map(|counts| counts.to_prometheus()).unwrap_or_default();
        starter.edges().to_prometheus() + &messages
    });
    Router::new().route("/metrics", shown).with_state((starter, messages))
}
