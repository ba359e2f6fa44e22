//! Cities from several files, in the layouts that such files have.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Gateway, Stub, eventually};
use serde_json::{Value, json};

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules:
- {name: shenzhen, when: {city: {in: [Shenzhen]}}}
- {name: guangzhou, when: {city: {in: [广州市]}}}
- {name: beijing, when: {city: {in: [北京]}}}
- {name: own, when: {city: {in: [本地]}}}
- {name: unknown, when: {city: {exists: false}}}
";

/// Writes a database over an older one, as a process does that must not be seen half-way.
fn write(path: &Path, places: &[(&str, Value)]) -> anyhow::Result<()> {
    let mut writer = mmdb_writer::Writer::new("City");
    for (network, place) in places {
        let network: ipnet::IpNet = network.parse()?;
        writer.insert(network, place)?;
    }
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, writer.to_bytes()?)?;
    Ok(std::fs::rename(fresh, path)?)
}

/// `MaxMind`'s own layout.
fn nested(zh: &str, en: &str) -> Value {
    json!({ "city": { "names": { "zh-CN": zh, "en": en } }, "country": { "iso_code": "CN" } })
}

#[tokio::test]
async fn the_first_database_that_knows_an_address_says_its_city() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let (first, second) = (folder.path().join("first.mmdb"), folder.path().join("second.mmdb"));
    write(&first, &[("203.0.113.0/24", nested("深圳市", "Shenzhen"))])?;
    let flat = |city: &str| json!({ "city": city, "province": "广东省" });
    let elsewhere = [("203.0.113.0/24", flat("北京")), ("198.51.100.0/24", flat("Guangzhou"))];
    write(&second, &elsewhere)?;
    let registry = format!("services:\n  app:\n{}", stub.registry_line());
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n\
         rules: {files: ['{dir}/rules.yaml']}\ntrustedProxies: [127.0.0.1]\n\
         propagation: {decisionHeader: true}\n\
         places:\n  databases: ['{dir}/first.mmdb', '{dir}/second.mmdb']\n  \
         overrides: [{network: 203.0.113.7, city: 本地}]\n",
    )?;
    gateway.ready().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let rule = async |address: &str| {
        let request = client.get(gateway.url("/")).header("x-forwarded-for", address);
        let answer = request.header("x-graylane-explain", "1").send().await?;
        let decision = answer.headers()["x-graylane-decision"].to_str()?.to_owned();
        anyhow::Ok(decision)
    };
    for (address, expected) in [
        ("203.0.113.9", "shenzhen"),
        ("198.51.100.1", "guangzhou"),
        ("::ffff:198.51.100.1", "guangzhou"),
        ("203.0.113.7", "own"),
        ("192.0.2.1", "unknown"),
    ] {
        let decision = rule(address).await?;
        ensure!(decision.contains(&format!("rule={expected};")), "{address}: {decision}");
    }
    // The second is replaced: what the first knows stays.
    write(&second, &[("198.51.100.0/24", flat("北京市")), ("203.0.113.0/24", flat("北京市"))])?;
    eventually(Duration::from_secs(10), async || {
        let decision = rule("198.51.100.1").await?;
        ensure!(decision.contains("rule=beijing;"), "{decision}");
        Ok(())
    })
    .await?;
    ensure!(rule("203.0.113.9").await?.contains("rule=shenzhen;"));
    // One that is damaged is not taken.
    std::fs::write(gateway.folder.path().join("first.mmdb"), "no database")?;
    eventually(Duration::from_secs(10), async || {
        let printed = gateway.process.printed();
        ensure!(printed.contains("first.mmdb"), "nobody complained: {printed}");
        let text = gateway.ask("/readyz").await?;
        ensure!(text.contains("places and keys were not replaced"), "{text}");
        let failed = "graylane_reloads_total{files=\"places and keys\",result=\"failed\"}";
        ensure!(gateway.metric(failed).await? >= 1.0, "not counted");
        Ok(())
    })
    .await?;
    ensure!(rule("203.0.113.9").await?.contains("rule=shenzhen;"));
    Ok(())
}
