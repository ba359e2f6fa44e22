//! What `GrayClient` costs, beside plain reqwest: how many instructions a call takes in the whole
//! process, client and server, counted by valgrind; and the ratio of the CPU time that the caller's
//! thread takes, in turns that alternate. Client and server share one CPU: on two, falling asleep and
//! waking each other costs more, and differs more, than the calls do.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::stream::{self, StreamExt};
use gray_starter::{Context, GrayStatus, Lane, Starter, StarterProperties, scope};

const TURNS: usize = 80;
const CALLS: usize = 400;
/// How many calls are under way at a time.
const AT_ONCE: [usize; 2] = [16, 1];

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
    let mut properties = StarterProperties::of("a");
    properties.version = Some("V2".to_owned());
    properties.registry = Some(registry);
    properties.base = Some("V1".to_owned());
    properties.lanes.insert("gray".to_owned(), "V2".to_owned());
    Starter::start(properties).unwrap()
}

/// The time that this thread has had on a CPU.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

async fn turn<F>(call: impl Fn() -> F, at_once: usize) -> Duration
where
    F: Future<Output = reqwest::Response>,
{
    let began = cpu_time();
    let mut left = stream::iter(0..CALLS)
        .map(async |_| call().await.bytes().await.unwrap())
        .buffer_unordered(at_once);
    while left.next().await.is_some() {}
    cpu_time().saturating_sub(began)
}

/// Makes so many calls by one client only, for valgrind to count.
async fn only(which: &str, calls: usize, addr: SocketAddr, starter: &Starter) {
    let (client, plain) = (starter.client(), plain());
    let url = format!("http://{addr}/");
    let gray = Context::of(GrayStatus::Gray(Lane::GRAY));
    for _ in 0..calls {
        let answer = match which {
            "named" => scope(gray.clone(), client.get("http://b/").send()).await.unwrap(),
            _ => plain.get(&url).header("gray", "GRAY").send().await.unwrap(),
        };
        answer.bytes().await.unwrap();
    }
}

/// Counts the instructions of a call: those of many calls without those of few.
fn instructions(which: &str) -> Option<f64> {
    let count = |calls: &str| {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        let output = valgrind.arg(std::env::current_exe().ok()?).env("ONLY", which);
        let output = output.env("CALLS", calls).output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find_map(|line| line.split_once("Collected : "))?.1.to_owned();
        line.trim().parse::<f64>().ok()
    };
    Some((count("2100")? - count("100")?) / 2000.0)
}

fn plain() -> reqwest::Client {
    // The same settings as the starter's own client.
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(2))
        .read_timeout(Duration::from_mins(1))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

fn main() {
    if let Ok(which) = std::env::var("ONLY") {
        let calls = std::env::var("CALLS").unwrap().parse().unwrap();
        let (addr, folder) = (serve(), tempfile::tempdir().unwrap());
        return runtime().block_on(async {
            only(&which, calls, addr, &starter(folder.path(), addr)).await;
        });
    }
    if std::env::var_os("PINNED").is_none() {
        match (instructions("plain"), instructions("named")) {
            (Some(plain), Some(named)) => println!(
                "instructions a call, client and server: {plain:.0} plain, {named:.0} by GrayClient, \
                 {:.3}",
                named / plain
            ),
            _ => println!("instructions cannot be counted without valgrind"),
        }
        let mut pinned = Command::new("taskset");
        // The last one: the first takes the machine's interrupts.
        let last = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1);
        pinned
            .args(["-c", &last.to_string()])
            .arg(std::env::current_exe().unwrap())
            .env("PINNED", "1");
        match pinned.status() {
            Ok(status) => assert!(status.success(), "{status}"),
            Err(error) => println!("the times need one CPU, by taskset: {error}"),
        }
        return;
    }
    let (addr, folder) = (serve(), tempfile::tempdir().unwrap());
    runtime().block_on(async {
        let starter = starter(folder.path(), addr);
        for at_once in AT_ONCE {
            compare(&starter, addr, at_once).await;
        }
    });
}

/// Compares the CPU time of the two, in turns.
async fn compare(starter: &Starter, addr: SocketAddr, at_once: usize) {
    let (client, plain) = (starter.client(), plain());
    let url = format!("http://{addr}/");
    let gray = Context::of(GrayStatus::Gray(Lane::GRAY));
    let by_reqwest = async || plain.get(&url).header("gray", "GRAY").send().await.unwrap();
    let by_name = async || client.get("http://b/").send().await.unwrap();
    let (mut ratios, mut plains) = (Vec::new(), Vec::new());
    for number in 0..TURNS {
        // Whoever comes second finds another machine: each comes second as often.
        let (plain, named) = if number % 2 == 0 {
            let plain = turn(&by_reqwest, at_once).await;
            (plain, scope(gray.clone(), turn(&by_name, at_once)).await)
        } else {
            let named = scope(gray.clone(), turn(&by_name, at_once)).await;
            (turn(&by_reqwest, at_once).await, named)
        };
        ratios.push(named.as_secs_f64() / plain.as_secs_f64());
        plains.push(plain);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    plains.sort_unstable();
    // The order statistics that hold the median with 95 %.
    let (low, high) = (TURNS / 2 - 9, TURNS / 2 + 9);
    println!(
        "GrayClient / plain reqwest, {at_once} at once: {:.3} ({:.3} to {:.3}), {TURNS} turns of \
         {CALLS} calls, {:.1} us of CPU a plain call",
        ratios[TURNS / 2],
        ratios[low],
        ratios[high],
        plains[TURNS / 2].as_secs_f64() * 1e6 / 400.0,
    );
}
