use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::report::commit;
use crate::servers::{cache, run};
use crate::{peers, root, say};

/// The version must be that of the crate in Cargo.toml.
const RUNNER: &str = "0.17.2";

/// What is measured: the benchmark, its crate, and what it is told.
const ALL: [(&str, &str, &[&str]); 4] = [
    ("decision", "gray-gateway", &[]),
    ("cidr", "gray-filters", &["--", "--noplot"]),
    ("layer", "gray-starter", &["--", "--noplot"]),
    ("client", "gray-starter", &[]),
];

/// Counts the instructions of a decision and times look-ups; writes the figures into bench/.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Runs only benchmarks whose names contain this.
    filter: Option<String>,
    /// Measures the gateway beside these peers instead, in turns: `nginx,haproxy,envoy,pingora,graylane`.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How many turns each of them has.
    #[arg(long, default_value_t = 40)]
    turns: usize,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if !self.peers.is_empty() {
            return peers::measure(&self.peers, self.turns);
        }
        let (runner, commit) = (runner()?, commit()?);
        // What was measured before is in the history, and of another machine or build.
        for kept in ["criterion", "gungraun"] {
            let _ = std::fs::remove_dir_all(target().join(kept));
        }
        let wanted = |name: &str| self.filter.as_ref().is_none_or(|part| name.contains(part));
        for (name, package, more) in ALL.into_iter().filter(|(name, ..)| wanted(name)) {
            let mut bench = Command::new("cargo");
            bench.args(["bench", "--quiet", "--package", package, "--bench", name]).args(more);
            bench.env("GUNGRAUN_RUNNER", &runner).env("GUNGRAUN_COLOR", "never");
            record(&mut bench, name, &commit)?;
        }
        Ok(())
    }
}

pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a benchmark, and keeps what it prints as text, with the commit.
fn record(command: &mut Command, name: &str, commit: &str) -> anyhow::Result<()> {
    let output = command.current_dir(root()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{command:?}: {errors}");
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
