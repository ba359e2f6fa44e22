//! Documents that are wrong in two hundred ways disturb nothing.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Stub, binary, eventually};

use crate::{quantile, report};

const GOOD: &str = "\
lanes: [{name: gray, version: V2}]
base: {version: V1}
rules:
- {name: canary, when: {header: {name: x-canary, equal: '1'}}}
- {name: office, when: {clientIp: {in: [10.0.0.0/8]}}}
- {name: share, when: {percentage: {share: 5, by: [{header: x-uid}]}}}
";

/// How long the gateway may take over one wrong document, and how much it may grow for it, in KiB.
const TIME: Duration = Duration::from_millis(100);
const MEMORY: u64 = 64 << 10;

/// Documents that must be refused, with what they are.
fn wrong() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, text: String| all.push((name.to_owned(), text));
    for depth in [100, 1_000, 10_000] {
        add("deep lists", format!("rules: {}", "[".repeat(depth)));
        add("deep maps", format!("rules: {}", "{a: ".repeat(depth)));
        add("deep conditions", format!("rules: [{{name: a, when: {}}}]", "{not: ".repeat(depth)));
        add(
            "deep indents",
            (0..depth.min(2_000)).fold(String::new(), |mut text, level| {
                let _ = writeln!(text, "{}a:", " ".repeat(level));
                text
            }),
        );
    }
    add("ten megabytes", format!("{GOOD}# {}", "x".repeat(10 << 20)));
    add("one long scalar", format!("rules: {}", "x".repeat(3 << 20)));
    add(
        "an alias bomb",
        (0..9).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
            format!("{text}a{}: &a{} [{}]\n", level + 1, level + 1, format!("*a{level},").repeat(9))
        }),
    );
    add("a regex bomb", GOOD.replace("equal: '1'", "regex: '(((a{99}){99}){99})'"));
    add("a hundred thousand wrong rules", {
        let mut text = "rules:\n".to_owned();
        (0..20_000).for_each(|number| {
            let _ = writeln!(text, "- {{name: r{number}, lane: nowhere}}");
        });
        text
    });
    for (from, to) in [
        ("share: 5", "share: 101"),
        ("share: 5", "share: -1"),
        ("share: 5", "share: .nan"),
        ("share: 5", "share: 0.001"),
        ("10.0.0.0/8", "10.0.0.0/33"),
        ("10.0.0.0/8", "localhost"),
        ("name: gray", "name: PROD"),
        ("name: gray", "name: ''"),
        ("name: gray", "name: 'a b'"),
        ("name: canary", "name: office"),
        ("header:", "haeder:"),
        ("equal: '1'", "equal: {a: 1}"),
        ("equal: '1'", "regex: '('"),
        ("equal: '1'", "equal: '1', prefix: '2'"),
        ("lanes:", "lanes: []\nlanes:"),
        ("base: {version: V1}", "base: V1"),
    ] {
        add(&format!("{from} as {to}"), GOOD.replacen(from, to, 1));
    }
    // What is cut off anywhere, or has a byte too many, and is refused.
    for cut in 1..100 {
        add(&format!("cut after {cut}"), format!("{}\n@", GOOD.get(..cut).unwrap_or_default()));
    }
    for position in (0..GOOD.len()).step_by(3) {
        let mut text = GOOD.to_owned();
        text.insert_str(position, "\u{1}{");
        add(&format!("bytes at {position}"), text);
    }
    all.truncate(200);
    all
}

fn peak(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Makes the peak of a process's memory begin again from what it uses now.
fn reset_peak(process: u32) -> anyhow::Result<u64> {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5")?;
    peak(process)
}

/// Writes a set of rules beside a configuration that names it.
fn put(folder: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = folder.join("rules.written");
    std::fs::write(&fresh, text)?;
    Ok(std::fs::rename(fresh, folder.join("rules.yaml"))?)
}

/// Times `graylane check` on a document, the start of the process included.
fn check(folder: &Path, text: &str) -> anyhow::Result<(Option<i32>, Duration)> {
    put(folder, text)?;
    let began = Instant::now();
    let output = Command::new(binary("graylane")?).arg("check").current_dir(folder).output()?;
    Ok((output.status.code(), began.elapsed()))
}

fn standalone() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("graylane.yaml"),
        "listeners: [{address: '127.0.0.1:0'}]\nroutes: [{service: app}]\n\
         rules: {files: [rules.yaml]}\n",
    )?;
    Ok(folder)
}

#[test]
fn a_document_is_judged_in_time() -> anyhow::Result<()> {
    let folder = standalone()?;
    let mut times = Vec::new();
    let mut slowest = (Duration::ZERO, String::new());
    for (name, text) in wrong() {
        let (code, time) = check(folder.path(), &text)?;
        ensure!(code == Some(2), "{name} ends with {code:?}");
        times.push(time.as_secs_f64() * 1e3);
        slowest = slowest.max((time, name));
    }
    let networks = |count: u32| {
        let mut text = format!("{GOOD}- name: many\n  when: {{clientIp: {{in: [");
        (0..count).for_each(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            let _ = write!(text, "11.{a}.{b}.{c},");
        });
        text + "]}}\n"
    };
    let (code, large) = check(folder.path(), &networks(100_000))?;
    ensure!(code == Some(0), "100,000 networks end with {code:?}");
    report(
        "corpora-time",
        &format!(
            "graylane check, the start of the process included\n\
             wrong documents: {}\n\
             median: {:.1} ms\n\
             slowest: {:.1} ms ({})\n\
             100,000 networks, right: {:.1} ms\n",
            times.len(),
            quantile(&mut times, 0.5),
            slowest.0.as_secs_f64() * 1e3,
            slowest.1,
            large.as_secs_f64() * 1e3,
        ),
    )?;
    ensure!(slowest.0 < TIME, "{} took {:?}", slowest.1, slowest.0);
    ensure!(large < 3 * TIME, "100,000 networks took {large:?}");
    Ok(())
}

#[tokio::test]
async fn no_wrong_document_disturbs_a_request() -> anyhow::Result<()> {
    let (base, gray) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let folder = tempfile::tempdir()?;
    let lines = base.registry_line() + &gray.registry_line();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    put(folder.path(), GOOD)?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n\
         rules: {files: ['{dir}/rules.yaml']}\n",
    )?;
    gateway.ready().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let process = gateway.process.id();
    let (mut number, mut requests) = (0_u32, 0);
    let mut greediest = (0, String::new());
    let first = reset_peak(process)?;
    for (name, text) in wrong() {
        let before = reset_peak(process)?;
        put(gateway.folder.path(), &text)?;
        number += 1;
        eventually(Duration::from_secs(10), async || {
            for (header, version) in [("1", "V2"), ("0", "V1")] {
                let request = client.get(gateway.url("/")).header("x-canary", header);
                let echo = Echo::read(request.send().await?.error_for_status()?).await?;
                ensure!(echo.version == version, "{name}: {header} went to {}", echo.version);
            }
            let rejected = gateway.metric("graylane_rules_rejected_total").await?;
            ensure!(rejected >= f64::from(number), "{name}: {rejected} rejected, not {number}");
            Ok(())
        })
        .await?;
        requests += 2;
        greediest = greediest.max((peak(process)? - before, name));
    }
    let kept = reset_peak(process)?.saturating_sub(first);
    let (grown, name) = greediest;
    let rejected = gateway.metric("graylane_rules_rejected_total").await?;
    report(
        "corpora",
        &format!(
            "{number} wrong documents, each refused and counted ({rejected} in all)\n\
             requests between them, none disturbed: at least {requests}\n\
             largest growth of memory for one of them: {grown} KiB ({name})\n\
             growth of memory after all of them: {kept} KiB\n"
        ),
    )?;
    ensure!(grown < MEMORY, "the gateway grew by {grown} KiB");
    Ok(())
}
