//! What the layer costs, beside plain axum.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use criterion::{Criterion, criterion_group, criterion_main};
use gray_starter::{Starter, StarterProperties};
use http::{HeaderValue, Request};
use std::hint::black_box;
use tower::ServiceExt;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn starter(registry: std::path::PathBuf) -> Starter {
    let mut properties = StarterProperties::of("a");
    properties.version = Some("V2".to_owned());
    properties.registry = Some(registry);
    properties.base = Some("V1".to_owned());
    properties.lanes.insert("gray".to_owned(), "V2".to_owned());
    Starter::start(properties).unwrap()
}

fn request() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert("gray", HeaderValue::from_static("GRAY"));
    request.headers_mut().insert("x-graylane-hop", HeaderValue::from_static("from=x; to=a"));
    request
}

fn layer(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let starter = runtime.block_on(async { starter(folder.path().join("none.yaml")) });
    let plain = Router::new().route("/", get(async || "x")).with_state::<()>(());
    let layered = plain.clone().layer(starter.layer());
    for (name, router) in [("plain axum", plain), ("axum with the layer", layered)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let answer = router.clone().oneshot(request());
                black_box(runtime.block_on(answer)).unwrap();
            });
        });
    }
}

criterion_group!(benches, layer);
criterion_main!(benches);
