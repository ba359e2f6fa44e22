use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{root, say, servers};

/// Packages that can be had with less than everything.
const FEATURES: [(&str, &str); 11] = [
    ("gray-config", ""),
    ("gray-lb", ""),
    ("gray-starter", ""),
    ("gray-starter", "client"),
    ("gray-starter", "grpc"),
    ("gray-starter", "nacos"),
    ("gray-starter", "serve"),
    ("gray-mq", ""),
    ("gray-gateway", ""),
    ("gray-gateway", "demo"),
    ("gray-gateway", "mq"),
];

/// Sets up what the tests need, runs all of them, and prints a closing count.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Runs only tests whose names contain this.
    filter: Option<String>,
}

/// What a run of tests came to.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Test {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let in_ci = std::env::var_os("CI").is_some();
        let mut missing = Vec::new();
        for name in servers::ALL {
            match servers::install(name) {
                Ok(folder) => say(&format!("{name}: {}", folder.display())),
                Err(error) if in_ci => return Err(error),
                Err(error) => missing.push((name, error)),
            }
        }
        if self.filter.is_none() {
            say("checking format and lints");
            cargo(&["fmt", "--all", "--check"])?;
            cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
            cargo(&["check", "--quiet", "--package", "gray-tests", "--test", "prove"])?;
            let audit = ["--package", "gray-tests", "--features", "audit", "--bin", "audit"];
            cargo(&[&["clippy", "--quiet"][..], &audit, &["--", "-D", "warnings"]].concat())?;
            for (package, features) in FEATURES {
                say(&format!("checking {package} with the features `{features}`"));
                let package = ["check", "--quiet", "--package", package];
                cargo(
                    &[&package[..], &["--no-default-features", "--features", features]].concat(),
                )?;
            }
        }
        cargo(&["build", "--workspace", "--bins", "--quiet"])?;
        // Tests that need a server say so in their path: `on_nacos::`, `on_rnacos::`.
        let without: Vec<String> = missing
            .iter()
            .flat_map(|(name, _)| ["--skip".to_owned(), format!("on_{name}")])
            .collect();
        let without = without.iter().map(String::as_str);
        let filter: Vec<&str> = self.filter.as_deref().into_iter().chain(without).collect();
        let mut all = Count::default();
        for arguments in [
            &["test", "--workspace", "--exclude", "gray-tests", "--lib", "--bins", "--tests"][..],
            &["test", "--workspace", "--doc"],
            &["test", "--package", "gray-tests"],
        ] {
            let arguments = [arguments, &["--no-fail-fast", "--"], &filter].concat();
            say(&format!("cargo {}", arguments.join(" ")));
            let count = count(&arguments, self.filter.is_none())?;
            all = all.plus(count);
        }
        if self.filter.is_none() && missing.is_empty() {
            all = all.plus(audit()?);
        }
        for (name, error) in &missing {
            say(&format!("skipped: all tests `on_{name}`, since it cannot be had: {error:#}"));
        }
        say(&format!("{} passed, {} failed, {} skipped", all.passed, all.failed, all.skipped));
        if all.failed > 0 {
            bail!("{} tests failed", all.failed)
        }
        Ok(())
    }
}

impl Count {
    const fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; tests that were
    /// filtered out count as skipped where the run was to be complete.
    fn of(line: &str, complete: bool) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("test result: ")?;
        let number = |word: &str| {
            let part = rest.split([';', '.']).find(|part| part.trim().ends_with(word))?;
            part.trim().split(' ').next()?.parse().ok()
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")? + if complete { number("filtered out")? } else { 0 },
        })
    }
}

/// A short audit of messages; a long one is `cargo xtask audit`.
fn audit() -> anyhow::Result<Count> {
    let build = ["--package", "gray-tests", "--features", "audit", "--bin", "audit"];
    let count = count(&[&["test"][..], &build, &["--"]].concat(), true)?;
    let arguments = [&["run", "--quiet"][..], &build, &["--", "run", "--cycles", "4"]].concat();
    say(&format!("cargo {}", arguments.join(" ")));
    let clean = cargo(&arguments).is_ok();
    let (passed, failed) = (usize::from(clean), usize::from(!clean));
    Ok(count.plus(Count { passed, failed, skipped: 0 }))
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    servers::run(Command::new("cargo").args(arguments).current_dir(root()))
}

/// Runs tests, passes on what they print, and counts.
fn count(arguments: &[&str], complete: bool) -> anyhow::Result<Count> {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root()).stdout(Stdio::piped());
    // What a test returns says what went wrong; sixty frames behind it hide that.
    command.env("RUST_LIB_BACKTRACE", "0");
    let mut child = command.spawn().with_context(|| format!("{command:?} cannot be run"))?;
    let out = child.stdout.take().context("the tests print nothing")?;
    let (mut all, mut failures) = (Count::default(), Failures::default());
    for line in BufReader::new(out).lines() {
        let line = line?;
        failures.see(&line);
        if let Some(count) = Count::of(&line, complete) {
            all = all.plus(count);
        }
        if !line.ends_with("... ok") && !line.is_empty() {
            say(&line);
        }
    }
    let status = child.wait()?;
    if !status.success() && all.failed == 0 {
        bail!("{command:?} ended with {status}");
    }
    failures.say();
    Ok(all)
}

/// Tests that failed, with what they said; told once more at the end, where it is found at once.
#[derive(Debug, Default)]
struct Failures {
    /// The test whose output is being printed.
    current: Option<String>,
    all: Vec<(String, Vec<String>)>,
}

impl Failures {
    fn see(&mut self, line: &str) {
        let heading =
            |line: &str| Some(line.strip_prefix("---- ")?.strip_suffix(" stdout ----")?.to_owned());
        if let Some(name) = heading(line) {
            self.all.push((name.clone(), Vec::new()));
            self.current = Some(name);
        } else if line == "failures:" {
            self.current = None;
        } else if let Some((_, said)) = self.all.last_mut().filter(|_| self.current.is_some()) {
            // A panic's message is on the line after the one that says where.
            let goes_on = said.last().is_some_and(|last| last.contains(" panicked at "));
            if goes_on || line.starts_with("Error: ") || line.contains(" panicked at ") {
                said.push(line.to_owned());
            }
        }
    }

    fn say(&self) {
        for (name, said) in &self.all {
            say(&format!("failed: {name}\n{}", said.join("\n")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_failures_once_more() {
        let mut failures = Failures::default();
        for line in [
            "failures:",
            "",
            "---- one stdout ----",
            "noise",
            "Error: two, not three",
            "---- other stdout ----",
            "thread 'other' (7) panicked at lib.rs:1:2:",
            "it is so",
            "failures:",
            "    one",
        ] {
            failures.see(line);
        }
        let said = ["thread 'other' (7) panicked at lib.rs:1:2:", "it is so"].map(str::to_owned);
        let one = ("one".to_owned(), vec!["Error: two, not three".to_owned()]);
        assert_eq!(failures.all, [one, ("other".to_owned(), said.to_vec())]);
    }

    #[test]
    fn reads_the_closing_line_of_a_test_binary() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; \
                    finished in 0.00s";
        let count = Count::of(line, false).unwrap();
        assert_eq!((count.passed, count.failed, count.skipped), (3, 2, 1));
        assert_eq!(Count::of(line, true).unwrap().skipped, 5);
        assert!(Count::of("running 3 tests", true).is_none());
    }
}
