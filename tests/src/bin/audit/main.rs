//! The audit: messages in two lanes while gray consumers come, go and are killed, and a checker that
//! reads nothing but logs. `audit run` drives it, and starts itself as `audit member …` for each
//! consumer.

#![allow(clippy::print_stdout, reason = "says how far it is")]

mod check;
mod cycle;
mod events;
mod member;
mod overhead;
mod produce;
mod store;
mod switches;
mod system;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs the audit, and writes its report.
    Run(Run),
    /// Measures what the wrapped producer and consumer cost beside the bare client.
    Overhead {
        /// The file for the report.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Measures how long switches take.
    Switches(switches::Switches),
    /// Consumes, as one process of several.
    Member(member::Member),
}

/// How much is done.
#[derive(Clone, Debug, Args)]
struct Run {
    /// How messages are kept apart.
    #[arg(long, default_value = "property")]
    scheme: String,
    /// How often gray comes and goes.
    #[arg(long, default_value_t = 30)]
    cycles: u32,
    /// How many messages are produced in a second, in both lanes together.
    #[arg(long, default_value_t = 700)]
    rate: u64,
    /// How many messages are produced at least; cycles go on until they are.
    #[arg(long, default_value_t = 0)]
    messages: u64,
    /// How often the broker is killed and restarted.
    #[arg(long, default_value_t = 2)]
    restarts: u32,
    /// Where the tables are.
    #[arg(long, value_enum, default_value_t)]
    store: store::Place,
    /// Whether the messages of a queue are handled one after the other, in their order.
    #[arg(long)]
    in_order: bool,
    /// Which RocketMQ it runs on, 4 or 5.
    #[arg(long, default_value_t = 5)]
    rocketmq: u8,
    /// The folder for logs; one in the system's temporary folder where not given.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// The file for the report.
    #[arg(long)]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Run(run) => cycle::run(run).await,
        Task::Overhead { report } => overhead::run(report).await,
        Task::Switches(switches) => switches.run().await,
        Task::Member(member) => member.run().await,
    }
}
