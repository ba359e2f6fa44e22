use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gray_tests::Release;
use tokio::time::Instant;

use crate::Run;
use crate::check::{Evidence, Findings, check, who};
use crate::produce::Produce;
use crate::system::{GROUP, PATIENCE, System, TOPIC};

/// Where a process can be made to die; each is what `fail` calls a point with its action, which is
/// passed over a few times where the start would otherwise be its end.
const POINTS: [&str; 6] = [
    "before-swap=2*off->return",
    "after-swap=2*off->return",
    "before-acknowledge=return",
    "after-acknowledge=return",
    "before-fence=return",
    "after-fence=return",
];

/// How long everything may take to be handled once nothing is produced any more.
const DRAIN: Duration = Duration::from_mins(3);

/// How many messages a second are produced at least in a run that is to show anything.
const LEAST: u64 = 500;

/// How long the lane stays as it is between switches.
const STAY: Duration = Duration::from_millis(1500);

/// Runs the audit.
pub(crate) async fn run(run: Run) -> anyhow::Result<()> {
    ensure!(run.scheme == "property", "scheme `{}` is not known, only property", run.scheme);
    let release = match run.rocketmq {
        4 => Release::Four,
        5 => Release::Five,
        other => bail!("there is no RocketMQ {other} to be had, only 4 and 5"),
    };
    let unique = format!("graylane-audit-{}", std::process::id());
    let logs = run.logs.clone().unwrap_or_else(|| std::env::temp_dir().join(unique));
    println!("logs in {}", logs.display());
    let mut system = System::start(release, run.store, logs).await?;
    if run.in_order {
        system.more.push("--in-order".to_owned());
    }
    let names = system.broker.names();
    let produce = Arc::new(Produce::new(&names, TOPIC, &system.logs.join("produced.tsv"))?);
    for _ in 0..2 {
        system.member(false, None)?;
    }
    system.until_open(false).await?;
    let producing = tokio::spawn(Arc::clone(&produce).run(run.rate));
    let began = Instant::now();
    let mut times = Times::default();
    let mut cycle = 0;
    while cycle < run.cycles || produce.acknowledged.load(Ordering::Relaxed) < run.messages {
        one(&mut system, cycle, &run, &mut times).await?;
        cycle += 1;
        println!("cycle {cycle}: {} messages", produce.acknowledged.load(Ordering::Relaxed));
    }
    producing.abort();
    let lasted = began.elapsed();
    let findings = settle(&mut system).await?;
    let report = report(&run, &system, cycle, lasted, &times, &findings)?;
    println!("{report}");
    if let Some(path) = &run.report {
        std::fs::write(path, &report)?;
    }
    for client in system.members.keys().cloned().collect::<Vec<_>>() {
        system.stop(&client).await?;
    }
    ensure!(findings.is_clean(), "the audit found something wrong");
    // A short run is one of the tests, on whatever machine; one that is to show it has to have the load.
    let came = per_second(findings.produced, lasted);
    let is_short = run.cycles < 24 || run.rate < LEAST;
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let least = LEAST as f64;
    ensure!(
        is_short || came >= least,
        "{came:.0} messages a second, not {LEAST}: ask for more (--rate)"
    );
    // Each has two turns of either side in so many cycles.
    let missed: Vec<_> = POINTS
        .iter()
        .filter_map(|point| point.split('=').next())
        .filter(|point| run.cycles >= 24 && !system.failed.contains_key(*point))
        .collect();
    ensure!(missed.is_empty(), "nobody died at the fail points {missed:?}: that much is not shown");
    Ok(())
}

/// How long switches took.
#[derive(Default)]
struct Times {
    opened: Vec<Duration>,
    closed: Vec<Duration>,
}

/// Gray comes and goes once.
async fn one(system: &mut System, cycle: u32, run: &Run, times: &mut Times) -> anyhow::Result<()> {
    let point = *POINTS.iter().cycle().nth(cycle as usize).context("there are points")?;
    // By turns a member of either side dies at the point.
    let of_gray = (cycle / 6).is_multiple_of(2);
    if !of_gray {
        // Whichever of them gets there first.
        for client in system.of(false) {
            system.stop(&client).await?;
            system.member(false, Some(point))?;
        }
    }
    let began = Instant::now();
    system.member(true, of_gray.then_some(point))?;
    system.member(true, None)?;
    system.until_open(true).await?;
    times.opened.push(began.elapsed());
    stay(system, true).await?;
    let sleeper = match cycle % 3 {
        1 => Some(put_one_to_sleep(system).await?),
        _ => kill_one(system).await.map(|()| None)?,
    };
    // As many as are asked for, evenly spread.
    if (1..=run.restarts).any(|number| cycle == number * run.cycles / (run.restarts + 1)) {
        println!("restarting the broker");
        system.restart_broker()?;
        system.restarts += 1;
    }
    if cycle == run.cycles / 2 {
        println!("restarting what keeps the tables");
        system.tables.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        system.tables.run().await?;
    }
    stay(system, true).await?;
    let began = Instant::now();
    let gray = system.of(true).into_iter().filter(|client| Some(client) != sleeper.as_ref());
    for (number, client) in gray.collect::<Vec<_>>().iter().enumerate() {
        match (cycle + u32::try_from(number)?) % 3 {
            0 => system.stop(client).await?,
            _ => system.kill(client).await?,
        }
    }
    system.until_open(false).await?;
    times.closed.push(began.elapsed());
    if let Some(sleeper) = sleeper {
        wake(system, &sleeper).await?;
    }
    // As many of base as before, whoever has died.
    let base = system.of(false);
    for client in base.iter().skip(2) {
        system.stop(client).await?;
    }
    stay(system, false).await
}

async fn stay(system: &mut System, gray_too: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < STAY.mul_f64(0.5 + fastrand::f64()) {
        system.reap(gray_too).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Has any process sleep.
async fn put_one_to_sleep(system: &mut System) -> anyhow::Result<String> {
    system.reap(true).await?;
    let members: Vec<_> = system.members.keys().cloned().collect();
    let sleeper = fastrand::choice(&members).context("nobody is there")?;
    system.put_to_sleep(sleeper).await?;
    Ok(sleeper.clone())
}

/// Wakes a process up, unless it has died meanwhile, that takes the lane for open still, if that is what it last knew.
async fn wake(system: &mut System, sleeper: &str) -> anyhow::Result<()> {
    if !system.members.contains_key(sleeper) {
        return Ok(());
    }
    let gray = system.wake(sleeper)?;
    tokio::time::sleep(STAY / 3).await;
    if gray {
        system.stop(sleeper).await?;
    }
    system.until_open(false).await
}

/// Kills any process at once, and starts another in its stead.
async fn kill_one(system: &mut System) -> anyhow::Result<()> {
    let members: Vec<_> = system.members.keys().cloned().collect();
    let victim = fastrand::choice(&members).context("nobody is there")?;
    let gray = system.members.get(victim).is_some_and(|running| running.gray);
    system.kill(victim).await?;
    system.member(gray, None)
}

/// Waits until everything has been handled, and checks it.
async fn settle(system: &mut System) -> anyhow::Result<Findings> {
    let began = Instant::now();
    loop {
        system.reap(false).await?;
        let findings = look(system).await?;
        if findings.lost.is_empty() || began.elapsed() > DRAIN {
            // Whoever would handle something once more has time to.
            tokio::time::sleep(Duration::from_secs(12)).await;
            let findings = look(system).await?;
            return Ok(findings);
        }
        println!("{} messages are still to be handled", findings.lost.len());
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

async fn look(system: &mut System) -> anyhow::Result<Findings> {
    let table = system.whole_table().await?;
    let read = |name: &str| std::fs::read_to_string(system.logs.join(name));
    let (produced, killed) = (read("produced.tsv")?, read("killed.tsv")?);
    let handled = all_handled(&system.logs)?;
    let (handled, table) = (handled.as_str(), table.as_str());
    let in_order = system.more.iter().any(|flag| flag == "--in-order");
    let (produced, killed) = (produced.as_str(), killed.as_str());
    let evidence = Evidence { group: GROUP, produced, handled, killed, table, in_order };
    std::fs::write(system.logs.join("who.tsv"), who(&evidence))?;
    check(&evidence)
}

fn all_handled(logs: &Path) -> anyhow::Result<String> {
    let mut all = String::new();
    for entry in std::fs::read_dir(logs)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("handled-") {
            all.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(all)
}

fn report(
    run: &Run,
    system: &System,
    cycles: u32,
    lasted: Duration,
    times: &Times,
    findings: &Findings,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let (rate, seconds) = (run.rate, lasted.as_secs());
    let (release, place) = (run.rocketmq, run.store.name());
    let order = if run.in_order { "each queue in its order" } else { "in any order" };
    writeln!(
        text,
        "scheme property, RocketMQ {release}, tables in {place}, {order}: {cycles} times gray on and off in \
         {seconds} s, {rate} messages asked for in a second, 4 queues, leases of 3 s"
    )?;
    let (kills, sleeps, failed) = (system.kills, system.sleeps, &system.failed);
    writeln!(
        text,
        "processes killed: {kills}; at fail points: {failed:?}; put to sleep while the lane was open, and woken up when it was not: {sleeps}"
    )?;
    writeln!(
        text,
        "the broker was killed and restarted {} times, what keeps the tables once",
        system.restarts
    )?;
    writeln!(
        text,
        "messages acknowledged in a second: {:.0}",
        per_second(findings.produced, lasted)
    )?;
    writeln!(text, "from starting gray to the lane being open: {}", spread(&times.opened))?;
    writeln!(text, "from ending gray to the lane being closed: {}", spread(&times.closed))?;
    write!(text, "{findings}")?;
    writeln!(text, "who handled each of them stands in who.tsv of the logs (--logs)")?;
    let verdict = if findings.is_clean() { "clean" } else { "NOT CLEAN" };
    writeln!(text, "{verdict} (waited at most {PATIENCE:?} for each switch)")?;
    Ok(text)
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn per_second(count: u64, lasted: Duration) -> f64 {
    count as f64 / lasted.as_secs_f64()
}

pub(crate) fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let at = |part: usize| times.get((times.len() - 1) * part / 100).copied().unwrap_or_default();
    if times.is_empty() {
        return "never".to_owned();
    }
    format!("median {:.1?}, 95 % {:.1?}, longest {:.1?}", at(50), at(95), at(100))
}
