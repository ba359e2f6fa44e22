//! Ten thousand pushes in a second cost little, and the last of them counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gray_tests::{Gateway, Prepared, StandIn, Stub, eventually};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use crate::{quantile, report};

const SERVICES: u64 = 100;
const PUSHES: u64 = 10_000;
/// How much CPU the gateway may spend on the pushes, and how much it may grow, in KiB.
const CPU: Duration = Duration::from_secs(1);
const MEMORY: u64 = 32 << 10;

/// An instance as a push tells it.
fn host(port: u64, round: u64) -> Value {
    json!({
        "ip": "127.0.0.1", "port": port, "weight": 1.0, "healthy": true, "enabled": true,
        "metadata": { "version": "V1", "round": round.to_string() },
    })
}

/// Ten instances, of which only the first is called.
fn hosts(stub: &Stub, round: u64) -> Value {
    let others = (0..9).map(|number| {
        json!({
            "ip": format!("10.9.8.{number}"), "port": 8080, "weight": 1.0, "healthy": true,
            "enabled": true, "metadata": { "version": "V2", "round": round.to_string() },
        })
    });
    [host(stub.addr.port().into(), round)].into_iter().chain(others).collect()
}

/// The time that the gateway has spent on a CPU, and the most memory it has had, in KiB.
fn spent(gateway: &Gateway) -> anyhow::Result<(Duration, u64)> {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", gateway.process.id()));
    let stat = read("stat")?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    // utime and stime, the 14th and 15th field, in hundredths of a second.
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let status = read("status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let memory = line.trim().trim_end_matches(" kB").parse()?;
    Ok((Duration::from_millis(ticks * 10), memory))
}

/// How long a storm took to push, and how long after it the gateway had the last of all.
struct Storm {
    pushing: Duration,
    settling: Duration,
}

/// Pushes ten thousand times in a second.
async fn storm(system: &System, pushes: &[Prepared], first: u64) -> anyhow::Result<Storm> {
    let (server, gateway) = (&system.server, &system.gateway);
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let began = Instant::now();
    for (number, push) in pushes.iter().enumerate() {
        if number % (pushes.len() / 1_000) == 0 {
            tick.tick().await;
        }
        server.send(push);
    }
    let (pushing, ended) = (began.elapsed(), Instant::now());
    let last = first + PUSHES - SERVICES;
    eventually(Duration::from_secs(10), async || {
        let text = gateway.ask("/api/v1/services").await?;
        let value: Value = serde_json::from_str(&text)?;
        for service in 0..SERVICES {
            let round = &value["services"][format!("app-{service}")][0]["metadata"]["round"];
            let expected = (last + service).to_string();
            ensure!(round.as_str() == Some(&expected), "app-{service}: {round}, not {expected}");
        }
        Ok(())
    })
    .await?;
    Ok(Storm { pushing, settling: ended.elapsed() })
}

/// Calls the services in turn until it is told to stop; returns the times taken, in milliseconds.
async fn load(gateway: SocketAddr, done: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let number = u64::try_from(times.len())? % SERVICES;
        let began = Instant::now();
        let url = format!("http://{gateway}/app-{number}");
        client.get(url).send().await?.error_for_status()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Measures requests while something goes on; on a thread of their own, since pushing takes time too.
async fn beside<T>(
    gateway: &Gateway,
    what: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Vec<f64>> {
    let (addr, done) = (gateway.addr, Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&done);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::spawn(move || runtime.block_on(load(addr, &told)));
    let went = what.await;
    done.store(true, Ordering::Relaxed);
    went?;
    thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))?
}

async fn calm() -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// A gateway that follows a hundred services of a server of its own.
struct System {
    server: StandIn,
    stub: Stub,
    gateway: Gateway,
}

impl System {
    async fn start(elsewhere: &Handle) -> anyhow::Result<Arc<Self>> {
        let server = elsewhere.spawn(StandIn::start()).await??;
        let stub = Stub::start("V1").await?;
        for number in 0..SERVICES {
            server.push(&format!("app-{number}"), 1, &hosts(&stub, 1));
        }
        let route = |number| {
            format!("- {{service: app-{number}, match: {{path: {{prefix: /app-{number}}}}}}}\n")
        };
        let routes: String = (0..SERVICES).map(route).collect();
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("rules.yaml"), "base: {version: V1}\n")?;
        let config = format!(
            "nacos: {{servers: ['{}']}}\nroutes:\n{routes}\
             discovery: {{nacos: [{{}}], snapshot: '{{dir}}/instances.snapshot'}}\n\
             rules: {{files: ['{{dir}}/rules.yaml']}}\n",
            server.address()?
        );
        let gateway = Gateway::start_in(folder, &config)?;
        gateway.ready().await?;
        Ok(Arc::new(Self { server, stub, gateway }))
    }

    /// Has the server push ten thousand times in a second; what it pushes is written before.
    async fn storm(
        self: &Arc<Self>,
        elsewhere: &Handle,
        first: u64,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<Storm>>> {
        let system = Arc::clone(self);
        let prepare = move |number| {
            let (service, round) = (format!("app-{}", number % SERVICES), first + number);
            StandIn::prepare(&service, round, &hosts(&system.stub, round))
        };
        let pushes: Vec<Prepared> =
            elsewhere.spawn(async move { (0..PUSHES).map(prepare).collect() }).await?;
        let (system, elsewhere) = (Arc::clone(self), elsewhere.clone());
        Ok(
            async move { elsewhere.spawn(async move { storm(&system, &pushes, first).await }).await? },
        )
    }
}

/// Half of the times, and one in a hundred.
fn quantiles(times: &mut [f64]) -> String {
    let (half, late) = (quantile(times, 0.5), quantile(times, 0.99));
    format!("{} requests, p50 {half:.2} ms, p99 {late:.2} ms", times.len())
}

/// Starts a thread that stands for another machine: it has what CPU the others leave.
fn elsewhere() -> anyhow::Result<Runtime> {
    const LAST: i32 = 19;
    let last = || {
        // Where it cannot be had, the figures are worse and nothing is wrong.
        let _ = rustix::process::setpriority_process(None, LAST);
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).on_thread_start(last).enable_all().build()?)
}

#[test]
fn ten_thousand_pushes_in_a_second_are_few_changes() -> anyhow::Result<()> {
    let elsewhere = elsewhere()?;
    let here = Runtime::new()?;
    here.block_on(measure(elsewhere.handle()))
}

async fn measure(elsewhere: &Handle) -> anyhow::Result<()> {
    let system = System::start(elsewhere).await?;
    // Alone, so that what is spent is spent on the pushes.
    system.storm(elsewhere, 1_000).await?.await?;
    let (before, changes) = (spent(&system.gateway)?, system.gateway.metric(CHANGES).await?);
    let alone = system.storm(elsewhere, 100_000).await?.await?;
    let after = spent(&system.gateway)?;
    let changed = system.gateway.metric(CHANGES).await? - changes;
    let (cpu, memory) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));

    // What a busy machine costs, and what the pushes do: the storm goes to another gateway first.
    let other = System::start(elsewhere).await?;
    let mut calm = beside(&system.gateway, calm()).await?;
    let pushing = other.storm(elsewhere, 200_000).await?;
    let mut beside_another = beside(&system.gateway, pushing).await?;
    let pushing = system.storm(elsewhere, 200_000).await?;
    let mut stormy = beside(&system.gateway, pushing).await?;
    let ratio = quantile(&mut stormy, 0.99) / quantile(&mut calm, 0.99);
    let text = format!(
        "{PUSHES} pushes in {:.2} s, of {SERVICES} services with ten instances each; the server that \
         pushes has only what CPU the others leave, since it stands for another machine\n\
         CPU of the gateway: {:.2} s, growth: {memory} KiB\n\
         the directory was replaced {changed} times; the last push of each service was in force {} ms \
         after the last of all\n\
         requests beside it, all served, one at a time\n\
         no storm: {}\n\
         the same storm in another gateway on the same machine: {}\n\
         the storm in this gateway: {}\n\
         p99 in the storm to p99 without: {ratio:.2}\n",
        alone.pushing.as_secs_f64(),
        cpu.as_secs_f64(),
        alone.settling.as_millis(),
        quantiles(&mut calm),
        quantiles(&mut beside_another),
        quantiles(&mut stormy),
    );
    ensure!(cpu < CPU && memory < MEMORY, "{text}");
    report("storm", &text)
}

const CHANGES: &str = "graylane_directory_changes_total";
