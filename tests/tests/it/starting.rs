//! Whether the gateway starts, where what it needs cannot be had.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Process, Stub, binary, eventually, free_port};

/// Starts a gateway whose Nacos is not there, and returns its exit code and what it printed.
fn start(config: &str) -> anyhow::Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    let port = free_port(&[1000]);
    let dir = folder.path().display().to_string();
    let config = format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: ''}}\n\
         routes: [{{service: app}}]\nnacos: {{servers: ['127.0.0.1:{port}']}}\n{}",
        config.replace("{dir}", &dir)
    );
    let path = folder.path().join("graylane.yaml");
    std::fs::write(&path, config)?;
    let mut command = Command::new(binary("graylane")?);
    command.args(["run", "-c"]).arg(&path);
    let mut process = Process::start(&mut command, &folder.path().join("log"))?;
    let code = process.wait(Duration::from_secs(20))?;
    Ok((code, process.printed()))
}

#[test]
fn required_rules_that_cannot_be_had_end_the_start() -> anyhow::Result<()> {
    let (code, printed) = start(
        "rules: {required: true, nacos: {}, snapshot: '{dir}/rules'}\n\
         discovery: {files: []}\n",
    )?;
    ensure!(code == Some(2), "{code:?}: {printed}");
    ensure!(printed.contains("rules are required and cannot be had"), "{printed}");
    ensure!(printed.contains("127.0.0.1"), "no server is named: {printed}");
    Ok(())
}

#[test]
fn required_instances_that_cannot_be_had_end_the_start() -> anyhow::Result<()> {
    let (code, printed) =
        start("discovery: {required: true, nacos: [{}], snapshot: '{dir}/instances'}\n")?;
    ensure!(code == Some(2), "{code:?}: {printed}");
    ensure!(printed.contains("instances are required and cannot be had"), "{printed}");
    Ok(())
}

/// Rules are configured, wrong, and were never in force: nobody knows which lane a request belongs to,
/// so that none is served, least of all by a gray instance.
#[tokio::test]
async fn without_any_rules_nothing_is_served_until_they_come() -> anyhow::Result<()> {
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
    let folder = tempfile::tempdir()?;
    let lines: String = stubs.iter().map(Stub::registry_line).collect();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    std::fs::write(folder.path().join("rules.yaml"), "rules: [")?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n\
         rules: {files: ['{dir}/rules.yaml']}\n",
    )?;
    for _ in 0..10 {
        let answer = reqwest::get(gateway.url("/")).await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 503 && text.contains("\"code\":\"no-rules\""), "{status} {text}");
    }
    let text = gateway.ask("/readyz").await?;
    ensure!(text.contains("no rules are in force yet"), "{text}");
    ensure!(stubs.iter().all(|stub| stub.requests() == 0), "something was served");
    std::fs::write(gateway.folder.path().join("rules.yaml"), "base: {version: V1}\n")?;
    eventually(Duration::from_secs(10), async || {
        let answer = reqwest::get(gateway.url("/")).await?.error_for_status()?;
        ensure!(Echo::read(answer).await?.version == "V1", "by gray");
        Ok(())
    })
    .await
}

/// One instance that is wrong is refused, counted and shown, and the others are called; a file that is
/// wrong as a whole changes nothing, and is shown as well.
#[tokio::test]
async fn a_registry_file_is_judged_instance_by_instance() -> anyhow::Result<()> {
    let (one, two) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let folder = tempfile::tempdir()?;
    let write = |folder: &std::path::Path, text: &str| {
        std::fs::write(folder.join("registry.yaml"), format!("services:\n  app:\n{text}"))
    };
    let wrong = "  - {address: 'localhost:8080'}\n  - {address: '127.0.0.1:65536'}\n";
    write(folder.path(), &format!("{}{wrong}", one.registry_line()))?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n",
    )?;
    let version =
        async || Echo::read(reqwest::get(gateway.url("/")).await?.error_for_status()?).await;
    ensure!(version().await?.version == "V1");
    ensure!((gateway.metric("graylane_instances_refused").await? - 2.0).abs() < 0.5);
    let text = gateway.ask("/readyz").await?;
    ensure!(text.contains("localhost") && text.contains("port 65536"), "{text}");

    write(gateway.folder.path(), "  - {addres: x}\n")?;
    eventually(Duration::from_secs(10), async || {
        let text = gateway.ask("/readyz").await?;
        let shown = text.contains("a registry was rejected") && text.contains("`addres`");
        ensure!(shown && text.contains("\"ready\":true"), "{text}");
        ensure!(gateway.metric("graylane_registries_rejected_now").await? > 0.5, "not counted");
        Ok(())
    })
    .await?;
    ensure!(version().await?.version == "V1");
    write(gateway.folder.path(), &two.registry_line())?;
    eventually(Duration::from_secs(10), async || {
        ensure!(version().await?.version == "V2", "not yet");
        ensure!(gateway.metric("graylane_registries_rejected_now").await? < 0.5, "still counted");
        Ok(())
    })
    .await
}

#[test]
fn required_rules_that_are_wrong_are_shown() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, "rules: [{name: a, lane: nowhere}]\n")?;
    let (code, printed) =
        start(&format!("rules: {{required: true, files: ['{}']}}\n", rules.display()))?;
    ensure!(code == Some(2), "{code:?}: {printed}");
    ensure!(printed.contains("rules[0].lane"), "{printed}");
    Ok(())
}

/// Nobody says anything about a service that is in no file, and the gateway once waited for that word: what it
/// knows is that there is no instance.
#[tokio::test]
async fn a_service_that_is_in_no_file_keeps_no_gateway_from_being_ready() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let line = stub.registry_line();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{line}"))?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app, match: {path: {prefix: /app}}}, {service: none}]\n\
         discovery: {files: ['{dir}/registry.yaml']}\n",
    )?;
    eventually(Duration::from_secs(10), async || {
        let text = gateway.ask("/readyz").await?;
        ensure!(text.contains("\"ready\":true"), "{text}");
        ensure!(text.contains("no instance of none is registered in"), "{text}");
        Ok(())
    })
    .await?;
    ensure!(reqwest::get(gateway.url("/app")).await?.status() == 200);
    let answer = reqwest::get(gateway.url("/")).await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status == 503 && text.contains("no instance of none"), "{status} {text}");
    Ok(())
}

#[test]
fn an_address_that_is_taken_is_named_once() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("graylane.yaml");
    std::fs::write(
        &path,
        format!(
            "listeners: [{{address: '{addr}'}}]\nadmin: {{address: ''}}\nroutes: [{{service: app}}]\n"
        ),
    )?;
    let output = Command::new(binary("graylane")?).args(["run", "-c"]).arg(&path).output()?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2), "{output:?}");
    ensure!(printed.matches(&format!("cannot listen on {addr}")).count() == 1, "{printed}");
    Ok(())
}
