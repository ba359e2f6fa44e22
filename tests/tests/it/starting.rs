//! Whether the gateway starts, where what it needs cannot be had.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Process, binary, free_port};

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
