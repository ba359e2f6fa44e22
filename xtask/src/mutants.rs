use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{root, say};

/// A guard of the switch, and what it is broken into: the file, what stands there, what is put there.
const MUTANTS: [(&str, &str, &str, &str); 13] = [
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
    (
        "a fence that counts one message later",
        "fences.rs",
        "partition_point(|fence| fence.from <= offset)",
        "partition_point(|fence| fence.from < offset)",
    ),
    (
        "fences are forgotten that are still needed",
        "fences.rs",
        "rposition(|fence| fence.from <= committed)",
        "rposition(|_| true)",
    ),
    (
        "a lease that never runs out",
        "lease.rs",
        "now.duration_since(*last) < self.half",
        "now.duration_since(*last) < self.half * 1_000",
    ),
    (
        "whoever is missed once is gone",
        "absence.rs",
        "now.duration_since(**since) >= self.length",
        "now.duration_since(**since) >= self.length / 1_000",
    ),
    (
        "a queue is read by two of one group",
        "table.rs",
        "other.side == member.side && other.queues.contains(*queue)",
        "other.side == member.side && false && other.queues.contains(*queue)",
    ),
];

/// How the audit is run with a broken guard: short, with what its chances are best in.
const AUDIT: [&str; 9] =
    ["run", "--cycles", "5", "--rate", "500", "--restarts", "1", "--scheme", "property"];

/// Breaks each guard of the switch, and sees that the exploration of `mq/tests/switch`, or where it lies
/// outside of what that models a unit test, finds it; and whether the audit on the real broker does.
pub(crate) fn mutants() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("graylane-mutants-{}", std::process::id()));
    let found = break_each(&folder);
    // What is left in the temporary folder does no harm.
    let _ = std::fs::remove_dir_all(&folder);
    let report = root().join("tests/reports/mutants.txt");
    Ok(std::fs::write(report, found?)?)
}

fn break_each(folder: &Path) -> anyhow::Result<String> {
    copy(folder)?;
    let intact = explore(folder)?;
    ensure!(intact.is_none(), "the switch itself is wrong: {intact:?}");
    let intact = test(folder)?;
    ensure!(intact.is_none(), "the switch itself is wrong: {intact:?}");
    let intact = audit(folder)?;
    ensure!(intact == "nothing", "the switch itself is wrong: {intact}");
    let mut text =
        "guards of the switch that were broken on purpose, and what was found then\n".to_owned();
    for (name, file, from, to) in MUTANTS {
        let path = folder.join("mq/src/ownership").join(file);
        let whole = std::fs::read_to_string(&path)?;
        ensure!(whole.contains(from), "{file} has no {from:?}");
        std::fs::write(&path, whole.replacen(from, to, 1))?;
        say(&format!("broken: {name}"));
        let explored = explore(folder)?.map(|wrong| format!("the model: {wrong}"));
        let wrong = match explored {
            Some(wrong) => wrong,
            None => test(folder)?.with_context(|| format!("nobody notices: {name}"))?,
        };
        let audited = audit(folder)?;
        std::fs::write(&path, whole)?;
        say(&format!("{wrong}; {audited}"));
        let _ = write!(text, "\n{name}:\n  {wrong}\n  the audit: {audited}\n");
    }
    Ok(text)
}

/// Makes a copy of the whole workspace, with nothing but what is in the repository.
fn copy(folder: &Path) -> anyhow::Result<()> {
    let listed = Command::new("git").arg("ls-files").current_dir(root()).output()?;
    ensure!(listed.status.success(), "git does not say what belongs to the repository");
    for name in String::from_utf8(listed.stdout)?.lines() {
        let (from, to) = (root().join(name), folder.join(name));
        if from.is_file() {
            std::fs::create_dir_all(to.parent().context("no folder")?)?;
            std::fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Runs cargo in the copy, with a build folder of its own: crates of copies are not told apart, and what
/// was built of a broken guard would pass for the workspace's own.
fn cargo(folder: &Path, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
    Ok(cargo.env("RUST_BACKTRACE", "0").output()?)
}

/// Explores the switch; returns what is wrong, `None` where nothing is.
fn explore(folder: &Path) -> anyhow::Result<Option<String>> {
    let test = ["test", "--release", "--quiet", "--package", "gray-mq", "--test", "switch"];
    let output = cargo(folder, &test)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(None);
    }
    let said = printed.lines().find_map(|line| line.trim().strip_prefix("left: Some(\""));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said.with_context(|| format!("the exploration did not run: {printed}{errors}"))?;
    Ok(Some(said.trim_end_matches("\")").to_owned()))
}

/// Runs the unit tests; returns the first that fails, `None` where none does.
fn test(folder: &Path) -> anyhow::Result<Option<String>> {
    let output = cargo(folder, &["test", "--release", "--quiet", "--package", "gray-mq", "--lib"])?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = printed.lines().find_map(|line| line.strip_suffix(" --- FAILED"));
    ensure!(output.status.success() || failed.is_some(), "no test ran: {printed}");
    Ok(failed.map(|name| format!("outside of the model; the unit test {name}")))
}

/// Audits messages on the real broker; returns what was found.
fn audit(folder: &Path) -> anyhow::Result<String> {
    let mut run = vec!["run", "--quiet", "--package", "gray-tests", "--features", "audit"];
    run.extend(["--bin", "audit", "--"]);
    run.extend(AUDIT);
    let output = cargo(folder, &run)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok("nothing".to_owned());
    }
    let counts = printed.lines().filter(|line| {
        let wrong = ["lost: ", "handled by a group that", "handled by both", "handled twice"];
        wrong.iter().any(|wrong| line.starts_with(wrong)) && !line.ends_with(": 0")
    });
    let counts: Vec<&str> = counts.collect();
    if counts.is_empty() {
        // It did not even come to an end.
        let said = errors.lines().find(|line| line.starts_with("Error: ")).unwrap_or("Error: ?");
        return Ok(format!("did not end: {}", said.chars().take(200).collect::<String>()));
    }
    Ok(counts.join("; "))
}
