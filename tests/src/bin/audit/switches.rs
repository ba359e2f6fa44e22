//! How long switches take, at next to no load and at load, with the leases that consumers have unless
//! they are told otherwise.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use gray_mq::{Ledger, Owner, StateStore};
use gray_propagation::Lane;
use gray_tests::Release;
use tokio::time::Instant;

use crate::cycle::spread;
use crate::events::now;
use crate::produce::Produce;
use crate::store::Place;
use crate::system::{GROUP, PATIENCE, System, TOPIC};

/// Messages in a second, half of them in the lane: so few that nothing waits, and as the audit has them.
const RATES: [u64; 2] = [40, 600];

/// What members are told beside what the audit tells them: what is the default elsewhere.
const USUAL: [&str; 4] = ["--lease", "10s", "--poll", "1s"];

/// How long the lane stays as it is between switches.
const STAY: Duration = Duration::from_secs(2);

/// How often each switch is made.
#[derive(Debug, Args)]
pub(crate) struct Switches {
    /// How often each switch is made.
    #[arg(long, default_value_t = 10)]
    turns: u32,
    /// The file for the report.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// What was measured.
#[derive(Default)]
struct Times {
    started: Vec<Duration>,
    started_first: Vec<Duration>,
    drained: Vec<Duration>,
    opened: Vec<Duration>,
    opened_first: Vec<Duration>,
    stopped: Vec<Duration>,
    killed: Vec<Duration>,
}

impl Switches {
    /// Measures, and writes the report.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut text = format!(
            "RocketMQ 5, tables in PostgreSQL, two consumers of base and two of gray, leases of 10 s and \
             tables read every second, as they are by default; {} times each\n",
            self.turns
        );
        for rate in RATES {
            let times = measure(rate, self.turns).await?;
            writeln!(text, "\n{rate} messages a second")?;
            for (what, times) in [
                ("gray starts, until it owns what is produced", &times.started),
                ("gray starts, until it has handled its first message", &times.started_first),
                ("mq drain, until base owns all that is produced", &times.drained),
                ("mq open, until gray owns what is produced", &times.opened),
                ("mq open, until gray has handled its first message", &times.opened_first),
                ("gray is told to stop, until base owns all", &times.stopped),
                ("gray is killed, until base owns all", &times.killed),
            ] {
                writeln!(text, "{what}: {}", spread(times))?;
            }
        }
        println!("{text}");
        self.report.map_or(Ok(()), |path| Ok(std::fs::write(path, text)?))
    }
}

async fn measure(rate: u64, turns: u32) -> anyhow::Result<Times> {
    let logs = std::env::temp_dir().join(format!("graylane-switches-{}", std::process::id()));
    let mut system =
        System::start(Release::Five, Place::Postgres, logs.join(rate.to_string())).await?;
    system.more = USUAL.map(str::to_owned).to_vec();
    let (names, log) = (system.broker.names(), system.logs.join("produced.tsv"));
    let produce = Arc::new(Produce::new(&names, TOPIC, &log)?);
    for _ in 0..2 {
        system.member(false, None)?;
    }
    system.until_open(false).await?;
    let producing = tokio::spawn(produce.run(rate));
    let mut times = Times::default();
    for turn in 0..turns {
        one(&mut system, &mut times).await?;
        println!("{rate} messages a second: turn {} of {turns}", turn + 1);
    }
    producing.abort();
    for client in system.members.keys().cloned().collect::<Vec<_>>() {
        system.stop(&client).await?;
    }
    Ok(times)
}

/// Each switch once.
async fn one(system: &mut System, times: &mut Times) -> anyhow::Result<()> {
    let (began, since) = (Instant::now(), now());
    start(system).await?;
    times.started.push(began.elapsed());
    times.started_first.push(first_by_gray(system, since).await?);
    tokio::time::sleep(STAY).await;

    times.drained.push(pinned(system, Some(Owner::Base), false).await?);
    tokio::time::sleep(STAY).await;

    let since = now();
    times.opened.push(pinned(system, Some(Owner::Lane), true).await?);
    times.opened_first.push(first_by_gray(system, since).await?);
    pinned(system, None, true).await?;
    tokio::time::sleep(STAY).await;

    let began = Instant::now();
    // At once, as a deployment that is taken away; each is waited for after that.
    let mut going = Vec::new();
    for client in system.of(true) {
        going.push(system.dismiss(&client)?);
    }
    system.until_open(false).await?;
    times.stopped.push(began.elapsed());
    for mut process in going {
        ensure!(process.wait(PATIENCE)?.is_some(), "it does not stop");
    }
    tokio::time::sleep(STAY).await;

    start(system).await?;
    tokio::time::sleep(STAY).await;
    let began = Instant::now();
    for client in system.of(true) {
        system.kill(&client).await?;
    }
    system.until_open(false).await?;
    times.killed.push(began.elapsed());
    tokio::time::sleep(STAY).await;
    Ok(())
}

/// Starts gray, and waits until it owns what is produced.
async fn start(system: &mut System) -> anyhow::Result<()> {
    for _ in 0..2 {
        system.member(true, None)?;
    }
    system.until_open(true).await
}

/// Decides as `graylane mq` does, and waits until it is so.
async fn pinned(system: &mut System, owner: Option<Owner>, open: bool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let ledger = Ledger::new(Arc::clone(&system.store) as Arc<dyn StateStore>, GROUP, TOPIC);
    let pin = |table: &mut gray_mq::Ownership| {
        table.pin(Lane::GRAY, owner);
        Ok::<_, std::convert::Infallible>(())
    };
    ledger.change(pin).await?;
    system.until_open(open).await?;
    Ok(began.elapsed())
}

/// Returns how long after a moment gray handled its first new message: what was produced for it and had
/// to come again is older.
async fn first_by_gray(system: &System, since: u128) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let mut first = None;
        for client in system.of(true) {
            let log = system.logs.join(format!("handled-{client}.tsv"));
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let at = |line: &str| {
                let mut fields = line.split('\t');
                let at: u128 = fields.next()?.parse().ok()?;
                (fields.nth(2) == Some("topic") && at >= since).then_some(at)
            };
            first = first.into_iter().chain(text.lines().filter_map(at)).min();
        }
        if let Some(at) = first {
            return Ok(Duration::from_millis(u64::try_from(at - since)?));
        }
        ensure!(began.elapsed() < PATIENCE, "gray handles nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
