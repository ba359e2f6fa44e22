//! Signed tags at the gateway: who has a key chooses the lane, and sees where it led.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use gray_propagation::{GrayStatus, Hop, Lane, SignedTag, TagKey};
use gray_tests::{Echo, Gateway, Stub, binary};
use http::HeaderValue;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn key(secret: &str) -> anyhow::Result<TagKey> {
    Ok(TagKey::new("k1", secret.as_bytes())?)
}

fn tag(secret: &str, lane: &str, seconds: i64, probe: bool) -> anyhow::Result<HeaderValue> {
    let status = match lane {
        "gray" => GrayStatus::Gray(Lane::GRAY),
        lane => GrayStatus::Gray(lane.parse()?),
    };
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let expires = if seconds < 0 { now - offset } else { now + offset };
    key(secret)?.sign(&SignedTag { status, expires, probe }).context("no header")
}

struct Edge {
    gateway: Gateway,
    _stubs: [Stub; 2],
    client: reqwest::Client,
}

impl Edge {
    async fn start() -> anyhow::Result<Self> {
        let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
        let folder = tempfile::tempdir()?;
        let lines: String = stubs.iter().map(Stub::registry_line).collect();
        std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
        let rules = "base: {version: V1}\nlanes: [{name: gray, version: V2}, \
                     {name: shut, version: V2, enabled: false}]\n";
        std::fs::write(folder.path().join("rules.yaml"), rules)?;
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n"))?;
        let gateway = Gateway::start_in(
            folder,
            "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n\
             rules: {files: ['{dir}/rules.yaml']}\n\
             signedTags: [{id: k1, secretFile: '{dir}/secret'}]\n",
        )?;
        gateway.ready().await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { gateway, _stubs: stubs, client })
    }

    async fn get(&self, tag: Option<&HeaderValue>) -> anyhow::Result<(Option<HeaderValue>, Echo)> {
        let mut request = self.client.get(self.gateway.url("/"));
        if let Some(tag) = tag {
            request = request.header("x-graylane-tag", tag);
        }
        let answer = request.header("x-graylane-hop", "from=a; to=app").send().await?;
        let report = answer.headers().get("x-graylane-path").cloned();
        Ok((report, Echo::read(answer).await?))
    }
}

#[tokio::test]
async fn who_has_a_key_chooses_the_lane() -> anyhow::Result<()> {
    let edge = Edge::start().await?;
    let (report, echo) = edge.get(Some(&tag(SECRET, "gray", 60, false)?)).await?;
    ensure!(echo.version == "V2" && echo.header("gray") == ["GRAY"], "{echo:?}");
    ensure!(report.is_none(), "a report that nobody asked for: {report:?}");
    ensure!(echo.header("x-graylane-tag").is_empty(), "the tag was passed on: {echo:?}");
    ensure!(echo.header("x-graylane-hop") == ["from=graylane; to=app"], "{echo:?}");

    let other = "another secret of thirty-two bytes!";
    for (number, refused) in (1_u8..).zip([
        tag(other, "gray", 60, false)?,
        tag(SECRET, "gray", -1, false)?,
        tag(SECRET, "gray", 7200, false)?,
        HeaderValue::from_static("1;k1;GRAY;99999999999;t;AAAA"),
        HeaderValue::from_static("GRAY"),
    ]) {
        let (_, echo) = edge.get(Some(&refused)).await?;
        ensure!(echo.version == "V1" && echo.header("gray") == ["PROD"], "{refused:?}: {echo:?}");
        let counted = edge.gateway.metric("graylane_signed_tags_refused_total").await?;
        ensure!((counted - f64::from(number)).abs() < 0.5, "{counted} refused, not {number}");
    }
    // A lane that is switched off, or that nobody knows, is no lane to choose.
    for lane in ["shut", "nowhere"] {
        let (_, echo) = edge.get(Some(&tag(SECRET, lane, 60, false)?)).await?;
        ensure!(echo.header("gray") == ["PROD"], "{lane}: {echo:?}");
    }
    ensure!(edge.get(None).await?.1.version == "V1");
    let config = edge.gateway.ask("/api/v1/config").await?;
    ensure!(config.contains("secretFile") && !config.contains(SECRET), "{config}");
    Ok(())
}

#[tokio::test]
async fn who_asks_for_a_report_gets_one() -> anyhow::Result<()> {
    let edge = Edge::start().await?;
    let tag = tag(SECRET, "gray", 60, true)?;
    let (report, echo) = edge.get(Some(&tag)).await?;
    ensure!(echo.header("x-graylane-tag") == [tag.to_str()?], "{echo:?}");
    let report = report.as_ref().and_then(Hop::from_header).context("no report")?;
    ensure!(report.service == "graylane" && report.asked.as_deref() == Some("GRAY"), "{report:?}");
    let [call] = report.calls.as_slice() else { anyhow::bail!("{report:?}") };
    // The stub knows nothing of reports: only the gateway speaks of it.
    ensure!(call.service == "app" && call.version.as_deref() == Some("V2"), "{call:?}");
    ensure!(call.silent && call.fallback.is_none(), "{call:?}");
    Ok(())
}

/// What `graylane explain` says about a request that comes from this machine, from files and by the
/// running gateway, which must agree.
fn explained(gateway: &Gateway, headers: &[String]) -> anyhow::Result<serde_json::Value> {
    let run = |admin: Option<String>| -> anyhow::Result<String> {
        let mut command = Command::new(binary("graylane")?);
        command.args(["explain", "GET", "/", "--json"]).current_dir(gateway.folder.path());
        command.args(headers.iter().flat_map(|header| ["-H", header]));
        command.args(admin.iter().flat_map(|admin| ["--admin", admin]));
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let (files, running) = (run(None)?, run(Some(gateway.admin.to_string()))?);
    ensure!(files == running, "from files: {files}\nby the gateway: {running}");
    Ok(serde_json::from_str(&files)?)
}

#[tokio::test]
async fn explain_says_what_becomes_of_a_signed_tag() -> anyhow::Result<()> {
    let edge = Edge::start().await?;
    for (tag, said, lane) in [
        (tag(SECRET, "gray", 60, false)?, "signed: GRAY", "GRAY"),
        (tag(SECRET, "shut", 60, false)?, "signed, but shut is no lane here", "PROD"),
        (tag(SECRET, "gray", -1, false)?, "refused: the tag has expired", "PROD"),
    ] {
        let line = format!("x-graylane-tag: {}", tag.to_str()?);
        let answer = explained(&edge.gateway, &[line])?;
        ensure!(answer["tag"] == said && answer["decision"]["status"] == lane, "{answer}");
        let (_, echo) = edge.get(Some(&tag)).await?;
        ensure!(echo.header("gray") == [lane], "{said}: {echo:?}");
        let version = if lane == "GRAY" { "V2" } else { "V1" };
        ensure!(echo.version == version && answer["version"] == version, "{answer}: {echo:?}");
    }
    Ok(())
}

/// The gateway's own chain decides who the client is, whether its tag counts, and which headers are
/// looked at: those that `Connection` names are none.
#[tokio::test]
async fn explain_sees_a_request_as_the_gateway_does() -> anyhow::Result<()> {
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
    let folder = tempfile::tempdir()?;
    let lines: String = stubs.iter().map(Stub::registry_line).collect();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    let rules = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n\
                 - {name: office, when: {clientIp: {in: [203.0.113.0/24]}}}\n\
                 - {name: canary, when: {header: {name: x-canary, equal: '1'}}}\n";
    std::fs::write(folder.path().join("rules.yaml"), rules)?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n\
         rules: {files: ['{dir}/rules.yaml']}\n\
         trustedTags: [127.0.0.1]\ntrustedProxies: [127.0.0.1]\n",
    )?;
    gateway.ready().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (headers, lane, rule) in [
        (&[][..], "PROD", None),
        (&["gray: GRAY"], "GRAY", None),
        (&["gray: nowhere"], "PROD", None),
        (&["gray: PROD", "x-canary: 1"], "PROD", None),
        (&["x-forwarded-for: 203.0.113.9"], "GRAY", Some("office")),
        (&["x-forwarded-for: 203.0.113.9, 192.0.2.1"], "PROD", None),
        (&["x-canary: 1"], "GRAY", Some("canary")),
        (&["x-canary: 1", "connection: x-canary"], "PROD", None),
    ] {
        let lines: Vec<String> = headers.iter().map(|line| (*line).to_owned()).collect();
        let answer = explained(&gateway, &lines)?;
        let decision = &answer["decision"];
        ensure!(decision["status"] == lane && decision["rule"].as_str() == rule, "{answer}");
        let mut request = client.get(gateway.url("/"));
        for line in headers {
            let (name, value) = line.split_once(": ").context("no header")?;
            request = request.header(name, value);
        }
        let echo = Echo::read(request.send().await?).await?;
        ensure!(echo.header("gray") == [lane], "{headers:?}: {echo:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_weak_secret_is_named_at_the_start() -> anyhow::Result<()> {
    let started = Gateway::start("routes: [{service: a}]\nsignedTags: [{id: k1, secret: short}]\n");
    let error = started.err().context("it started")?.to_string();
    ensure!(error.contains("signedTags[0].secret: the secret has 5 bytes"), "{error}");
    Ok(())
}

/// The probe sends the headers that it is told, and so many requests at a time.
#[tokio::test]
async fn a_probe_does_as_its_flags_say() -> anyhow::Result<()> {
    // At work, at most at work, and those that came with the header.
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let seen = Arc::clone(&counts);
    let router = axum::Router::new().fallback(async move |headers: http::HeaderMap| {
        let now = seen[0].fetch_add(1, Ordering::Relaxed) + 1;
        seen[1].fetch_max(now, Ordering::Relaxed);
        let told = headers.get("x-user-no").is_some_and(|it| it == "7");
        let also = headers.get("x-more").is_some_and(|it| it == "a: b");
        seen[2].fetch_add(usize::from(told && also), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen[0].fetch_sub(1, Ordering::Relaxed);
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let probe = tokio::process::Command::new(binary("graylane")?)
        .args(["probe", &url, "-n", "12", "--concurrency", "3", "--key", &format!("k1:{SECRET}")])
        .args(["-H", "x-user-no: 7", "-H", "x-more: a: b"])
        .output()
        .await?;
    let printed = String::from_utf8_lossy(&probe.stdout).into_owned();
    ensure!(printed.contains("12 requests, 12 answered"), "{printed}");
    let [_, peak, told] = [0, 1, 2].map(|it| counts[it].load(Ordering::Relaxed));
    ensure!((peak, told) == (3, 12), "{peak} at a time, {told} with the headers");
    Ok(())
}
