use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::Identity;

/// Makes user-app: `GET /user/{id}`.
pub fn user_app(identity: Identity) -> Router {
    Router::new().route("/user/{id}", get(user)).with_state(identity)
}

async fn user(
    State(identity): State<Identity>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Json<Value> {
    Json(json!({
        "service": identity.service,
        "version": identity.version,
        "port": identity.port,
        "lane": identity.lane_of(&headers).to_string(),
        "userId": id,
    }))
}
