use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, bail};

use crate::bench::target;
use crate::report::{commit, sign};
use crate::servers::{install, run};
use crate::{root, say};

/// What the others are compared with, where it is among those that are measured.
const BASE: &str = "haproxy";

/// Gateways that can be had; `graylane` is built.
const PEERS: [&str; 5] = [BASE, "nginx", "envoy", "pingora", "graylane"];

/// Measures gateways in turns; writes `bench/peers.txt`, and each turn into `bench/peers.jsonl`.
pub(crate) fn measure(names: &[String], turns: usize) -> anyhow::Result<()> {
    let commit = commit()?;
    let mut kinds = Vec::new();
    for name in PEERS.iter().filter(|peer| names.iter().any(|name| name == *peer)) {
        let path =
            if *name == "graylane" { target().join("release/graylane") } else { install(name)? };
        kinds.push(format!("{name}={}", path.display()));
    }
    if let Some(unknown) = names.iter().find(|name| !PEERS.contains(&name.as_str())) {
        bail!("there is no peer `{unknown}`, only {}", PEERS.join(", "));
    }
    build()?;
    let report = root().join("bench/peers.txt");
    let mut text = machine()?;
    for (title, arguments) in [
        ("turns", vec!["turns".to_owned(), format!("--turns={turns}"), rows()]),
        ("idle connections", vec!["idle".to_owned()]),
    ] {
        say(&format!("measuring: {title}"));
        let printed = bench(&arguments, &kinds)?;
        say(&printed);
        // Writing into a text does not fail.
        let _ = writeln!(text, "{printed}");
    }
    std::fs::write(&report, text)?;
    sign(&report, &format!("cargo xtask bench --peers {}", names.join(",")), &commit)
}

fn rows() -> String {
    format!("--rows={}", root().join("bench/peers.jsonl").display())
}

/// Builds the gateway as it is shipped, and what measures it.
pub(crate) fn build() -> anyhow::Result<()> {
    let packages = ["--package", "gray-gateway", "--package", "gray-bench"];
    let mut build = Command::new("cargo");
    run(build.args(["build", "--release", "--quiet"]).args(packages).current_dir(root()))
}

/// Runs what measures, and returns what it prints.
pub(crate) fn bench(arguments: &[String], kinds: &[String]) -> anyhow::Result<String> {
    let mut bench = Command::new(target().join("release/bench"));
    let output =
        bench.args(arguments).args(kinds).output().context("the benchmark is not built")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// Says on what it was measured.
fn machine() -> anyhow::Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    let count = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = |command: &str, argument: &str| {
        let output = Command::new(command).arg(argument).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines().next().map(str::to_owned)
    };
    let versions = [version("nginx", "-v"), version("haproxy", "-v")];
    let versions: Vec<String> = versions.into_iter().flatten().collect();
    Ok(format!(
        "{count} cores of {model}, Linux {}; {}; Envoy 1.40.0, Pingora 0.9.1; gateways on one core, load \
         and upstreams on the other\n",
        kernel.trim(),
        versions.join("; ")
    ))
}
