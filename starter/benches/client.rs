//! What `GrayClient` costs, beside plain reqwest: the ratio of the CPU time that the caller's thread
//! takes for the same calls, user and system, in turns that alternate. The time on the clock is
//! mostly that of waking threads up, and differs more from turn to turn than the two differ.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use gray_starter::{Context, GrayStatus, Lane, Starter, StarterProperties, scope};

const TURNS: usize = 80;
const CALLS: usize = 400;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Serves on a thread of its own.
fn serve() -> SocketAddr {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let router = Router::new().route("/", get(async || "x"));
            axum::serve(listener, router).await.unwrap();
        });
    });
    receive.recv().unwrap()
}

fn starter(folder: &std::path::Path, addr: SocketAddr) -> Starter {
    let registry = folder.join("registry.yaml");
    let text = format!("services: {{b: [{{address: '{addr}', metadata: {{version: V2}}}}]}}");
    std::fs::write(&registry, text).unwrap();
    Starter::start(StarterProperties {
        service: "a".to_owned(),
        version: Some("V2".to_owned()),
        registry: Some(registry),
        base: Some("V1".to_owned()),
        lanes: [("gray".to_owned(), "V2".to_owned())].into(),
        ..StarterProperties::default()
    })
    .unwrap()
}

/// The time that this thread has had on a CPU.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

async fn turn<F>(call: impl Fn() -> F) -> Duration
where
    F: Future<Output = reqwest::Response>,
{
    let began = cpu_time();
    for _ in 0..CALLS {
        call().await.bytes().await.unwrap();
    }
    cpu_time().saturating_sub(began)
}

fn main() {
    let addr = serve();
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let client = starter(folder.path(), addr).client();
        let plain = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{addr}/");
        let gray = Context::of(GrayStatus::Gray(Lane::GRAY));
        let by_reqwest = async || plain.get(&url).header("gray", "GRAY").send().await.unwrap();
        let by_name = async || client.get("http://b/").send().await.unwrap();
        let (mut ratios, mut plains) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let plain = turn(&by_reqwest).await;
            let named = scope(gray.clone(), turn(&by_name)).await;
            ratios.push(named.as_secs_f64() / plain.as_secs_f64());
            plains.push(plain);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        plains.sort_unstable();
        // The order statistics that hold the median with 95 %.
        let (low, high) = (TURNS / 2 - 9, TURNS / 2 + 9);
        println!(
            "GrayClient / plain reqwest: {:.3} ({:.3} to {:.3}), {TURNS} turns of {CALLS} calls, \
             {:.1} us of CPU a plain call",
            ratios[TURNS / 2],
            ratios[low],
            ratios[high],
            plains[TURNS / 2].as_secs_f64() * 1e6 / 400.0,
        );
    });
}
