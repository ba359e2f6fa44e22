//! Ten minutes of requests that no client in its senses sends.
//!
//! Half of them are well-formed and carry nonsense: whatever the rules look at, a decision must come
//! out of it, and the instance must answer. The others are damaged anywhere: they may be refused, but
//! never by an error of the gateway's own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use gray_tests::{Gateway, Stub};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::report;

const CLIENTS: usize = 32;

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules:
- {name: header, when: {header: {name: x-canary, regex: '^(a|b)+$'}}}
- {name: cookie, when: {cookie: {name: who, prefix: 'q'}}}
- {name: query, when: {query: {name: v, in: ['1', '2']}}}
- {name: path, when: {path: {regex: '/never/.*'}}}
- {name: user, when: {user: {in: [1001, 1002]}}}
- {name: net, when: {clientIp: {in: [203.0.113.0/24, '2001:db8::/32']}}}
- {name: city, when: {city: {in: [深圳市]}}}
- {name: share, when: {percentage: {share: 33.33, by: [{header: x-uid}, {cookie: uid}, {query: uid}]}}}
- {name: both, when: {all: [{header: {name: x-n, percentage: 50}}, {not: {host: {equal: shop}}}]}}
";

/// What the rules look at, and what the gateway reads or writes.
const NAMES: [&str; 20] = [
    "x-canary",
    "cookie",
    "x-user-no",
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "x-uid",
    "x-n",
    "gray",
    "baggage",
    "traceparent",
    "x-graylane-tag",
    "x-graylane-hop",
    "x-graylane-explain",
    "x-request-id",
    "authorization",
    "via",
    "user-agent",
    "x-mse-tag",
    "accept",
];

const VALUES: [&str; 20] = [
    "1",
    "GRAY",
    "who=qq; userNo=1001; uid=7",
    "203.0.113.9, 127.0.0.1",
    "[2001:db8::1%eth0]:80",
    "for=\"[::1]\";proto=https",
    "1001",
    "99999999999999999999999",
    "-0",
    "3.0000000000000001",
    "traffic-tag=gray,x=%ff",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "",
    "k=1; lane=GRAY; at=0; sig=AAAA",
    "from=a; to=b; fallback=base",
    "Bearer a.b.c",
    "1.1 x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac",
    "深圳市",
    "=;=;;,,\"\\",
];

/// A value: one that is known, or any bytes that may stand in one.
fn value() -> Vec<u8> {
    let mut value = VALUES[fastrand::usize(..VALUES.len())].as_bytes().to_vec();
    for _ in 0..fastrand::usize(..4) {
        // Any byte that may stand in a field's value (RFC 9110, 5.5).
        let byte = loop {
            let byte = fastrand::u8(..);
            if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
                break byte;
            }
        };
        let at = fastrand::usize(..=value.len());
        match fastrand::u8(..4) {
            0 => value.insert(at, byte),
            1 if at < value.len() => value[at] = byte,
            2 => value.truncate(at),
            _ => value.extend(vec![byte; fastrand::usize(..40)]),
        }
    }
    value
}

/// A well-formed request that carries nonsense.
fn nonsense() -> Vec<u8> {
    let target: String = match fastrand::u8(..4) {
        0 => "/".to_owned(),
        1 => format!("/a?uid={}&v=%{:02x}&userNo={}", fastrand::u32(..), fastrand::u8(..), "%zz"),
        2 => format!(
            "/{}?{}",
            "%ff/".repeat(fastrand::usize(..9)),
            "&=".repeat(fastrand::usize(..9))
        ),
        _ => format!("/../.;/{}", fastrand::alphanumeric()),
    };
    let mut bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    for _ in 0..fastrand::usize(..8) {
        let name = NAMES[fastrand::usize(..NAMES.len())];
        let name = if fastrand::u8(..5) == 0 { name.to_uppercase() } else { name.to_owned() };
        bytes.extend(format!("{name}: ").into_bytes());
        bytes.extend(value());
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"\r\n");
    bytes
}

/// The same, damaged anywhere.
fn damaged() -> Vec<u8> {
    let mut bytes = nonsense();
    for _ in 0..fastrand::usize(1..6) {
        let at = fastrand::usize(..bytes.len());
        match fastrand::u8(..4) {
            0 => bytes[at] = fastrand::u8(..),
            1 => bytes.insert(at, fastrand::u8(..)),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// Sends a request on a connection of its own, and returns the status; `None` where there was none.
async fn status(gateway: &str, request: &[u8], whole: bool) -> anyhow::Result<Option<u16>> {
    let mut stream = TcpStream::connect(gateway).await?;
    // The gateway may have refused it before it was all sent.
    let _ = stream.write_all(request).await;
    let mut head = Vec::new();
    let patience = if whole { Duration::from_secs(20) } else { Duration::from_millis(50) };
    while head.len() < 12 {
        match tokio::time::timeout(patience, stream.read_buf(&mut head)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Ok(None),
            // What is damaged may be no whole request: there is nothing more to come.
            Err(_) if !whole => return Ok(None),
            Err(_) => anyhow::bail!("no answer"),
        }
    }
    let text = String::from_utf8_lossy(&head);
    Ok(text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|it| it.parse().ok()))
}

/// Whether the request line ends with a version of HTTP whose first digit is not 1.
fn names_another_version(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let line = text.trim_start_matches("\r\n").lines().next().unwrap_or_default();
    let version = line.rsplit_once(" HTTP/").map(|(_, version)| version.as_bytes());
    matches!(version, Some([major, b'.', minor])
        if major.is_ascii_digit() && *major != b'1' && minor.is_ascii_digit())
}

/// Counts the statuses of both kinds until the time is up.
async fn client(gateway: String, until: Instant) -> anyhow::Result<BTreeMap<(bool, u16), u64>> {
    let mut seen = BTreeMap::new();
    while Instant::now() < until {
        for whole in [true, false] {
            let request = if whole { nonsense() } else { damaged() };
            let status = status(&gateway, &request, whole).await?;
            let right = match status {
                Some(505) => !whole && names_another_version(&request),
                Some(status) => status < 500 && (!whole || status == 200),
                None => !whole,
            };
            let shown = String::from_utf8_lossy(&request);
            ensure!(right, "{status:?} for {shown:?}, well-formed: {whole}");
            *seen.entry((whole, status.unwrap_or_default())).or_default() += 1;
        }
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_nonsense_makes_an_error_of_the_gateways_own() -> anyhow::Result<()> {
    let seconds = std::env::var("GRAYLANE_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = seconds.unwrap_or(600);
    let (base, gray) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let folder = tempfile::tempdir()?;
    let lines = base.registry_line() + &gray.registry_line();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ntrustedProxies: [127.0.0.0/8]\n\
         discovery: {files: ['{dir}/registry.yaml']}\nrules: {files: ['{dir}/rules.yaml']}\n\
         propagation: {decisionHeader: true}\naccessLog: {enabled: true, file: '{dir}/access.log'}\n",
    )?;
    gateway.ready().await?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(gateway.addr.to_string(), until));
    }
    let mut all: BTreeMap<(bool, u16), u64> = BTreeMap::new();
    while let Some(seen) = clients.join_next().await {
        for (status, count) in seen?? {
            *all.entry(status).or_default() += count;
        }
    }
    let printed = gateway.process.printed();
    ensure!(!printed.contains("panicked"), "{printed}");
    let gray = gray.requests();
    ensure!(gray > 0 && base.requests() > 0, "one lane only");
    let sum = |whole: bool| {
        all.iter().filter(|(key, _)| key.0 == whole).map(|(_, count)| count).sum::<u64>()
    };
    let statuses: Vec<String> = all
        .iter()
        .filter(|((whole, _), _)| !whole)
        .map(|((_, status), count)| match status {
            0 => format!("closed {count}"),
            status => format!("{status} {count}"),
        })
        .collect();
    report(
        "fuzz",
        &format!(
            "{seconds} s of nonsense, nine rules of every kind\n\
             well-formed requests: {}, all answered by an instance ({gray} by a gray one, damaged ones \
             among them)\n\
             damaged requests: {} ({})\nanswers of 500 or more: 0; panics: 0\n",
            sum(true),
            sum(false),
            statuses.join(", ")
        ),
    )
}
