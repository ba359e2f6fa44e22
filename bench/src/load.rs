//! Load from one thread: as much as is answered, so many requests a second, or connections that idle.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::request::{is_gray, request};
use crate::wait::Sockets;

/// What each request asks for where nothing is said.
const PATH: &str = "/api/v1/items/123?expand=price";

/// How long nothing may come before a run is given up.
const SILENCE: Duration = Duration::from_secs(20);

/// Puts load on a gateway.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// The gateway's port.
    pub(crate) port: u16,
    /// How many connections there are.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// How many requests are sent in all.
    #[arg(long)]
    pub(crate) count: u64,
    /// How many requests are sent each second; the next as soon as one is answered where not given.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// What is asked for.
    #[arg(long, default_value = PATH)]
    pub(crate) path: String,
    /// For how many seconds the connections stay after that.
    #[arg(long, default_value_t = 0)]
    pub(crate) hold: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How many were answered with 200.
    pub(crate) answered: u64,
    /// How many were not, or not at all.
    pub(crate) failed: u64,
    /// How many were answered by a version that is not their lane's.
    pub(crate) wrong: u64,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// How long half of them, and 99 of 100, took from the moment at which they were to be sent, in
    /// microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// A connection, and what is going on on it.
struct Connection {
    stream: TcpStream,
    gray: bool,
    /// When the request was to be sent.
    due: Instant,
    /// What has come of an answer's head.
    head: Vec<u8>,
    /// How much of its body is still to come, once the head is there.
    left: Option<Left>,
}

/// How much of a body is still to come.
#[derive(Clone, Copy)]
enum Left {
    Bytes(usize),
    /// It ends with an empty chunk; these are the last bytes that came.
    Chunks([u8; 5]),
}

/// A run.
struct Run {
    sockets: Sockets,
    connections: Vec<Connection>,
    /// Those that no answer is waited for on, the longest idle first.
    free: VecDeque<usize>,
    requests: [Vec<u8>; 2],
    sent: u64,
    outcome: Outcome,
    took: Vec<Duration>,
}

impl Load {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let outcome = self.put()?;
        crate::say(&serde_json::to_string(&outcome)?);
        Ok(())
    }

    fn put(&self) -> anyhow::Result<Outcome> {
        let mut run = Run::connect(self)?;
        let (began, mut heard) = (Instant::now(), Instant::now());
        let due = |number: u64| match self.rate {
            Some(rate) => began + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        let mut buffer = vec![0; 1 << 18];
        loop {
            while run.sent < self.count && due(run.sent) <= Instant::now() {
                let Some(place) = run.free.pop_front() else { break };
                run.send(place, due(run.sent))?;
            }
            if run.outcome.answered + run.outcome.failed >= self.count {
                break;
            }
            let next = due(run.sent).saturating_duration_since(Instant::now());
            let waits = self.rate.is_some() && run.sent < self.count && !run.free.is_empty();
            let ready = run.sockets.ready(Some(if waits { next } else { SILENCE }))?;
            if !ready.is_empty() || waits {
                heard = Instant::now();
            } else if heard.elapsed() >= SILENCE {
                bail!("nothing came for {SILENCE:?}: {:?}", run.outcome);
            }
            for place in ready {
                run.read(place, &mut buffer)?;
            }
        }
        run.outcome.seconds = began.elapsed().as_secs_f64();
        if self.hold > 0 {
            std::thread::park_timeout(Duration::from_secs(self.hold));
        }
        Ok(run.end())
    }
}

impl Run {
    fn connect(load: &Load) -> anyhow::Result<Self> {
        let sockets = Sockets::new()?;
        let mut connections = Vec::new();
        for place in 0..load.connections {
            let address = ("127.0.0.1", load.port);
            let stream = TcpStream::connect(address);
            let stream = stream.with_context(|| format!("127.0.0.1:{} is not there", load.port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            sockets.add(&stream, place)?;
            let (gray, due, head) = (false, Instant::now(), Vec::new());
            connections.push(Connection { stream, gray, due, head, left: None });
        }
        Ok(Self {
            sockets,
            free: (0..connections.len()).collect(),
            connections,
            requests: [false, true].map(|gray| request(&load.path, gray)),
            sent: 0,
            outcome: Outcome::default(),
            took: Vec::new(),
        })
    }

    fn send(&mut self, place: usize, due: Instant) -> anyhow::Result<()> {
        let connection = self.connections.get_mut(place).context("no such connection")?;
        connection.gray = is_gray(self.sent);
        (connection.due, connection.left) = (due, None);
        connection.head.clear();
        let [plain, gray] = &self.requests;
        // It fits into what the system keeps.
        connection.stream.write_all(if connection.gray { gray } else { plain })?;
        self.sent += 1;
        Ok(())
    }

    fn read(&mut self, place: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        let connection = self.connections.get_mut(place).context("no such connection")?;
        let length = match connection.stream.read(buffer) {
            Ok(length) if length > 0 => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            closed => bail!("a connection ended: {closed:?}, after {:?}", self.outcome),
        };
        let data = buffer.get(..length).unwrap_or_default();
        let ended = match connection.left.take() {
            None => self.begin(place, data)?,
            Some(left) => self.go_on(place, left, data),
        };
        if ended {
            self.took
                .push(self.connections.get(place).map(|it| it.due.elapsed()).unwrap_or_default());
            self.free.push_back(place);
        }
        Ok(())
    }

    /// Reads the head of an answer; tells whether it has ended as well.
    fn begin(&mut self, place: usize, data: &[u8]) -> anyhow::Result<bool> {
        let connection = self.connections.get_mut(place).context("no such connection")?;
        connection.head.extend_from_slice(data);
        let head = std::mem::take(&mut connection.head);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response.parse(&head)? else {
            connection.head = head;
            return Ok(false);
        };
        let value = |name: &str| {
            let found = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        match response.code {
            Some(200) => self.outcome.answered += 1,
            _ => self.outcome.failed += 1,
        }
        let version = if connection.gray { "V2" } else { "V1" };
        if !value("x-upstream").is_some_and(|it| it.starts_with(version)) {
            self.outcome.wrong += 1;
        }
        let left = match value("content-length") {
            Some(length) => Left::Bytes(length.parse()?),
            None => Left::Chunks([0; 5]),
        };
        Ok(self.go_on(place, left, head.get(end..).unwrap_or_default()))
    }

    /// Takes note of a piece of a body; tells whether it has ended.
    fn go_on(&mut self, place: usize, left: Left, data: &[u8]) -> bool {
        let left = match left {
            Left::Bytes(left) if left <= data.len() => return true,
            Left::Bytes(left) => Left::Bytes(left - data.len()),
            Left::Chunks(last) => {
                let all = [&last[..], data.get(data.len().saturating_sub(5)..).unwrap_or_default()];
                let all = all.concat();
                if all.ends_with(b"0\r\n\r\n") {
                    return true;
                }
                let mut last = [0; 5];
                last.copy_from_slice(all.get(all.len() - 5..).unwrap_or(&[0; 5]));
                Left::Chunks(last)
            }
        };
        if let Some(connection) = self.connections.get_mut(place) {
            connection.left = Some(left);
        }
        false
    }

    fn end(mut self) -> Outcome {
        self.took.sort_unstable();
        let at = |share: f64| {
            let place = (self.took.len().saturating_sub(1)) as f64 * share;
            self.took.get(place as usize).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        (self.outcome.p50, self.outcome.p99) = (at(0.5), at(0.99));
        self.outcome
    }
}
