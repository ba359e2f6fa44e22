//! All gateways are up, and take turns: what the machine does meanwhile meets all of them alike.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::gateway::{CORES, Gateway, Kind};
use crate::load::Outcome;
use crate::process::{Cpu, cpu};
use crate::{routing, say, table};

/// The first port of the servers behind, and of the gateways.
pub(crate) const UPSTREAM: u16 = 19_100;
pub(crate) const GATEWAYS: u16 = 18_100;

/// All gateways take turns; prints one table.
#[derive(Debug, clap::Args)]
pub(crate) struct Turns {
    /// The gateways, as `name=path`; the first is what the others are compared with.
    #[arg(required = true)]
    kinds: Vec<Kind>,
    /// How often each has its turn.
    #[arg(long = "turns", default_value_t = 40)]
    count: usize,
    /// How many requests a turn has.
    #[arg(long, default_value_t = 12_000)]
    requests: u64,
    /// How many requests of 1 MiB a turn has.
    #[arg(long, default_value_t = 40)]
    large: u64,
    /// How many requests a second there are where the rate is fixed.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Where each turn is written down, a line each.
    #[arg(long)]
    rows: Option<PathBuf>,
}

/// What is done in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// As much as is answered, over 64 connections.
    Closed,
    /// Answers of 1 MiB, over 8 connections.
    Large,
    /// A fixed rate, over 64 connections.
    Fixed,
}

/// A turn, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) turn: usize,
    pub(crate) gateway: String,
    pub(crate) work: Work,
    /// CPU time in microseconds for each request, by the scheduler's own account.
    pub(crate) cpu: f64,
    /// The same by ticks: not exact in one turn, but in all.
    pub(crate) user: f64,
    pub(crate) system: f64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// The servers behind, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Servers(Child);

impl Servers {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut command = own("upstream")?;
        Ok(Self(command.arg(UPSTREAM.to_string()).spawn()?))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // It has no other way to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of this program, on the core that is not the gateways'.
pub(crate) fn own(task: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("taskset");
    command.args(["-c", CORES[1]]).arg(std::env::current_exe()?).arg(task);
    Ok(command)
}

/// Puts load on a gateway.
pub(crate) fn load(port: u16, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let mut command = own("load")?;
    let output = command.arg(port.to_string()).args(arguments).stderr(Stdio::inherit()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {printed}");
    serde_json::from_str(&printed).with_context(|| printed)
}

impl Turns {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let _servers = Servers::start()?;
        let gateways = self.start()?;
        let mut rows = Vec::new();
        for turn in 0..self.count {
            for work in [Work::Closed, Work::Large, Work::Fixed] {
                // Nobody is always the first.
                for place in 0..gateways.len() {
                    let place = (place + turn) % gateways.len();
                    let gateway = gateways.get(place).context("no gateway")?;
                    rows.push(self.turn(turn, gateway, work)?);
                }
            }
        }
        if let Some(path) = &self.rows {
            let lines = rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            std::fs::write(path, lines.join("\n") + "\n")?;
        }
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name.as_str()).collect();
        say(&table::table(&rows, &names));
        Ok(())
    }

    /// Starts all, checks that they do what they should, and lets them warm up.
    fn start(&self) -> anyhow::Result<Vec<Gateway>> {
        let mut gateways = Vec::new();
        for (port, kind) in (GATEWAYS..).zip(&self.kinds) {
            let gateway = Gateway::start(kind, port, UPSTREAM, &[])?;
            routing::check(&gateway, UPSTREAM)?;
            load(port, &["--count", "4000"])?;
            gateways.push(gateway);
        }
        Ok(gateways)
    }

    fn turn(&self, turn: usize, gateway: &Gateway, work: Work) -> anyhow::Result<Row> {
        let (requests, large) = (self.requests.to_string(), self.large.to_string());
        let rate = self.rate.to_string();
        let arguments = match work {
            Work::Closed => vec!["--count", requests.as_str()],
            Work::Large => vec!["--count", large.as_str(), "--connections", "8", "--path", "/big"],
            // For a second.
            Work::Fixed => vec!["--count", rate.as_str(), "--rate", rate.as_str()],
        };
        let processes = gateway.processes()?;
        let before = cpu(&processes)?;
        let outcome = load(gateway.port, &arguments)?;
        let Cpu { total, user, system } = cpu(&processes)?.since(before);
        let name = &gateway.kind.name;
        ensure!(outcome.failed == 0 && outcome.wrong == 0, "{name}, {work:?}: {outcome:?}");
        let each = |seconds: f64| seconds * 1e6 / outcome.answered as f64;
        Ok(Row {
            turn,
            gateway: name.clone(),
            work,
            cpu: each(total),
            user: each(user),
            system: each(system),
            outcome,
        })
    }
}
