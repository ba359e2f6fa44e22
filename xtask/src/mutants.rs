use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{root, say};

/// A guard of the switch, and what it is broken into: the file, what stands there, what is put there.
const MUTANTS: [(&str, &str, &str, &str); 8] = [
    ("fences before everybody has agreed", "table.rs", "if !awaited.is_empty() {", "if false {"),
    (
        "a fence below what has been pulled",
        "table.rs",
        "Fence { from: end, owner",
        "Fence { from: end.saturating_sub(1), owner",
    ),
    (
        "an agreement of an epoch that is over",
        "table.rs",
        "member.acknowledged.max(epoch)",
        "member.acknowledged.max(epoch).max(self.epoch)",
    ),
    (
        "one epoch for two intents",
        "table.rs",
        "self.epoch += 1;\n        self.intent.get_or_insert_default()",
        "self.intent.get_or_insert_default()",
    ),
    (
        "handling goes on while something is to be changed",
        "standing.rs",
        "if lane.is_some_and(|lane| self.held.contains(&lane)) {",
        "if false {",
    ),
    (
        "tables that are out of date are taken",
        "standing.rs",
        "if table.epoch() < self.epoch {\n            return;",
        "if false {\n            return;",
    ),
    (
        "whoever sleeps handles what it pulled",
        "standing.rs",
        "if self.lease == Lease::RunOut {\n            return Verdict::Discard;",
        "if false {\n            return Verdict::Discard;",
    ),
    (
        "a member agrees before it has stopped",
        "standing.rs",
        "self.take(table);\n        if pending",
        "if !pending {\n            self.take(table);\n        }\n        if pending",
    ),
];

/// The crates that the switch needs.
const NEEDED: [&str; 5] = ["config", "lb", "mq", "propagation", "starter"];

/// Breaks each guard of the switch, and sees that the exploration of `mq/tests/switch` finds it.
pub(crate) fn mutants() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("graylane-mutants-{}", std::process::id()));
    let found = explore(&folder);
    // What is left in the temporary folder does no harm.
    let _ = std::fs::remove_dir_all(&folder);
    let report = root().join("tests/reports/mutants.txt");
    Ok(std::fs::write(report, found?)?)
}

fn explore(folder: &Path) -> anyhow::Result<String> {
    copy(folder)?;
    let intact = run(folder)?;
    ensure!(intact.is_none(), "the switch itself is wrong: {intact:?}");
    let mut text =
        "guards of the switch that were broken on purpose, and what was found then\n".to_owned();
    for (name, file, from, to) in MUTANTS {
        let path = folder.join("mq/src/ownership").join(file);
        let whole = std::fs::read_to_string(&path)?;
        ensure!(whole.contains(from), "{file} has no {from:?}");
        std::fs::write(&path, whole.replacen(from, to, 1))?;
        let wrong = run(folder)?.with_context(|| format!("nobody notices: {name}"))?;
        std::fs::write(&path, whole)?;
        say(&format!("{name}: {wrong}"));
        let _ = write!(text, "\n{name}:\n  {wrong}\n");
    }
    Ok(text)
}

/// Makes a workspace of the crates that the switch needs.
fn copy(folder: &Path) -> anyhow::Result<()> {
    for name in NEEDED {
        copy_folder(&root().join(name), &folder.join(name))?;
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let line = |line: &&str| !line.starts_with("default-members");
    let lines = manifest.lines().filter(line).map(|line| {
        let members = line.starts_with("members = ");
        if members { format!("members = {NEEDED:?}") } else { line.to_owned() }
    });
    std::fs::write(folder.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n"))?;
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target: PathBuf = to.join(path.file_name().context("no name")?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Explores the switch; returns what is wrong, `None` where nothing is.
fn run(folder: &Path) -> anyhow::Result<Option<String>> {
    let mut test = Command::new("cargo");
    test.args(["test", "--release", "--quiet", "--package", "gray-mq", "--test", "switch"]);
    let output =
        test.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target")).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(None);
    }
    let said = printed.lines().find_map(|line| line.trim().strip_prefix("left: Some(\""));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said.with_context(|| format!("the exploration did not run: {printed}{errors}"))?;
    Ok(Some(said.trim_end_matches("\")").to_owned()))
}
