//! Counters of the hot path: found without a lock, and shown to Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gray_lb::{Fallback, ServiceName, Version};
use gray_propagation::GrayStatus;
use http::StatusCode;
use papaya::Equivalent;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::observe::{Noted, Trail};
use crate::tags::GATEWAY;

type HashMap<K, V> = papaya::HashMap<K, V, foldhash::fast::RandomState>;

/// Upper bounds of the histogram of durations, in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What is counted about requests.
///
/// Labels come from the configuration and the registry, never from a request.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    ways: HashMap<Way, Passed>,
    rules: HashMap<Arc<str>, AtomicU64>,
    fallbacks: HashMap<(Arc<str>, GrayStatus, Fallback), AtomicU64>,
    errors: HashMap<&'static str, AtomicU64>,
    unknown_user: AtomicU64,
    unknown_place: AtomicU64,
    cut_short: AtomicU64,
    retries: AtomicU64,
    /// Signed tags that were not believed.
    pub(crate) refused_tags: AtomicU64,
    /// Connections from clients that are open now.
    pub(crate) connections: AtomicU64,
    /// Connections that were refused since there were too many.
    pub(crate) refused_connections: AtomicU64,
}

/// The way that requests take through the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Way {
    route: Arc<str>,
    service: ServiceName,
    version: Option<Version>,
    lane: GrayStatus,
}

/// A [`Way`] by which to look it up without owning it; the fields are hashed as those are.
#[derive(Clone, Copy, Debug, Hash)]
struct WayRef<'a> {
    route: &'a str,
    service: &'a ServiceName,
    version: Option<&'a Version>,
    lane: GrayStatus,
}

impl Equivalent<Way> for WayRef<'_> {
    fn equivalent(&self, way: &Way) -> bool {
        *self.route == *way.route
            && *self.service == way.service
            && self.version == way.version.as_ref()
            && self.lane == way.lane
    }
}

impl Way {
    fn labels(&self) -> [(&'static str, String); 4] {
        [
            ("route", self.route.to_string()),
            ("service", self.service.to_string()),
            ("version", self.version.as_ref().map(Version::to_string).unwrap_or_default()),
            ("lane", self.lane.to_string()),
        ]
    }
}

/// What is known of the requests that took one way.
#[derive(Debug, Default)]
struct Passed {
    durations: Durations,
    /// How many ended with 200, and with any other status.
    ok: AtomicU64,
    others: HashMap<u16, AtomicU64>,
}

impl Passed {
    fn note(&self, noted: &Noted) {
        self.durations.note(noted.arrived.at.elapsed());
        match noted.status {
            // Most do, and are counted without looking anything up.
            StatusCode::OK => _ = self.ok.fetch_add(1, Relaxed),
            other => add(&self.others, other.as_u16()),
        }
    }

    /// Returns how many ended with each status.
    fn statuses(&self) -> Vec<(u16, u64)> {
        let ok = (StatusCode::OK.as_u16(), self.ok.load(Relaxed));
        let others = self.others.pin();
        let others = others.iter().map(|(status, count)| (*status, count.load(Relaxed)));
        others.chain([ok]).filter(|(_, count)| *count > 0).collect()
    }
}

#[derive(Debug)]
struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), nanos: AtomicU64::new(0) }
    }
}

impl Durations {
    fn note(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Relaxed);
    }
}

fn add<K: std::hash::Hash + Eq>(map: &HashMap<K, AtomicU64>, key: K) {
    map.pin().get_or_insert_with(key, AtomicU64::default).fetch_add(1, Relaxed);
}

impl Metrics {
    pub(crate) fn note(&self, noted: &Noted) {
        if let Some(code) = noted.error {
            add(&self.errors, code);
        }
        if noted.broke.is_some() {
            self.cut_short.fetch_add(1, Relaxed);
        }
        if let Some(trail) = &noted.trail {
            self.note_trail(trail, noted);
        }
    }

    fn note_trail(&self, trail: &Trail, noted: &Noted) {
        let rule = trail.verdict.rule.and_then(|rule| trail.revision.rules.rules().get(rule));
        if let Some(rule) = rule {
            let rules = self.rules.pin();
            match rules.get(rule.name()) {
                Some(count) => _ = count.fetch_add(1, Relaxed),
                None => add(&self.rules, Arc::clone(rule.name())),
            }
        }
        let unknown = trail.verdict.unknown;
        for (asked, count) in
            [(unknown.user, &self.unknown_user), (unknown.place, &self.unknown_place)]
        {
            if asked {
                count.fetch_add(1, Relaxed);
            }
        }
        self.retries.fetch_add(trail.attempts.saturating_sub(1).into(), Relaxed);
        let Some(route) = &trail.route else { return };
        let lane = trail.verdict.status;
        let picked = trail.picked.as_ref();
        if let Some(fallback) = picked.and_then(|picked| picked.fallback) {
            let service: Arc<str> = route.service.as_str().into();
            add(&self.fallbacks, (service, lane, fallback));
        }
        let version = picked.and_then(|picked| picked.member.instance().version.as_ref());
        let way = WayRef { route: &route.name, service: &route.service, version, lane };
        let ways = self.ways.pin();
        if let Some(passed) = ways.get(&way) {
            return passed.note(noted);
        }
        let way = Way {
            route: Arc::clone(&route.name),
            service: route.service.clone(),
            version: version.cloned(),
            lane,
        };
        ways.get_or_insert_with(way, Passed::default).note(noted);
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests answered, by route, service, version served, lane and status";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("graylane_requests", help, None, kind)?;
        for (way, passed) in &self.ways.pin() {
            let [route, service, version, lane] = way.labels();
            for (status, count) in passed.statuses() {
                let labels = [
                    route.clone(),
                    service.clone(),
                    version.clone(),
                    lane.clone(),
                    ("status", status.to_string()),
                ];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "graylane_request_duration_seconds";
        let help = "Time from the head of a request to the end of its answer";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (way, Passed { durations, .. }) in &self.ways.pin() {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let counts = durations.buckets.iter().map(|bucket| bucket.load(Relaxed));
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = Duration::from_nanos(durations.nanos.load(Relaxed)).as_secs_f64();
            let labels = way.labels();
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Metrics {
    /// Shows fallbacks by edge, as services do of the calls that they make.
    fn encode_edges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut edges: BTreeMap<(String, GrayStatus), u64> = BTreeMap::new();
        for ((service, lane, _), count) in &self.fallbacks.pin() {
            *edges.entry((service.to_string(), *lane)).or_default() += count.load(Relaxed);
        }
        let help = "Calls that another lane's instance served";
        let mut family =
            encoder.encode_descriptor("lane_fallback", help, None, MetricType::Counter)?;
        for ((to, lane), count) in edges {
            let labels = [("from", GATEWAY.to_owned()), ("to", to), ("lane", lane.to_string())];
            let mut one = family.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// Shows the counters that have no labels.
    fn encode_plain(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let plain = [
            (
                "graylane_responses_cut_short",
                "Answers that did not reach their end",
                &self.cut_short,
            ),
            (
                "graylane_user_unknown",
                "Requests without the user's number that a rule asked for",
                &self.unknown_user,
            ),
            (
                "graylane_place_unknown",
                "Requests from an address whose place a rule asked for and nobody knows",
                &self.unknown_place,
            ),
            (
                "graylane_signed_tags_refused",
                "Requests with a signed tag that was not believed",
                &self.refused_tags,
            ),
            ("graylane_retries", "Requests sent to another instance", &self.retries),
            (
                "graylane_connections_refused",
                "Connections refused since there were too many",
                &self.refused_connections,
            ),
        ];
        for (name, help, value) in plain {
            let mut one = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            one.encode_counter::<NoLabelSet, _, u64>(&value.load(Relaxed), None)?;
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        counters(
            &mut encoder,
            "graylane_rule_matches",
            "Requests a rule took",
            &self.rules,
            |rule| vec![("rule", rule.to_string())],
        )?;
        let help = "Requests served outside their lane, since it had no instance";
        counters(
            &mut encoder,
            "graylane_fallbacks",
            help,
            &self.fallbacks,
            |(service, lane, to)| {
                vec![
                    ("service", service.to_string()),
                    ("lane", lane.to_string()),
                    ("to", to.as_str().to_owned()),
                ]
            },
        )?;
        self.encode_edges(&mut encoder)?;
        let help = "Requests that the gateway answered itself, by reason";
        counters(&mut encoder, "graylane_errors", help, &self.errors, |code| {
            vec![("code", (*code).to_owned())]
        })?;
        self.encode_plain(&mut encoder)?;
        let help = "Connections from clients";
        let kind = MetricType::Gauge;
        let mut one = encoder.encode_descriptor("graylane_connections", help, None, kind)?;
        one.encode_gauge(&i64::try_from(self.connections.load(Relaxed)).unwrap_or(i64::MAX))
    }
}

/// Shows a family of counters.
fn counters<K: std::hash::Hash + Eq>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: &HashMap<K, AtomicU64>,
    labels: impl Fn(&K) -> Vec<(&'static str, String)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (key, count) in &counts.pin() {
        let labels = labels(key);
        let mut one = family.encode_family(&labels)?;
        one.encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
    }
    Ok(())
}
