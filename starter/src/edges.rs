//! What is counted about calls between services: where a lane fell back, and where it was left.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use gray_lb::Fallback;
use gray_propagation::GrayStatus;
use tracing::debug;

/// How many edges are kept apart; names come over the network, and must not fill the memory.
const MAX_EDGES: usize = 1_000;

/// A pair of services, one of which called the other in a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Edge {
    /// The service that called.
    pub from: Arc<str>,
    /// The service that was called.
    pub to: Arc<str>,
    /// The lane that was asked for.
    pub lane: GrayStatus,
}

/// What happened on an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeCounts {
    /// Calls that this service made.
    pub calls: u64,
    /// Those for which the lane had no instance, so that another served by the fallback.
    pub fallbacks: u64,
    /// Those that no instance answered, since there was none, or none could be reached in time.
    pub failures: u64,
    /// Calls that this service made outside of any request, in its own lane: jobs, and what a handler has
    /// started without its context.
    pub of_own_accord: u64,
    /// Calls to this service that asked for another lane than its own, with no fallback to explain
    /// it.
    pub escapes: u64,
    /// Calls to this service that came without a tag.
    pub untagged: u64,
}

/// Counts by edge.
///
/// ```no_run
/// # fn main() -> Result<(), gray_starter::StartError> {
/// let starter = gray_starter::Starter::from_env("order-app")?;
/// // Once a minute, or for a page of metrics:
/// println!("{}", starter.edges().to_prometheus());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Edges(Arc<Mutex<BTreeMap<Edge, EdgeCounts>>>);

impl Edges {
    pub(crate) fn called(&self, edge: Edge, fallback: Option<Fallback>) {
        if let Some(fallback) = fallback {
            let Edge { from, to, lane } = &edge;
            debug!(%from, %to, %lane, ?fallback, "the lane has no instance");
        }
        self.count(edge, |counts| {
            counts.calls += 1;
            counts.fallbacks += u64::from(fallback.is_some());
        });
    }

    pub(crate) fn of_own_accord(&self, edge: Edge) {
        self.count(edge, |counts| counts.of_own_accord += 1);
    }

    pub(crate) fn failed(&self, edge: Edge) {
        self.count(edge, |counts| {
            counts.calls += 1;
            counts.failures += 1;
        });
    }

    pub(crate) fn escaped(&self, edge: Edge) {
        let Edge { from, to, lane } = &edge;
        debug!(%from, %to, %lane, "a call came to the wrong lane");
        self.count(edge, |counts| counts.escapes += 1);
    }

    pub(crate) fn untagged(&self, edge: Edge) {
        let Edge { from, to, lane } = &edge;
        debug!(%from, %to, %lane, "a call came without a tag");
        self.count(edge, |counts| counts.untagged += 1);
    }

    /// Returns all counts.
    pub fn counts(&self) -> BTreeMap<Edge, EdgeCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns all counts in the text format of Prometheus.
    pub fn to_prometheus(&self) -> String {
        type Read = fn(&EdgeCounts) -> u64;
        let families: [(&str, &str, Read); 6] = [
            ("lane_calls", "Calls this service made", |it| it.calls),
            ("lane_fallback", "Calls that another lane's instance served", |it| it.fallbacks),
            ("lane_failure", "Calls that no instance answered", |it| it.failures),
            ("lane_own", "Calls this service made outside of any request", |it| it.of_own_accord),
            ("lane_escape", "Calls that came to the wrong lane", |it| it.escapes),
            ("lane_untagged", "Calls that came without a tag", |it| it.untagged),
        ];
        let counts = self.counts();
        let mut text = String::new();
        for (name, help, read) in families {
            let _ = writeln!(text, "# HELP {name}_total {help}\n# TYPE {name}_total counter");
            for (Edge { from, to, lane }, counts) in &counts {
                let (from, to, value) = (escape(from), escape(to), read(counts));
                let _ = writeln!(
                    text,
                    "{name}_total{{from=\"{from}\",to=\"{to}\",lane=\"{lane}\"}} {value}"
                );
            }
        }
        text
    }

    fn count(&self, mut edge: Edge, change: impl FnOnce(&mut EdgeCounts)) {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |edge: &Edge, most: usize| edges.len() < most || edges.contains_key(edge);
        // What makes so many of them are names from the network: what was called, and in which lane, is kept
        // for as long as there are not too many of those either.
        if !has_room(&edge, MAX_EDGES) {
            edge.from = "other".into();
        }
        if !has_room(&edge, MAX_EDGES + MAX_EDGES / 10) {
            edge = Edge { from: "other".into(), to: "other".into(), lane: GrayStatus::All };
        }
        change(edges.entry(edge).or_default());
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str) -> Edge {
        Edge { from: from.into(), to: "b".into(), lane: GrayStatus::Prod }
    }

    #[test]
    fn counts_are_shown_by_edge() {
        let edges = Edges::default();
        edges.called(edge("a"), None);
        edges.called(edge("a"), Some(Fallback::Base));
        edges.untagged(edge("x\"y"));
        let text = edges.to_prometheus();
        for line in [
            "lane_calls_total{from=\"a\",to=\"b\",lane=\"PROD\"} 2",
            "lane_fallback_total{from=\"a\",to=\"b\",lane=\"PROD\"} 1",
            "lane_untagged_total{from=\"x\\\"y\",to=\"b\",lane=\"PROD\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_from_the_network_do_not_fill_the_memory() {
        let edges = Edges::default();
        for number in 0..3 * MAX_EDGES {
            let lane = GrayStatus::Gray(format!("l{number}").parse().unwrap());
            edges.untagged(Edge { lane, ..edge(&number.to_string()) });
        }
        assert!(edges.counts().len() <= MAX_EDGES + MAX_EDGES / 10 + 1);
    }

    /// A real escape after a thousand names that were made up once lost its service and its lane.
    #[test]
    fn what_is_called_in_which_lane_is_told_after_a_flood_of_names() {
        let edges = Edges::default();
        (0..2 * MAX_EDGES).for_each(|number| edges.untagged(edge(&number.to_string())));
        let gray = GrayStatus::Gray(gray_propagation::Lane::GRAY);
        edges.escaped(Edge { lane: gray, ..edge("a") });
        let known = Edge { lane: gray, ..edge("other") };
        assert_eq!(edges.counts()[&known].escapes, 1);
    }
}
