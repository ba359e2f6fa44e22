use std::process::Command;

use crate::mutants::mutants;
use crate::servers::{self, run};
use crate::{root, say};

/// How many generated worlds the decision is compared with its model on.
const CASES: &str = "1000000";

/// How often every instance is replaced, politely and rudely.
const ROUNDS: &str = "10";

/// How long a broker is away in each of three ways, in seconds.
const OUTAGE: &str = "20";

/// Runs the long proofs, in release builds; their reports go to `tests/reports`.
#[derive(Debug, clap::Args)]
pub(crate) struct Prove {
    /// Runs only proofs whose names contain this.
    filter: Option<String>,
}

impl Prove {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let filter = self.filter.as_deref();
        if filter.is_none_or(|filter| "mutants".contains(filter)) {
            mutants()?;
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
        if filter.is_none_or(|filter| "flips".contains(filter)) {
            say(&format!("{CASES} requests while rules flip"));
            let test = "flips::on_rnacos";
            cargo(&["test", "--release", "--package", "gray-tests", "--test", "it", test])?;
        }
        if filter.is_none_or(|filter| "replacement".contains(filter)) {
            say(&format!("replacing every instance {ROUNDS} times"));
            let test = "on_rnacos::instances_are_replaced_without_a_failed_request";
            cargo(&["test", "--release", "--package", "gray-tests", "--test", "it", test])?;
        }
        if filter.is_none_or(|filter| "outage".contains(filter)) {
            say("a minute without a broker");
            let test = "outage::";
            cargo(&["test", "--release", "--package", "gray-tests", "--test", "it", test])?;
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

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    say(&format!("cargo {}", arguments.join(" ")));
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root());
    command.env("GRAYLANE_CASES", CASES).env("GRAYLANE_REQUESTS", CASES);
    let is_of = |what: &str| arguments.iter().any(|it| it.contains(what));
    let report = if is_of("replaced") {
        "replacement.txt"
    } else if is_of("outage") {
        "outage.txt"
    } else {
        "flips.txt"
    };
    command.env("GRAYLANE_ROUNDS", ROUNDS).env("GRAYLANE_OUTAGE", OUTAGE);
    run(command.env("GRAYLANE_REPORT", root().join("tests/reports").join(report)))
}
