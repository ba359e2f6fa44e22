//! One line of JSON for each request.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use gray_lb::{Fallback, Version};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::observe::Noted;
use crate::properties::AccessLogProperties;

/// How many lines may wait to be written; more are dropped and counted.
const WAITING: usize = 8192;

/// Passes lines to the task that writes them, and never waits for it.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: mpsc::Sender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    client: String,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'static str>,
    attempts: u32,
    head_ms: f64,
    total_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl AccessLog {
    /// Opens the log, and starts the task that writes it.
    ///
    /// # Errors
    ///
    /// Why its file cannot be opened.
    pub(crate) fn open(properties: &AccessLogProperties) -> std::io::Result<Option<Self>> {
        if !properties.enabled {
            return Ok(None);
        }
        let out: Box<dyn Write + Send> = match &properties.file {
            Some(path) => Box::new(open(path)?),
            None => Box::new(std::io::stdout()),
        };
        let (lines, waiting) = mpsc::channel(WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("access-log".into());
        thread.spawn(move || write(waiting, out, &counter))?;
        Ok(Some(Self { lines, dropped }))
    }

    /// Returns how many lines were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, noted: &Noted) {
        let mut line = serde_json::to_vec(&line(noted)).unwrap_or_default();
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn open(path: &PathBuf) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

fn write(mut waiting: mpsc::Receiver<Vec<u8>>, out: Box<dyn Write + Send>, dropped: &AtomicU64) {
    let mut out = std::io::BufWriter::new(out);
    while let Some(line) = waiting.blocking_recv() {
        // A log that cannot be written must not stop the gateway.
        let written = out.write_all(&line);
        let flushed = if waiting.is_empty() { out.flush() } else { Ok(()) };
        if written.and(flushed).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn line(noted: &Noted) -> Line<'_> {
    let trail = noted.trail.as_ref();
    let picked = trail.and_then(|trail| trail.picked.as_ref());
    let instance = picked.map(|picked| picked.member.instance());
    let rule = trail.and_then(|trail| {
        let rules = trail.revision.rules.rules();
        rules.get(trail.verdict.rule?).map(|rule| &**rule.name())
    });
    let route = trail.and_then(|trail| trail.route.as_deref());
    let millis = |duration: std::time::Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    Line {
        time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        request_id: noted.arrived.id.as_str(),
        client: noted.arrived.client.to_string(),
        method: noted.arrived.method.as_str(),
        path: noted.arrived.path.as_deref().unwrap_or_default(),
        status: noted.status.as_u16(),
        bytes: noted.bytes,
        route: route.map(|route| &*route.name),
        service: route.map(|route| route.service.as_str()),
        lane: trail.map(|trail| trail.verdict.status.to_string()),
        rule,
        revision: trail.map(|trail| trail.revision.digest.as_str()),
        instance: instance.map(|instance| instance.addr.to_string()),
        version: instance.and_then(|it| it.version.as_ref()).map(Version::as_str),
        fallback: picked.and_then(|picked| picked.fallback).map(Fallback::as_str),
        attempts: trail.map_or(0, |trail| trail.attempts),
        head_ms: millis(noted.head_at.duration_since(noted.arrived.at)),
        total_ms: millis(noted.arrived.at.elapsed()),
        error: noted.error.or(noted.broke.as_deref()),
    }
}
