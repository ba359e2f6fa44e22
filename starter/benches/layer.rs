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

/// With a tag; with that and everything that may travel beside it; with nothing.
const REQUESTS: [(&str, &[(&str, &str)]); 3] = [
    ("", &[("gray", "GRAY"), ("x-graylane-hop", "from=x; to=a")]),
    (
        ", trace and baggage",
        &[
            ("gray", "GRAY"),
            ("x-graylane-hop", "from=x; to=a"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("baggage", "user=7,gray=gray"),
        ],
    ),
    (", no tag", &[]),
];

fn request(lines: &[(&'static str, &'static str)]) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    for (name, value) in lines {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    request
}

fn layer(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let starter = runtime.block_on(async { starter(folder.path().join("none.yaml")) });
    let plain = Router::new().route("/", get(async || "x")).with_state::<()>(());
    let layered = plain.clone().layer(starter.layer());
    for (name, router) in [("plain axum", plain), ("axum with the layer", layered)] {
        for (with, lines) in REQUESTS {
            criterion.bench_function(&format!("{name}{with}"), |bencher| {
                bencher.iter(|| {
                    let answer = router.clone().oneshot(request(lines));
                    black_box(runtime.block_on(answer)).unwrap();
                });
            });
        }
    }
}

criterion_group!(benches, layer);
criterion_main!(benches);
