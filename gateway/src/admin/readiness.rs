use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gray_lb::ServiceName;
use http::StatusCode;
use serde::Serialize;

use super::View;

/// Whether the gateway can do its work, and what is the matter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    /// Why it is not ready.
    reasons: Vec<String>,
    /// What is wrong, but does not keep it from serving.
    warnings: Vec<String>,
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(view): State<Arc<View>>) -> Response {
    let readiness = readiness(&view);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

fn readiness(view: &View) -> Readiness {
    let (mut reasons, mut warnings) = (Vec::new(), Vec::new());
    if view.stopped.load(Ordering::Relaxed) {
        reasons.push("the gateway is stopping".to_owned());
    }
    let rules = view.rules.load();
    let configured = &view.properties.rules;
    let wanted = !configured.files.is_empty() || configured.nacos.is_some();
    if wanted && rules.accepted == 0 {
        reasons.push("no rules are in force yet".to_owned());
    }
    if let Some(problems) = &rules.problems {
        warnings.push(format!("the newest rules were rejected:\n{problems}"));
    }
    warnings.extend(rules.warnings.0.iter().map(ToString::to_string));
    if let Some(error) = &rules.unavailable {
        warnings.push(format!("rules cannot be had: {error}"));
    }
    if rules.from_snapshot {
        warnings.push("rules come from the snapshot".to_owned());
    }
    let instances = view.instances.load();
    let services = view.gateway.proxy.routes.services();
    for service in services.iter().filter(|it| !instances.answered.contains(*it)) {
        reasons.push(format!("no registry has said anything about {service} yet"));
    }
    let directory = view.gateway.proxy.balancer.directory().load();
    let has_some = |service: &ServiceName| {
        directory.get(service).is_some_and(|subsets| !subsets.registered().is_empty())
    };
    for service in services.iter().filter(|it| instances.answered.contains(*it) && !has_some(it)) {
        let places = view.properties.discovery.places(&view.properties.nacos);
        warnings.push(format!("no instance of {service} is registered in {places}"));
    }
    if instances.from_snapshot {
        warnings.push("instances come from the snapshot".to_owned());
    }
    for (instance, refusal) in &instances.refused {
        warnings.push(format!("instance {instance} is refused: {refusal}"));
    }
    for rejected in &view.rejected {
        if let Some(problems) = &*rejected.borrow() {
            warnings.push(format!("a registry was rejected, the last one stays:\n{problems}"));
        }
    }
    for (kind, reload) in view.reloads.all() {
        if let Some(error) = reload.error {
            warnings.push(format!("{kind} were not replaced, the last stay in force: {error}"));
        }
    }
    for link in &view.links {
        let state = link.state();
        let state = state.borrow();
        if let Some(error) = state.error.as_ref().filter(|_| !state.connected) {
            warnings.push(format!("Nacos cannot be reached: {error}"));
        }
    }
    Readiness { ready: reasons.is_empty(), reasons, warnings }
}
