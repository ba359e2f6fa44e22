use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use gray_lb::Lanes;
use http::StatusCode;
use http::header::{ACCEPT, HeaderMap};
use serde::Serialize;
use serde_json::{Value, json};

use super::View;
use crate::explain::{Asked, Explainer};

#[utoipa::path(
    get,
    path = "/api/v1/version",
    responses((status = 200, description = "The version of the gateway and of its rules", content_type = "application/json"))
)]
pub(super) async fn version(State(view): State<Arc<View>>) -> Json<Value> {
    let revision = view.gateway.revision.load();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": revision.digest,
        "revisionNumber": revision.number,
    }))
}

/// The static configuration; secrets are never part of it.
#[utoipa::path(
    get,
    path = "/api/v1/config",
    responses((status = 200, description = "The static configuration, without secrets", content_type = "application/json"))
)]
pub(super) async fn config(State(view): State<Arc<View>>) -> Json<Value> {
    Json(serde_json::to_value(&view.properties).unwrap_or_default())
}

#[utoipa::path(
    get,
    path = "/api/v1/rules",
    responses((status = 200, description = "The rules in force, and what is wrong with newer ones", content_type = "application/json"))
)]
pub(super) async fn rules(State(view): State<Arc<View>>) -> Json<Value> {
    let revision = view.gateway.revision.load();
    let health = view.rules.load();
    let rules = revision.rules.rules().iter();
    let rules: Vec<Value> = rules
        .map(|rule| json!({ "name": **rule.name(), "target": rule.target().to_string() }))
        .collect();
    Json(json!({
        "on": revision.rules.is_on(),
        "revision": revision.digest,
        "rules": rules,
        "rejected": health.problems,
        "unavailable": health.unavailable.as_ref().map(ToString::to_string),
        "fromSnapshot": health.from_snapshot,
    }))
}

/// An instance as operators see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstanceView {
    address: String,
    version: Option<String>,
    lane: Option<String>,
    weight: f64,
    healthy: bool,
    enabled: bool,
    requests: usize,
    metadata: BTreeMap<String, String>,
}

#[utoipa::path(
    get,
    path = "/api/v1/services",
    responses((status = 200, description = "The services and their instances", content_type = "application/json"))
)]
pub(super) async fn services(State(view): State<Arc<View>>) -> Json<Value> {
    let directory = view.gateway.proxy.balancer.directory().load();
    let services: BTreeMap<String, Vec<InstanceView>> = directory
        .iter()
        .map(|(service, subsets)| {
            let instances = subsets.registered().iter().map(|member| {
                let instance = member.instance();
                InstanceView {
                    address: instance.addr.to_string(),
                    version: instance.version.as_ref().map(ToString::to_string),
                    lane: instance.lane.as_ref().map(ToString::to_string),
                    weight: f64::from(instance.weight.thousandths()) / 1000.0,
                    healthy: instance.healthy,
                    enabled: instance.enabled,
                    requests: member.in_flight(),
                    metadata: instance.metadata.clone(),
                }
            });
            (service.to_string(), instances.collect())
        })
        .collect();
    let health = view.instances.load();
    Json(json!({
        "services": services,
        "refused": health.refused,
        "fromSnapshot": health.from_snapshot,
    }))
}

#[utoipa::path(
    get,
    path = "/api/v1/lanes",
    responses((status = 200, description = "Which version each lane has, and what it falls back to", content_type = "application/json"))
)]
pub(super) async fn lanes(State(view): State<Arc<View>>) -> Json<Value> {
    let revision = view.gateway.revision.load();
    let services = revision.lanes.services.iter();
    let services: BTreeMap<String, Value> =
        services.map(|(service, lanes)| (service.to_string(), lanes_view(lanes))).collect();
    Json(json!({ "default": lanes_view(&revision.lanes.default), "services": services }))
}

fn lanes_view(lanes: &Lanes) -> Value {
    let versions = lanes.versions.iter();
    let versions: BTreeMap<String, String> =
        versions.map(|(lane, version)| (lane.to_string(), version.to_string())).collect();
    json!({
        "base": lanes.base.as_ref().map(ToString::to_string),
        "unversioned": lanes.unversioned,
        "lanes": versions,
        "fallback": lanes.fallback,
        "routed": lanes.routed,
    })
}

#[utoipa::path(
    post,
    path = "/api/v1/explain",
    request_body(content = Asked, content_type = "application/json"),
    responses(
        (status = 200, description = "How the request would be decided; as text where that is accepted", content_type = "application/json"),
        (status = 400, description = "What is asked about is no request", content_type = "application/json")
    )
)]
pub(super) async fn explain(
    State(view): State<Arc<View>>,
    headers: HeaderMap,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Response {
    let asked = match asked {
        Ok(Json(asked)) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let proxy = &view.gateway.proxy;
    let (revision, directory) = (view.gateway.revision.load(), proxy.balancer.directory().load());
    let explainer = Explainer {
        routes: &proxy.routes,
        revision: &revision,
        directory: &directory,
        carriers: &proxy.carriers,
        proxies: &view.gateway.policy.trusted_proxies,
        tags: &view.gateway.policy.tags,
        max_target: view.gateway.policy.max_target,
    };
    match explainer.explain(&asked) {
        Ok(answer) if wants_text(&headers) => answer.to_string().into_response(),
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

pub(super) fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

fn wants_text(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"))
}

/// The description of these pages.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Graylane admin API",
        description = "What is in force, and who handles the messages of lanes"
    ),
    paths(version, config, rules, services, lanes, explain)
)]
struct Description;

pub(super) async fn openapi() -> Response {
    let document = <Description as utoipa::OpenApi>::openapi();
    #[cfg(feature = "mq")]
    let document =
        document.merge_from(<super::messages::Description as utoipa::OpenApi>::openapi());
    match document.to_json() {
        Ok(text) => ([(http::header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
