//! Signed tags at the gateway: who has a key chooses the lane, and sees where it led.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use gray_propagation::{GrayStatus, Hop, Lane, SignedTag, TagKey};
use gray_tests::{Echo, Gateway, Stub};
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

#[tokio::test]
async fn a_weak_secret_is_named_at_the_start() -> anyhow::Result<()> {
    let started = Gateway::start("routes: [{service: a}]\nsignedTags: [{id: k1, secret: short}]\n");
    let error = started.err().context("it started")?.to_string();
    ensure!(error.contains("signedTags[0].secret: the secret has 5 bytes"), "{error}");
    Ok(())
}
