use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use gray_starter::Starter;
use serde_json::{Value, json};

use crate::Identity;
use crate::service::lane;

/// Makes user-app: `GET /user/{id}`.
pub fn user_app(identity: Identity, starter: Starter) -> Router {
    Router::new().route("/user/{id}", get(user)).with_state((identity, starter))
}

async fn user(
    State((identity, starter)): State<(Identity, Starter)>,
    Path(id): Path<String>,
) -> Json<Value> {
    Json(json!({
        "service": identity.service,
        "version": identity.version,
        "port": identity.port,
        "lane": lane(&starter),
        "userId": id,
    }))
}
