use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::{Caller, Identity};

#[derive(Clone, Debug)]
struct Order {
    identity: Identity,
    caller: Caller,
}

/// Makes order-app: `GET /order/{id}`, which asks user-app for the order's user.
pub fn order_app(identity: Identity, caller: Caller) -> Router {
    Router::new().route("/order/{id}", get(order)).with_state(Order { identity, caller })
}

async fn order(
    State(Order { identity, caller }): State<Order>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let lane = identity.lane_of(&headers);
    match caller.get("user-app", &format!("/user/{id}"), lane).await {
        Ok(user) => Json(json!({
            "service": identity.service,
            "version": identity.version,
            "port": identity.port,
            "lane": lane.to_string(),
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
