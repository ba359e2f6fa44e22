use std::fmt::Write;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, ensure};

use crate::mutants::mutants;
use crate::servers::{self, run};
use crate::{report, root, say};

/// How many generated worlds the decision is compared with its model on.
const CASES: &str = "1000000";

/// Tests that take longer here than in CI, by the reports that they write.
const LONGER: [(&str, &str); 6] = [
    ("demo", "demo::the_demo"),
    ("flips", "flips::"),
    ("replacement", "instances_are_replaced_without_a_failed_request"),
    ("outage", "outage::"),
    ("partition", "partition::"),
    ("traces", "traces::"),
];

/// How often every instance is replaced, politely and rudely.
const ROUNDS: &str = "10";

/// How long a broker or Nacos is away, each time, in seconds.
const OUTAGE: &str = "60";

/// How many requests are followed through services and messages.
const TRACES: &str = "10000";

/// Runs the long proofs, in release builds; their reports go to `tests/reports`.
#[derive(Debug, clap::Args)]
pub(crate) struct Prove {
    /// Runs only proofs whose names contain this.
    filter: Option<String>,
}

impl Prove {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (began, commit) = (SystemTime::now(), report::commit()?);
        let proved = self.prove();
        // Also what was proved before something failed.
        let words = ["cargo xtask prove", self.filter.as_deref().unwrap_or_default()];
        report::sign_all(began, words.join(" ").trim_end(), &commit)?;
        proved
    }

    fn prove(&self) -> anyhow::Result<()> {
        let filter = self.filter.as_deref();
        if filter.is_none_or(|filter| "mutants".contains(filter)) {
            mutants()?;
        }
        if filter.is_none_or(|filter| "exploration".contains(filter)) {
            explore()?;
        }
        for name in servers::ALL {
            servers::install(name)?;
        }
        cargo(&["build", "--release", "--workspace", "--bins"])?;
        if filter.is_none_or(|filter| "model".contains(filter)) {
            say(&format!("comparing {CASES} decisions with the model"));
            cargo(&["test", "--release", "--package", "gray-tests", "--test", "it", "model::"])?;
            let text = format!(
                "{CASES} generated worlds (rules, lanes, instances, requests): the gateway decides \
                 and picks as the independent model of tests/tests/it/model.rs does, and explain \
                 says the same\n"
            );
            std::fs::write(root().join("tests/reports/model.txt"), text)?;
        }
        for (name, test) in LONGER {
            if filter.is_none_or(|filter| name.contains(filter)) {
                let report = root().join(format!("tests/reports/{name}.txt"));
                // Some are written by several tests, line by line.
                let _ = std::fs::remove_file(&report);
                let mut command = command(&["test", "--release", "--package", "gray-tests"]);
                command.args(["--test", "it", test, "--", "--test-threads", "1"]);
                run(command.env("GRAYLANE_REPORT", report))?;
            }
        }
        for name in ["switches", "overhead"] {
            if filter.is_none_or(|filter| name.contains(filter)) {
                let report = root().join(format!("tests/reports/{name}.txt"));
                let report = report.display().to_string();
                let mut arguments = vec!["run", "--release", "--package", "gray-tests"];
                arguments.extend(["--features", "audit", "--bin", "audit", "--", name]);
                arguments.extend(["--report", &report]);
                cargo(&arguments)?;
            }
        }
        let mut arguments = vec!["test", "--release", "--package", "gray-tests", "--test", "prove"];
        arguments.extend(["--", "--test-threads", "1"]);
        arguments.extend(filter);
        cargo(&arguments)
    }
}

/// Explores switches with two consumers, of which none fails, and three messages.
fn explore() -> anyhow::Result<()> {
    const LANE: &str = "a_lane_opens_and_closes";
    let mut text =
        "every interleaving of a switch with two consumers and three messages; none loses a \
                    message, or has it handled by whom it does not belong to\n"
            .to_owned();
    let mut command = command(&["test", "--release", "--package", "gray-mq", "--test", "switch"]);
    command.args(["--", "--exact", "--nocapture", LANE]).env("GRAYLANE_MESSAGES", "3");
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{LANE}: {printed}");
    let states = printed.lines().find(|line| line.ends_with(" states"));
    let states = states.context("it does not say how much was explored")?;
    // Writing into a text does not fail.
    let _ = writeln!(text, "{}: {states}", LANE.replace('_', " "));
    Ok(std::fs::write(root().join("tests/reports/exploration.txt"), text)?)
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    run(&mut command(arguments))
}

fn command(arguments: &[&str]) -> Command {
    say(&format!("cargo {}", arguments.join(" ")));
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root());
    command.env("GRAYLANE_CASES", CASES).env("GRAYLANE_REQUESTS", CASES);
    command.env("GRAYLANE_ROUNDS", ROUNDS).env("GRAYLANE_OUTAGE", OUTAGE);
    command.env("GRAYLANE_TRACES", TRACES);
    command
}
