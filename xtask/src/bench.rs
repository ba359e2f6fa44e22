use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::report::commit;
use crate::servers::{cache, run};
use crate::{root, say};

/// The version must be that of the crate in Cargo.toml.
const RUNNER: &str = "0.17.2";

/// Counts the instructions of a decision and times look-ups; writes the figures into bench/.
pub(crate) fn bench() -> anyhow::Result<()> {
    let runner = runner()?;
    let mut decision = Command::new("cargo");
    decision.args(["bench", "--quiet", "--package", "gray-gateway", "--bench", "decision"]);
    record(decision.env("GUNGRAUN_RUNNER", runner).env("GUNGRAUN_COLOR", "never"), "decision")?;
    let mut cidr = Command::new("cargo");
    cidr.args(["bench", "--quiet", "--package", "gray-filters", "--bench", "cidr"]);
    record(cidr.args(["--", "--noplot"]), "cidr")?;
    let mut layer = Command::new("cargo");
    layer.args(["bench", "--quiet", "--package", "gray-starter", "--bench", "layer"]);
    record(layer.args(["--", "--noplot"]), "layer")?;
    let mut client = Command::new("cargo");
    client.args(["bench", "--quiet", "--package", "gray-starter", "--bench", "client"]);
    record(&mut client, "client")
}

/// Runs a benchmark, and keeps what it prints as text, with the commit.
fn record(command: &mut Command, name: &str) -> anyhow::Result<()> {
    let output = command.current_dir(root()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{command:?}: {errors}");
    let commit = commit()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = printed.lines().map(str::trim_end).filter(|it| !it.is_empty()).collect();
    let text = format!("cargo xtask bench, at {commit}\n\n{}\n", lines.join("\n"));
    let path = root().join("bench").join(format!("{name}.txt"));
    std::fs::write(&path, &text)?;
    say(&text);
    Ok(())
}

/// Returns gungraun's runner, building it once.
fn runner() -> anyhow::Result<PathBuf> {
    let folder = cache().join(format!("gungraun-{RUNNER}"));
    let path = folder.join("bin/gungraun-runner");
    if !path.exists() {
        let mut install = Command::new("cargo");
        install.args(["install", "gungraun-runner", "--locked", "--version", RUNNER, "--root"]);
        run(install.arg(&folder)).context("gungraun-runner cannot be installed")?;
    }
    Ok(path)
}
