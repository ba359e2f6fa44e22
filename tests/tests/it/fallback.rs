//! A lane that empties and fills again under load: gray is served by base only while it is empty.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, StandIn, Stub, eventually};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a change may take until every request follows it.
const BOUND: Duration = Duration::from_millis(100);
const TURNS: usize = 20;

/// What becomes of gray requests while their lane is empty.
const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
fallback: FALLBACK
rules: [{name: gray, when: {header: {name: x, equal: '1'}}}]
";

/// The version of what is refused instead.
const REFUSED: &str = "none";

/// What one request saw.
struct Seen {
    began: Instant,
    ended: Instant,
    gray: bool,
    version: String,
    lane: Vec<String>,
}

/// Asks until it is told to stop.
async fn client(url: String, gray: bool, until: Instant) -> anyhow::Result<Vec<Seen>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut all = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let request = client.get(&url).header("x", if gray { "1" } else { "0" });
        let answer = request.send().await?;
        let (version, lane) = if answer.status() == 503 {
            let text = answer.text().await?;
            ensure!(text.contains("\"code\":\"empty-lane\""), "{text}");
            (REFUSED.to_owned(), vec!["GRAY".to_owned()])
        } else {
            let echo = Echo::read(answer.error_for_status()?).await?;
            let lane = echo.header("gray").to_vec();
            (echo.version, lane)
        };
        all.push(Seen { began, ended: Instant::now(), gray, version, lane });
    }
    Ok(all)
}

/// Where the gateway finds instances.
enum Registry {
    File(PathBuf),
    /// A server that pushes when it is told to, so that it is known when.
    Nacos(StandIn, AtomicU64),
}

impl Registry {
    fn register(&self, stubs: &[&Stub]) -> anyhow::Result<()> {
        match self {
            Self::File(path) => {
                let lines: String = stubs.iter().map(|stub| stub.registry_line()).collect();
                let fresh = path.with_extension("fresh");
                std::fs::write(&fresh, format!("services:\n  app:\n{lines}"))?;
                std::fs::rename(fresh, path)?;
            }
            Self::Nacos(server, time) => {
                let host = |stub: &&Stub| {
                    json!({
                        "ip": "127.0.0.1", "port": stub.addr.port(), "weight": 1.0,
                        "healthy": true, "enabled": true, "metadata": { "version": stub.version },
                    })
                };
                let time = time.fetch_add(1, Ordering::Relaxed) + 1;
                server.push("app", time, &stubs.iter().map(host).collect());
            }
        }
        Ok(())
    }
}

/// Empties and fills the lane; returns when it was certainly there, and when it was certainly not,
/// both as the gateway could know it.
async fn churn(
    registry: &Registry,
    base: &Stub,
    lane: &Stub,
) -> anyhow::Result<Vec<(Instant, Instant, bool)>> {
    let mut spans = Vec::new();
    for turn in 0..TURNS {
        let there = turn % 2 == 0;
        let both = [base, lane];
        registry.register(if there { &both } else { &both[..1] })?;
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(250)).await;
        spans.push((began, Instant::now(), there));
    }
    Ok(spans)
}

#[tokio::test]
async fn gray_is_served_by_base_only_while_its_lane_is_empty_in_a_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let registry = Registry::File(folder.path().join("registry.yaml"));
    let discovery = "files: ['{dir}/registry.yaml']";
    served_otherwise_only_while_empty(folder, &registry, discovery, "base").await
}

/// And where base must never serve it, nobody does.
#[tokio::test]
async fn gray_is_refused_only_while_its_lane_is_empty() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let registry = Registry::File(folder.path().join("registry.yaml"));
    let discovery = "files: ['{dir}/registry.yaml']";
    served_otherwise_only_while_empty(folder, &registry, discovery, "fail").await
}

#[tokio::test]
async fn gray_is_served_by_base_only_while_its_lane_is_empty_by_push() -> anyhow::Result<()> {
    let server = StandIn::start().await?;
    let discovery = format!("nacos: [{{server: {{servers: ['{}']}}}}]", server.address()?);
    let registry = Registry::Nacos(server, AtomicU64::default());
    served_otherwise_only_while_empty(tempfile::tempdir()?, &registry, &discovery, "base").await
}

async fn served_otherwise_only_while_empty(
    folder: TempDir,
    registry: &Registry,
    discovery: &str,
    fallback: &str,
) -> anyhow::Result<()> {
    let otherwise = if fallback == "base" { "V1" } else { REFUSED };
    let (base, lane) = (Stub::start("V1").await?, Stub::start("V2").await?);
    registry.register(&[&base, &lane])?;
    let rules = RULES.replace("FALLBACK", fallback);
    std::fs::write(folder.path().join("rules.yaml"), rules)?;
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "routes: [{{service: app}}]\nrules: {{files: ['{{dir}}/rules.yaml']}}\n\
             discovery: {{{discovery}}}\n"
        ),
    )?;
    gateway.ready().await?;
    eventually(Duration::from_secs(5), async || {
        let text = gateway.ask("/api/v1/services").await?;
        ensure!(text.contains(&lane.addr.to_string()), "{text}");
        Ok(())
    })
    .await?;
    let length = Duration::from_millis(250) * u32::try_from(TURNS)?;
    let until = Instant::now() + length;
    let mut clients = JoinSet::new();
    for number in 0..6 {
        clients.spawn(client(gateway.url("/"), number % 3 > 0, until));
    }
    let spans = churn(registry, &base, &lane).await?;
    let (mut by_other, mut by_lane) = (0, 0);
    while let Some(seen) = clients.join_next().await {
        for one in seen?? {
            ensure!(one.lane == [if one.gray { "GRAY" } else { "PROD" }], "told {:?}", one.lane);
            ensure!(one.gray || one.version == "V1", "prod was served by gray");
            let right = !one.gray || one.version == "V2" || one.version == otherwise;
            ensure!(right, "gray was served by {}", one.version);
            // Within the bound after a change both are right.
            let inside = |span: &&(Instant, Instant, bool)| {
                span.0 + BOUND <= one.began && one.ended <= span.1
            };
            let Some((.., there)) = spans.iter().find(inside).filter(|_| one.gray) else {
                continue;
            };
            let expected = if *there { "V2" } else { otherwise };
            ensure!(one.version == expected, "by {}, and the lane was there: {there}", one.version);
            *(if *there { &mut by_lane } else { &mut by_other }) += 1;
        }
    }
    ensure!(by_other > 50 && by_lane > 50, "{by_other} otherwise, {by_lane} by the lane");
    let metrics = gateway.ask("/metrics").await?;
    let counted = |line: &str| line.contains("fallback") && line.contains("app");
    ensure!(metrics.lines().any(counted) == (fallback == "base"), "fallbacks: {metrics}");
    Ok(())
}
