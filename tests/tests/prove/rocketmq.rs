//! Ten minutes of what no broker in its senses answers (M9).
//!
//! A server takes the client's connections and answers wrongly: frames that are cut off, too long,
//! damaged anywhere, for somebody else, or twice. The client may fail with a clear error, and has to
//! understand the next server that answers rightly; it never panics, and never takes more memory than
//! twice the largest frame.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gray_mq::rocketmq::{Broker, Connection, RocketMqError, route};
use gray_mq::{Filter, PullRequest, QueueKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::report;

const CLIENTS: usize = 48;

/// The largest frame that the client takes, in KiB.
const LARGEST: u64 = 64 << 10;

/// Topics of this name are answered rightly.
const RIGHT: &str = "right";

/// How long it goes on.
fn extent() -> Duration {
    let seconds = std::env::var("GRAYLANE_FUZZ").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(600))
}

/// A message as a broker stores it, by the layout of org.apache.rocketmq.common.message.MessageDecoder.
fn stored(body: &[u8], flags: i32) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend((-626_843_481_i32).to_be_bytes());
    rest.extend([0; 4]);
    rest.extend(0_u32.to_be_bytes());
    rest.extend([0; 4]);
    rest.extend(7_u64.to_be_bytes());
    rest.extend(4242_u64.to_be_bytes());
    rest.extend(flags.to_be_bytes());
    rest.extend(1_u64.to_be_bytes());
    rest.extend([127, 0, 0, 1, 0, 0, 0, 1]);
    rest.extend(2_u64.to_be_bytes());
    rest.extend([127, 0, 0, 1, 0, 0, 0, 1]);
    rest.extend([0; 4]);
    rest.extend([0; 8]);
    rest.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    rest.extend(body);
    rest.push(1);
    rest.extend(b"t");
    let properties = "gray\u{1}GRAY\u{2}";
    rest.extend(u16::try_from(properties.len()).unwrap().to_be_bytes());
    rest.extend(properties.as_bytes());
    let length = u32::try_from(rest.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &rest].concat()
}

/// The frame of an answer.
fn frame(opaque: i64, fields: &str, body: &[u8]) -> Vec<u8> {
    let header = format!(
        r#"{{"code":0,"flag":1,"language":"JAVA","opaque":{opaque},"serializeTypeCurrentRPC":"JSON","version":453,"extFields":{fields}}}"#
    );
    let length = u32::try_from(4 + header.len() + body.len()).unwrap();
    let word = u32::try_from(header.len()).unwrap();
    [&length.to_be_bytes()[..], &word.to_be_bytes(), header.as_bytes(), body].concat()
}

/// What a broker or a name server in its senses says.
fn right(code: i64, opaque: i64) -> Vec<u8> {
    match code {
        11 => {
            let fields = r#"{"nextBeginOffset":"8","minOffset":"0","maxOffset":"9","suggestWhichBrokerId":"0"}"#;
            frame(opaque, fields, &stored(b"hello", 0))
        }
        105 => frame(
            opaque,
            "{}",
            br#"{"brokerDatas":[{"brokerName":"b","brokerAddrs":{"0":"127.0.0.1:1"}}],"queueDatas":[{"brokerName":"b","readQueueNums":4,"writeQueueNums":4}]}"#,
        ),
        38 => frame(opaque, "{}", br#"{"consumerIdList":["a","b"]}"#),
        26 => frame(opaque, "{}", b"enablePropertyFilter=true\n"),
        _ => frame(opaque, r#"{"offset":"7"}"#, b""),
    }
}

/// A body of 64 MiB of zeros, compressed as brokers do: a decoder must stop before that.
fn bomb() -> &'static [u8] {
    static BOMB: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BOMB.get_or_init(|| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&zeros).unwrap();
        }
        encoder.finish().unwrap()
    })
}

/// What a server answers that is not in its senses, and whether it hangs up then.
fn wrong(code: i64, opaque: i64) -> (Vec<u8>, bool) {
    let mut answer = right(code, opaque);
    let huge = [u32::MAX, 0x7fff_ffff, (64 << 20) + 1, (64 << 20) - 1, 3, 0];
    match fastrand::u8(..12) {
        0 => {
            answer.truncate(fastrand::usize(..answer.len()));
            (answer, true)
        }
        1 => {
            let length = huge[fastrand::usize(..huge.len())];
            answer[..4].copy_from_slice(&length.to_be_bytes());
            (answer, true)
        }
        2 => {
            let length = fastrand::u32(..);
            answer[4..8].copy_from_slice(&length.to_be_bytes());
            (answer, false)
        }
        3 => (right(code, opaque.wrapping_add(1 + fastrand::i64(..1000))), true),
        4 => ([right(code, opaque), right(code, opaque)].concat(), false),
        5 => ((0..fastrand::usize(1..300)).map(|_| fastrand::u8(..)).collect(), true),
        6 => (
            frame(
                opaque,
                r#"{"offset":"-1","nextBeginOffset":"x","minOffset":"99999999999999999999"}"#,
                b"{",
            ),
            false,
        ),
        7 => (frame(opaque, &"[".repeat(100_000), b""), false),
        8 => (
            frame(
                opaque,
                r#"{"nextBeginOffset":"8","minOffset":"0","maxOffset":"9"}"#,
                &stored(bomb(), 1),
            ),
            false,
        ),
        9 => (frame(opaque, "{}", &"[".repeat(200_000).into_bytes()), false),
        _ => {
            for _ in 0..fastrand::usize(1..9) {
                let at = fastrand::usize(..answer.len());
                answer[at] = fastrand::u8(..);
            }
            (answer, fastrand::bool())
        }
    }
}

/// Answers the requests of one connection.
async fn serve(mut client: TcpStream, sent: Arc<AtomicU64>) -> anyhow::Result<()> {
    loop {
        let length = client.read_u32().await?;
        let mut request = vec![0; usize::try_from(length)?];
        client.read_exact(&mut request).await?;
        let header = usize::try_from(u32::from_be_bytes(request[..4].try_into()?) & 0xff_ffff)?;
        let header: serde_json::Value = serde_json::from_slice(&request[4..4 + header])?;
        let (code, opaque) = (header["code"].as_i64(), header["opaque"].as_i64());
        let (code, opaque) = (code.context("no code")?, opaque.context("no opaque")?);
        if header["extFields"]["topic"] == RIGHT {
            client.write_all(&right(code, opaque)).await?;
            continue;
        }
        let (answer, hangs_up) = wrong(code, opaque);
        sent.fetch_add(1, Ordering::Relaxed);
        client.write_all(&answer).await?;
        if hangs_up {
            return Ok(());
        }
    }
}

/// Asks one question of any kind.
async fn ask(broker: &Broker) -> Result<(), RocketMqError> {
    let queue = QueueKey { broker: "b".to_owned(), number: 0 };
    let filter = Filter::default();
    match fastrand::u8(..6) {
        0 | 1 => {
            let pull = PullRequest {
                group: "g",
                topic: "t",
                queue: &queue,
                offset: 7,
                count: 32,
                wait: Duration::ZERO,
                filter: &filter,
            };
            broker.pull(&pull).await.map(drop)
        }
        2 => broker.max_offset("t", 0).await.map(drop),
        3 => broker.committed("g", "t", 0).await.map(drop),
        4 => broker.consumers("g").await.map(drop),
        _ => broker.setting("enablePropertyFilter").await.map(drop),
    }
}

/// A word for what came of a question.
fn word(answer: &Result<(), RocketMqError>) -> String {
    let Err(error) = answer else { return "answered".to_owned() };
    let text = format!("{error:?}");
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// Connects, asks until the connection is broken, and then asks a server in its senses.
async fn client(address: String, until: Instant) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut seen = BTreeMap::new();
    let limit = Duration::from_secs(5);
    while Instant::now() < until {
        let connection = Connection::open(&address, limit).await?;
        let broker = Broker::new("b".to_owned(), connection);
        for _ in 0..fastrand::u8(1..20) {
            *seen.entry(word(&ask(&broker).await)).or_default() += 1;
            if broker.is_broken() {
                break;
            }
        }
        let anew = Connection::open(&address, limit).await?;
        let route = route(&anew, RIGHT).await?.context("the route is not found")?;
        ensure!(route.brokers.get("b").is_some_and(|(_, read, _)| *read == 4), "{route:?}");
    }
    Ok(seen)
}

fn peak_memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_no_broker_writes() -> anyhow::Result<()> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let (seen_panics, usual) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        seen_panics.lock().unwrap().push(panic.to_string());
        usual(panic);
    }));
    let _ = bomb();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, sent) = (listener.local_addr()?.to_string(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let sent = Arc::clone(&counted);
            // Whoever hangs up has been answered wrongly.
            tokio::spawn(async move { serve(client, sent).await.ok() });
        }
    });
    let before = peak_memory()?;
    let until = Instant::now() + extent();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(address.clone(), until));
    }
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(seen) = clients.join_next().await {
        for (outcome, count) in seen?? {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    let grown = peak_memory()? - before;
    let panics = panics.lock().unwrap().clone();
    let sent = sent.load(Ordering::Relaxed);
    let text = format!(
        "{} s of wrong answers to {CLIENTS} clients: {sent} frames\n\
         questions by what came of them: {outcomes:?}\n\
         after each connection a server in its senses was understood\n\
         panics: {}; growth of memory with {CLIENTS} connections: {grown} KiB\n",
        extent().as_secs(),
        panics.len(),
    );
    ensure!(panics.is_empty(), "{panics:?}");
    ensure!(grown <= 2 * LARGEST, "{text}");
    report("frames", &text)
}
