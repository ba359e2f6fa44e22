use anyhow::ensure;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use gray_starter::Starter;
use http::StatusCode;
use serde_json::{Value, json};

use crate::Identity;
use crate::service::lane;

/// Makes order-app: `GET /order/{id}`, which asks user-app for the order's user.
pub fn order_app(identity: Identity, starter: Starter) -> Router {
    Router::new().route("/order/{id}", get(order)).with_state((identity, starter))
}

async fn order(
    State((identity, starter)): State<(Identity, Starter)>,
    Path(id): Path<String>,
) -> Response {
    match user_of(&starter, &id).await {
        Ok(user) => Json(json!({
            "service": identity.service,
            "version": identity.version,
            "port": identity.port,
            "lane": lane(&starter),
            "orderId": id,
            "user": user,
        }))
        .into_response(),
        Err(error) => {
            let body = Json(json!({ "service": identity.service, "error": format!("{error:#}") }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn user_of(starter: &Starter, id: &str) -> anyhow::Result<Value> {
    let answer = starter.client().get(&format!("http://user-app/user/{id}")).send().await?;
    ensure!(answer.status().is_success(), "user-app answers {}", answer.status());
    Ok(serde_json::from_str(&answer.text().await?)?)
}
