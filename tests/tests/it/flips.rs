//! Rules flip and instances come and go under load: no request fails, none sees two revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Echo, Gateway, Kind, Nacos, Stub, eventually};
use serde_json::Value;
use tokio::task::JoinSet;

const CLIENTS: usize = 16;

/// One request in so many has a body that takes longer than several flips.
const SLOW: usize = 50;

/// How often the rules flip at least, however soon the requests are over.
const FLIPS: usize = 250;

/// How many requests are sent at least; the rules flip 50 times a second, 200 where it is a long proof.
fn extent() -> (usize, Duration) {
    match std::env::var("GRAYLANE_REQUESTS").map(|text| text.parse()) {
        Ok(Ok(requests)) => (requests, Duration::from_millis(5)),
        _ => (10_000, Duration::from_millis(20)),
    }
}

/// `x: 1` is gray and gray is V2.
const ONE: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
fallback: fail
rules: [{name: one, when: {header: {name: x, equal: '1'}}}]
";

/// Everything but `x: 1` is gray and gray is V1: whoever mixes the two ends at the wrong version.
const OTHER: &str = "\
base: {version: V2}
lanes: [{name: gray, version: V1}]
fallback: fail
rules: [{name: other, when: {header: {name: x, notEqual: '1'}}}]
";

/// The lanes that requests with and without `x: 1` were in, by revision.
type Seen = BTreeMap<String, BTreeSet<(bool, String)>>;

async fn one_request(
    client: &reqwest::Client,
    url: &str,
    marked: bool,
    slow: bool,
) -> anyhow::Result<(String, String)> {
    let request = if slow { client.post(url).body(slow_body()) } else { client.get(url) };
    let request = request.header("x-graylane-explain", "1");
    let request = if marked { request.header("x", "1") } else { request };
    let answer = request.send().await?;
    let decision = answer.headers().get("x-graylane-decision").context("no decision")?;
    let decision = decision.to_str()?.to_owned();
    ensure!(answer.status() == 200, "{} {decision}", answer.status());
    let word = |key: &str| {
        let part = decision.split("; ").find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        part.unwrap_or_default().to_owned()
    };
    let echo = Echo::read(answer).await?;
    let expected = if marked { "V2" } else { "V1" };
    ensure!(echo.version == expected, "{decision}: served by {}", echo.version);
    ensure!(echo.header("gray") == [word("lane")], "{decision}: told {:?}", echo.header("gray"));
    ensure!(echo.version == word("version"), "{decision}: served by {}", echo.version);
    Ok((word("revision"), word("lane")))
}

/// A body that comes in four parts within 60 ms.
fn slow_body() -> reqwest::Body {
    let parts = futures_util::stream::unfold(0, |part| async move {
        if part > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (part < 4).then_some((Ok::<_, std::io::Error>("part"), part + 1))
    });
    reqwest::Body::wrap_stream(parts)
}

/// How far it is.
#[derive(Default)]
struct Progress {
    sent: AtomicUsize,
    flips: AtomicUsize,
    done: AtomicBool,
}

/// Sends the client's share of the requests.
async fn client(url: String, progress: Arc<Progress>) -> anyhow::Result<Seen> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut seen, (requests, _)) = (Seen::new(), extent());
    while progress.sent.load(Ordering::Relaxed) < requests
        || progress.flips.load(Ordering::Relaxed) < FLIPS
    {
        let number = progress.sent.fetch_add(1, Ordering::Relaxed);
        let marked = number.is_multiple_of(2);
        let slow = number % SLOW < 2;
        let (revision, lane) = one_request(&client, &url, marked, slow).await?;
        seen.entry(revision).or_default().insert((marked, lane));
    }
    Ok(seen)
}

/// Adds and removes instances twenty times a second; one of each version stays.
async fn churn(registry: &Path, stubs: &[Stub], progress: &Progress) -> anyhow::Result<()> {
    let fresh = registry.with_extension("fresh");
    while !progress.done.load(Ordering::Relaxed) {
        let keep = |(index, stub): (usize, &Stub)| {
            (index < 2 || fastrand::bool()).then(|| stub.registry_line())
        };
        let lines: String = stubs.iter().enumerate().filter_map(keep).collect();
        std::fs::write(&fresh, format!("services:\n  app:\n{lines}"))?;
        std::fs::rename(&fresh, registry)?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Flips the rules.
async fn flip(server: &Nacos, pause: Duration, progress: &Progress) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(pause);
    while !progress.done.load(Ordering::Relaxed) {
        tick.tick().await;
        let flips = progress.flips.fetch_add(1, Ordering::Relaxed);
        server.publish("rules.yaml", if flips.is_multiple_of(2) { OTHER } else { ONE }).await?;
    }
    Ok(())
}

async fn every_request_sees_one_revision(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    server.publish("rules.yaml", ONE).await?;
    let mut stubs = Vec::new();
    for version in ["V1", "V2", "V1", "V2", "V1", "V2"] {
        stubs.push(Stub::start(version).await?);
    }
    let folder = tempfile::tempdir()?;
    let lines: String = stubs.iter().map(Stub::registry_line).collect();
    let registry = folder.path().join("registry.yaml");
    std::fs::write(&registry, format!("services:\n  app:\n{lines}"))?;
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "nacos: {{servers: ['{}']}}\n\
             routes: [{{service: app}}]\n\
             discovery: {{files: ['{{dir}}/registry.yaml']}}\n\
             rules: {{nacos: {{dataIds: [rules.yaml]}}}}\n\
             propagation: {{decisionHeader: true}}\n\
             accessLog: {{enabled: true, file: '{{dir}}/access.log'}}\n",
            server.address()
        ),
    )?;
    gateway.ready().await?;
    let (_, pause) = extent();
    let (progress, began) = (Arc::new(Progress::default()), tokio::time::Instant::now());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(gateway.url("/"), Arc::clone(&progress)));
    }
    let load = async {
        let mut all = Seen::new();
        while let Some(seen) = clients.join_next().await {
            for (revision, lanes) in seen?? {
                all.entry(revision).or_default().extend(lanes);
            }
        }
        progress.done.store(true, Ordering::Relaxed);
        anyhow::Ok((all, began.elapsed()))
    };
    let ((seen, lasted), (), ()) = tokio::try_join!(
        load,
        churn(&registry, &stubs, &progress),
        flip(&server, pause, &progress)
    )?;
    let flips = progress.flips.load(Ordering::Relaxed);
    let both = |marked: &str, other: &str| {
        BTreeSet::from([(true, marked.to_owned()), (false, other.to_owned())])
    };
    let expected = [both("GRAY", "PROD"), both("PROD", "GRAY")];
    ensure!(seen.len() == 2, "{flips} flips, but the revisions were {seen:?}");
    ensure!(seen.values().all(|lanes| expected.contains(lanes)), "{seen:?}");
    let replaced = gateway.metric("graylane_rules_accepted_total").await?;
    // The Java server gathers changes before it pushes; with the other, all four processes share
    // two cores. How many there are in a release build is in the report.
    #[allow(clippy::cast_precision_loss, reason = "a count")]
    let least = if kind == Kind::Java { 10.0 } else { flips as f64 / 5.0 };
    ensure!(replaced >= least, "{flips} flips, but only {replaced} revisions");
    logged_as_decided(&gateway, &progress).await?;
    report(kind, &gateway, &progress, lasted).await
}

/// Every line of the access log tells of one revision, too: its rule, lane and version fit together.
async fn logged_as_decided(gateway: &Gateway, progress: &Progress) -> anyhow::Result<()> {
    let path = gateway.folder.path().join("access.log");
    let lines = eventually(Duration::from_secs(10), async || {
        let text = std::fs::read_to_string(&path)?;
        let lines: Vec<Value> =
            text.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
        let requests = progress.sent.load(Ordering::Relaxed);
        let dropped = gateway.metric("graylane_access_log_dropped_total").await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let told = lines.len() + dropped as usize;
        ensure!(told >= requests, "{told} of {requests} requests are logged");
        Ok(lines)
    })
    .await?;
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    // Which version is gray by each revision, as its gray requests say.
    let mut gray: BTreeMap<String, &str> = BTreeMap::new();
    for line in lines.iter().filter(|line| word(line, "lane") == "GRAY") {
        let version = if word(line, "rule") == "one" { "V2" } else { "V1" };
        ensure!(word(line, "version") == version, "{line}");
        let known = *gray.entry(word(line, "revision")).or_insert(version);
        ensure!(known == version, "two revisions of one name: {line}");
    }
    for line in lines.iter().filter(|line| word(line, "lane") == "PROD") {
        let gray = gray.get(&word(line, "revision")).copied();
        ensure!(gray.is_some_and(|gray| word(line, "version") != gray), "{line}");
    }
    Ok(())
}

/// Keeps what a long proof saw, where that is asked for.
async fn report(
    kind: Kind,
    gateway: &Gateway,
    progress: &Progress,
    lasted: Duration,
) -> anyhow::Result<()> {
    let Some(report) = std::env::var_os("GRAYLANE_REPORT") else { return Ok(()) };
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    let (requests, flips) = (count(&progress.sent), count(&progress.flips));
    let replaced = gateway.metric("graylane_rules_accepted_total").await?;
    let changes = gateway.metric("graylane_directory_changes_total").await?;
    let text = format!(
        "{kind:?}: {requests} requests in {lasted:.0?} by {CLIENTS} clients, every {}th with a body \
         of 60 ms\n\
         rules published: {flips} times, in force: {replaced} revisions; instances replaced: \
         {changes} times\n\
         failed: 0; by a version that was not its own: 0; by two revisions: 0\n",
        SLOW / 2
    );
    let mut report = std::fs::OpenOptions::new().create(true).append(true).open(report)?;
    Ok(report.write_all(text.as_bytes())?)
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn ten_thousand_requests_while_rules_flip() -> anyhow::Result<()> {
        every_request_sees_one_revision(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn ten_thousand_requests_while_rules_flip() -> anyhow::Result<()> {
        every_request_sees_one_revision(Kind::Java).await
    }
}
