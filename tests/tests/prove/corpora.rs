//! Documents that are wrong in two hundred ways disturb nothing.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gray_tests::{Echo, Gateway, Stub, binary, eventually};
use serde_json::Value;

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
    let mut all = sizes();
    all.extend(REPLACED.map(|(from, to)| {
        assert!(GOOD.contains(from), "{from} is not in the good document");
        (format!("{from} as {to}"), GOOD.replacen(from, to, 1))
    }));
    all.extend(ADDED.map(|text| (format!("and {text}"), format!("{GOOD}{text}\n"))));
    // What is cut off within brackets.
    let open = |cut: &usize| {
        let text = GOOD.get(..*cut).unwrap_or_default();
        text.matches(['{', '[']).count() > text.matches(['}', ']']).count()
    };
    let cuts = (0..GOOD.len()).filter(open).step_by(5);
    all.extend(cuts.map(|cut| (format!("cut after {cut}"), GOOD.chars().take(cut).collect())));
    for position in (0..GOOD.len()).step_by(6) {
        let mut text = GOOD.to_owned();
        text.insert(position, '\u{1}');
        all.push((format!("a control character at {position}"), text));
    }
    all
}

/// What is too deep, too large, or becomes too large.
fn sizes() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: String, text: String| all.push((name, text));
    for depth in [100, 1_000, 10_000] {
        add(format!("{depth} deep lists"), format!("rules: {}", "[".repeat(depth)));
        add(format!("{depth} deep maps"), format!("rules: {}", "{a: ".repeat(depth)));
        let not = "{not: ".repeat(depth);
        add(format!("{depth} deep conditions"), format!("rules: [{{name: a, when: {not}}}]"));
        let json = format!("{{\"rules\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        add(format!("{depth} deep JSON"), json);
        let mut indents = String::new();
        for level in 0..depth.min(2_000) {
            let _ = writeln!(indents, "{}a:", " ".repeat(level));
        }
        add(format!("{depth} deep indents"), indents);
    }
    add("ten megabytes".to_owned(), format!("{GOOD}# {}", "x".repeat(10 << 20)));
    add("one long scalar".to_owned(), format!("rules: {}", "x".repeat(3 << 20)));
    add(
        "an alias bomb".to_owned(),
        (0..9).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
            format!("{text}a{}: &a{} [{}]\n", level + 1, level + 1, format!("*a{level},").repeat(9))
        }),
    );
    for pattern in
        ["(((a{99}){99}){99})", "(a?){9999}a{9999}", "[^x]{9999}{9}", "(?:\\p{L}{900}){90}"]
    {
        let text = GOOD.replace("equal: '1'", &format!("regex: '{pattern}'"));
        add(format!("the pattern {pattern}"), text);
    }
    let many = |line: &dyn Fn(u32) -> String| {
        (0..100_000).fold("rules:\n".to_owned(), |text, number| text + &line(number))
    };
    add(
        "100,000 wrong rules".to_owned(),
        many(&|number| format!("- {{name: r{number}, lane: no}}\n")),
    );
    add("100,000 rules of one name".to_owned(), many(&|_| "- {name: r}\n".to_owned()));
    add("100,000 rules of no name".to_owned(), many(&|number| format!("- {{nam: r{number}}}\n")));
    all
}

/// Parts of the good document, and what makes it wrong in their place.
const REPLACED: [(&str, &str); 76] = [
    ("share: 5", "share: 101"),
    ("share: 5", "share: -1"),
    ("share: 5", "share: .nan"),
    ("share: 5", "share: .inf"),
    ("share: 5", "share: 1e308"),
    ("share: 5", "share: 0.001"),
    ("share: 5", "share: five"),
    ("share: 5", "share: [5]"),
    ("share: 5", "share: 5, share: 6"),
    ("share: 5", "shares: 5"),
    ("share: 5", "share: 5, noKey: maybe"),
    ("share: 5", "share: 5, salt: {}"),
    ("by: [{header: x-uid}]", "by: x-uid"),
    ("by: [{header: x-uid}]", "by: [{header: 'x uid'}]"),
    ("by: [{header: x-uid}]", "by: [{haeder: x-uid}]"),
    ("by: [{header: x-uid}]", "by: [nobody]"),
    ("by: [{header: x-uid}]", "by: [{header: x, cookie: y}]"),
    ("10.0.0.0/8", "10.0.0.0/33"),
    ("10.0.0.0/8", "10.0.0.0/-1"),
    ("10.0.0.0/8", "10.0.0/8"),
    ("10.0.0.0/8", "10.0.0.256"),
    ("10.0.0.0/8", "localhost"),
    ("10.0.0.0/8", "'::/129'"),
    ("10.0.0.0/8", "'1:2:3'"),
    ("10.0.0.0/8", "{}"),
    ("in: [10.0.0.0/8]", "inn: [10.0.0.0/8]"),
    ("in: [10.0.0.0/8]", "in: 10.0.0.0/8, notIn: []"),
    ("in: [10.0.0.0/8]", "regex: '10.*'"),
    ("clientIp:", "clientip:"),
    ("clientIp: {in: [10.0.0.0/8]}", "clientIp: []"),
    ("clientIp: {in: [10.0.0.0/8]}", "clientIp: {}"),
    ("clientIp: {in: [10.0.0.0/8]}", "all: {}"),
    ("clientIp: {in: [10.0.0.0/8]}", "not: []"),
    ("clientIp: {in: [10.0.0.0/8]}", "time: {}"),
    ("clientIp: {in: [10.0.0.0/8]}", "time: {from: yesterday}"),
    ("clientIp: {in: [10.0.0.0/8]}", "time: {daily: 25:00-26:00}"),
    ("clientIp: {in: [10.0.0.0/8]}", "time: {zone: Mars/Olympus, daily: '1:00-2:00'}"),
    ("clientIp: {in: [10.0.0.0/8]}", "time: {weekdays: [monday]}"),
    ("clientIp: {in: [10.0.0.0/8]}", "user: {inList: nobody-knows}"),
    ("clientIp: {in: [10.0.0.0/8]}", "city: {prefix: a}"),
    ("clientIp: {in: [10.0.0.0/8]}", "cookie: {equal: a}"),
    ("name: gray", "name: PROD"),
    ("name: gray", "name: all"),
    ("name: gray", "name: Base"),
    ("name: gray", "name: ''"),
    ("name: gray", "name: 'a b'"),
    ("name: gray", "name: \"a\\nb\""),
    ("name: gray", "name: [gray]"),
    ("name: gray", "name: gray, enabled: perhaps"),
    ("name: gray", "name: gray, nmae: gray"),
    ("version: V2}]", "version: V2}, {name: gray}]"),
    ("version: V2}]", "version: {}}]"),
    ("version: V2}]", "version: V2]}"),
    ("name: canary", "name: office"),
    ("name: canary", "name: canary, name: other"),
    ("name: canary", "nmae: canary"),
    ("name: canary", "name: canary, lane: blue"),
    ("name: canary", "name: canary, expires: tomorrow"),
    ("name: canary", "name: canary, enabled: 7"),
    ("name: canary,", "name: canary"),
    ("when:", "wehn:"),
    ("header:", "haeder:"),
    ("equal: '1'", "equal: {a: 1}"),
    ("equal: '1'", "regex: '('"),
    ("equal: '1'", "regex: '(?=a)'"),
    ("equal: '1'", "equal: '1', prefix: '2'"),
    ("equal: '1'", "exists: 7"),
    ("equal: '1'", "percentage: 101"),
    ("equal: '1'", "equal: '1"),
    ("name: x-canary", "name: 'x canary'"),
    ("name: x-canary", "name: ''"),
    ("lanes:", "lanes: []\nlanes:"),
    ("lanes:", "lanse:"),
    ("base: {version: V1}", "base: V1"),
    ("base: {version: V1}", "base: {version: V1, unversioned: sometimes}"),
    ("base: {version: V1}", "\tbase: {version: V1}"),
];

/// What makes the good document wrong at its end.
const ADDED: [&str; 16] = [
    "rules: []",
    "base: {version: V1}",
    "fallback: maybe",
    "fallback: [fail]",
    "enabled: 7",
    "services: []",
    "services: {app: {fallback: never}}",
    "services: {app: {lanes: {PROD: V1}}}",
    "services: {app: {lanes: [gray]}}",
    "services: {app: {routed: 7}}",
    "services: {app: {wieght: .nan}}",
    "messages: {consumeMode: SOMETIMES}",
    "messages: []",
    "---\nrules: []",
    "*nobody",
    "%YAML 9.9",
];

/// Lists of instances that must not disturb those that are well: each adds to the good one.
const REGISTRIES: [&str; 16] = [
    "{address: '127.0.0.1:1', weight: .nan}",
    "{address: '127.0.0.1:1', weight: -1}",
    "{address: '127.0.0.1:1', weight: 1e308}",
    "{address: '127.0.0.1:1', weight: .inf}",
    "{address: '127.0.0.1:1', weight: heavy}",
    "{address: '127.0.0.1:0'}",
    "{address: '127.0.0.1:65536'}",
    "{address: '0.0.0.0:8080'}",
    "{address: '169.254.169.254:80'}",
    "{address: 'localhost:8080'}",
    "{address: '1.2.3.4@127.0.0.1:80'}",
    "{address: \"127.0.0.1\\r\\nx: y:80\"}",
    "{address: '127.0.0.1:1', metadata: {\"a\\r\\nb\": c}}",
    "{address: '127.0.0.1:1', metadata: []}",
    "{addres: '127.0.0.1:1'}",
    "[",
];

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
         discovery: {files: [registry.yaml]}\nrules: {files: [rules.yaml]}\n",
    )?;
    let instance = |port, version| {
        format!("  - {{address: '127.0.0.1:{port}', metadata: {{version: {version}}}}}\n")
    };
    // Nothing that a lane lacks is to be warned of.
    let registry = format!("services:\n  app:\n{}{}", instance(8001, "V1"), instance(8002, "V2"));
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    Ok(folder)
}

#[test]
fn a_document_is_judged_in_time() -> anyhow::Result<()> {
    let folder = standalone()?;
    let (mut times, mut taken) = (Vec::new(), Vec::new());
    let mut slowest = (Duration::ZERO, String::new());
    for (name, text) in wrong() {
        let (code, time) = check(folder.path(), &text)?;
        if code != Some(2) {
            taken.push(name.clone());
        }
        times.push(time.as_secs_f64() * 1e3);
        slowest = slowest.max((time, name));
    }
    ensure!(taken.is_empty(), "not refused: {taken:?}");
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

/// Sends requests of both lanes until it is told to stop; each must be served by its lane, at once.
async fn client(url: String, done: Arc<AtomicBool>) -> anyhow::Result<usize> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        for (header, version) in [("1", "V2"), ("0", "V1")] {
            let request = client.get(&url).header("x-canary", header);
            let echo = Echo::read(request.send().await?.error_for_status()?).await?;
            ensure!(echo.version == version, "x-canary: {header} went to {}", echo.version);
            count += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(count)
}

/// What the gateway made of all documents.
#[derive(Debug, Default)]
struct Judged {
    documents: usize,
    registries: usize,
    /// The largest growth of memory for one document, in KiB, and which it was.
    greediest: (u64, String),
}

async fn judge(gateway: &Gateway, lines: &str) -> anyhow::Result<Judged> {
    let mut judged = Judged::default();
    let process = &gateway.process;
    let revision = gateway.ask("/api/v1/version").await?;
    for (name, text) in wrong() {
        let before = process.reset_peak_memory()?;
        let counted = gateway.metric("graylane_rules_rejected_total").await?;
        put(gateway.folder.path(), &text)?;
        eventually(Duration::from_secs(10), async || {
            let rejected = gateway.metric("graylane_rules_rejected_total").await?;
            ensure!(rejected > counted + 0.5, "{name} is not rejected");
            Ok(())
        })
        .await?;
        // Whatever would count it twice has had its time.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let rejected = gateway.metric("graylane_rules_rejected_total").await? - counted;
        ensure!(rejected < 1.5, "{name} was counted {rejected} times");
        let now = gateway.ask("/api/v1/version").await?;
        ensure!(now == revision, "{name} changed the revision: {now}");
        judged.greediest =
            judged.greediest.max((process.peak_memory()?.saturating_sub(before), name));
        judged.documents += 1;
    }
    for (text, number) in REGISTRIES.iter().zip(1_u16..) {
        registry(gateway, lines, text, number).await.with_context(|| *text)?;
        judged.registries += 1;
    }
    Ok(judged)
}

/// Adds what is wrong to a list of instances, and one more that is well by which it is seen that the list
/// has been read: either that one is taken and the wrong one is not, or the list as a whole is refused.
async fn registry(gateway: &Gateway, lines: &str, wrong: &str, number: u16) -> anyhow::Result<()> {
    let path = gateway.folder.path().join("registry.yaml");
    let write = |lines: &str| {
        let fresh = path.with_extension("written");
        std::fs::write(&fresh, format!("services:\n  app:\n{lines}"))?;
        std::fs::rename(&fresh, &path)
    };
    let marked = |port: u16| {
        format!("{lines}  - {{address: '127.0.0.1:{port}', metadata: {{version: V9}}}}\n")
    };
    let known = async || -> anyhow::Result<Vec<String>> {
        let value: Value = serde_json::from_str(&gateway.ask("/api/v1/services").await?)?;
        let instances = value["services"]["app"].as_array().cloned().unwrap_or_default();
        Ok(instances.iter().filter_map(|it| Some(it["address"].as_str()?.to_owned())).collect())
    };
    let complaints = || gateway.process.printed().matches("registry.yaml").count();
    let before = complaints();
    let mark = 2_000 + 2 * number;
    write(&format!("{}  - {wrong}\n", marked(mark)))?;
    eventually(Duration::from_secs(10), async || {
        let seen = known().await?.contains(&format!("127.0.0.1:{mark}"));
        ensure!(seen || complaints() > before, "nothing became of it");
        Ok(())
    })
    .await?;
    let now = known().await?;
    let taken = now.iter().filter(|it| !it.ends_with(&format!(":{mark}"))).count();
    ensure!(taken == 2 || (taken == 3 && number > 1), "{now:?}");
    ensure!(!now.contains(&"127.0.0.1:1".to_owned()), "it was taken: {now:?}");
    // A list that is well is taken again.
    write(&marked(mark + 1))?;
    eventually(Duration::from_secs(10), async || {
        let now = known().await?;
        ensure!(now.len() == 3 && now.contains(&format!("127.0.0.1:{}", mark + 1)), "{now:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_document_disturbs_a_request() -> anyhow::Result<()> {
    let (base, gray) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let folder = tempfile::tempdir()?;
    let lines = base.registry_line() + &gray.registry_line();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    put(folder.path(), GOOD)?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml'], guard: {ports: [1-65535]}}\n\
         rules: {files: ['{dir}/rules.yaml']}\n",
    )?;
    gateway.ready().await?;
    let process = &gateway.process;
    let first = process.reset_peak_memory()?;
    let done = Arc::<AtomicBool>::default();
    let clients: Vec<_> =
        (0..4).map(|_| tokio::spawn(client(gateway.url("/"), Arc::clone(&done)))).collect();
    let judged = judge(&gateway, &lines).await;
    done.store(true, Ordering::Relaxed);
    let mut requests = 0;
    for client in clients {
        requests += client.await??;
    }
    let Judged { documents, registries, greediest } = judged?;
    let kept = process.reset_peak_memory()?.saturating_sub(first);
    let (grown, name) = greediest;
    report(
        "corpora",
        &format!(
            "{documents} wrong documents, each refused and counted once, none a new revision\n\
             {registries} lists of instances with one that is wrong, none of which was taken\n\
             requests by four clients meanwhile: {requests}; failed or in the wrong lane: 0\n\
             largest growth of memory for one document: {grown} KiB ({name})\n\
             growth of memory after all of them: {kept} KiB\n"
        ),
    )?;
    ensure!(documents >= 200, "only {documents} documents");
    ensure!(grown < MEMORY, "the gateway grew by {grown} KiB");
    Ok(())
}
