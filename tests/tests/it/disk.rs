//! A disk that is full: what is kept for a bad day cannot be written, and nothing else suffers.

use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Stub, eventually};

#[tokio::test]
async fn a_full_disk_stops_neither_requests_nor_changes() -> anyhow::Result<()> {
    let (one, other) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    let register = |stub: &Stub| {
        let text = format!("services:\n  app:\n{}", stub.registry_line());
        std::fs::write(path.join("registry.yaml"), text)
    };
    register(&one)?;
    std::fs::write(path.join("rules.yaml"), "base: {version: V1}\n")?;
    // Both are written under this name first; whatever is written to it, the disk is full.
    for name in ["rules.snapshot.fresh", "instances.snapshot.fresh"] {
        symlink("/dev/full", path.join(name))?;
    }
    let mut gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\n\
         discovery: {files: ['{dir}/registry.yaml'], snapshot: '{dir}/instances.snapshot'}\n\
         rules: {files: ['{dir}/rules.yaml'], snapshot: '{dir}/rules.snapshot'}\n",
    )?;
    gateway.ready().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let serves = async |gateway: &Gateway, version: &str| {
        eventually(Duration::from_secs(10), async || {
            let answer = client.get(gateway.url("/")).send().await?.error_for_status()?;
            let served = Echo::read(answer).await?.version;
            ensure!(served == version, "{served} instead of {version}");
            Ok(())
        })
        .await
    };
    serves(&gateway, "V1").await?;
    register(&other)?;
    std::fs::write(path.join("rules.yaml"), "base: {version: V2}\n")?;
    serves(&gateway, "V2").await?;
    for what in ["rules", "instances"] {
        eventually(Duration::from_secs(10), async || {
            let printed = gateway.process.printed();
            let told = printed
                .lines()
                .any(|line| line.contains(&format!("{what}.snapshot: No space left")));
            ensure!(told, "nobody is told of the {what}: {printed}");
            Ok(())
        })
        .await?;
        ensure!(!path.join(format!("{what}.snapshot")).exists(), "half a snapshot is there");
    }
    gateway.restart()?;
    gateway.ready().await?;
    serves(&gateway, "V2").await
}
