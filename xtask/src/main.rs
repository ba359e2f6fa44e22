//! `cargo xtask`: sets up what the tests need, and runs them.

mod audit;
mod bench;
mod mutants;
mod peers;
mod prove;
mod report;
mod servers;
mod test;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks around the source code.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Sets up what the tests need, runs all of them, and prints a closing count.
    Test(test::Test),
    /// Audits who handles which message while lanes come and go, consumers are killed, and servers
    /// restart.
    Audit(audit::Audit),
    /// Counts the instructions of a decision and times look-ups; writes the figures into bench/.
    Bench(bench::Bench),
    /// Runs the long proofs; their reports go to `tests/reports`.
    Prove(prove::Prove),
    /// Installs the real servers of the tests into the cache, and starts one where it is named.
    Servers(servers::Servers),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(test) => test.run(),
        Task::Audit(audit) => audit.run(),
        Task::Bench(bench) => bench.run(),
        Task::Prove(prove) => prove.run(),
        Task::Servers(servers) => servers.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line; there is nothing to be done where even that fails.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Returns the folder of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}
