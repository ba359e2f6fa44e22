//! Measures the gateway beside its peers: the same gray routing, the same load, in turns.
//!
//! Everything speaks to loopback only: gateways on the first core, load and upstreams on the second.

#![allow(
    clippy::disallowed_types,
    reason = "nothing here is asynchronous, and its time is never paused"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are rounded in any case"
)]

mod gateway;
mod idle;
mod instructions;
mod load;
mod process;
mod request;
mod routing;
mod stats;
mod table;
mod turns;
mod upstream;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures gateways beside each other.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// All gateways take turns; prints one table.
    Turns(turns::Turns),
    /// Counts the instructions that a request costs a gateway, by callgrind.
    Instructions(instructions::Instructions),
    /// The memory that a gateway has with idle connections.
    Idle(idle::Idle),
    /// The servers behind the gateways, until it is killed.
    Upstream(upstream::Upstream),
    /// Puts load on a gateway, and prints what came of it as JSON.
    Load(load::Load),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Turns(turns) => turns.run(),
        Task::Instructions(instructions) => instructions.run(),
        Task::Idle(idle) => idle.run(),
        Task::Upstream(upstream) => upstream.run(),
        Task::Load(load) => load.run(),
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
