use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gray_propagation::Lane;

use crate::QueueKey;

/// What became of messages, by topic, group, lane and outcome, how many are still to be read, and how
/// long switches took. Clones count in one place: one is for the application's metrics page.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    messages: Mutex<BTreeMap<Count, Arc<AtomicU64>>>,
    behind: Mutex<BTreeMap<(Reading, QueueKey), u64>>,
    switches: AtomicU64,
    switching: AtomicU64,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Where the message was produced.
    pub origin: Origin,
    /// What became of it.
    pub outcome: Outcome,
}

/// Where a message was produced, as far as it is told apart when it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// In base.
    Base,
    /// In a lane that the rules name, or in the consumer's own.
    Lane(Lane),
    /// In any other. Whoever produces may write what it likes, and must not have each word remembered.
    Other,
}

impl Origin {
    /// Tells messages apart by their lane, where that is one that somebody `has_named`.
    pub(super) fn new(lane: Option<Lane>, has_named: impl FnOnce(Lane) -> bool) -> Self {
        match lane {
            None => Self::Base,
            // No two lines of a metrics page may be the same.
            Some(lane) if lane.as_str() != OTHER && has_named(lane) => Self::Lane(lane),
            Some(_) => Self::Other,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str(BASE),
            Self::Lane(lane) => lane.fmt(f),
            Self::Other => f.write_str(OTHER),
        }
    }
}

/// What stands for those that are no lane of ours.
const BASE: &str = "base";
const OTHER: &str = "other";

/// What a process reads, as a member of which group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The lane of the group; `None` for base.
    pub lane: Option<Lane>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was handled.
    Handled,
    /// It could not be handled, and was given back.
    GivenBack,
    /// It belongs to others.
    Skipped,
    /// Base handled it although the lane has consumers: it was produced before they owned it.
    Escaped,
}

impl Outcome {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::GivenBack => "given_back",
            Self::Skipped => "skipped",
            Self::Escaped => "escaped",
        }
    }
}

impl Counts {
    /// Returns what counts messages of a kind.
    pub(super) fn counter(&self, count: Count) -> Arc<AtomicU64> {
        let mut messages = self.0.messages.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(messages.entry(count).or_default())
    }

    /// Takes note of a switch that this consumer has finished.
    pub(super) fn switched(&self, took: Duration) {
        self.0.switches.fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.0.switching.fetch_add(millis, Ordering::Relaxed);
    }

    /// Takes note of how many offsets of a queue are not committed.
    pub(super) fn is_behind(&self, reading: Reading, queue: &QueueKey, offsets: u64) {
        let mut behind = self.0.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.insert((reading, queue.clone()), offsets);
    }

    /// A queue is not read any more: others say how far behind its group is.
    pub(super) fn reads_no_more(&self, reading: Reading, queue: &QueueKey) {
        let mut behind = self.0.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.remove(&(reading, queue.clone()));
    }

    /// Returns how many offsets of the queues that this process reads are not committed: at most so many
    /// messages are still to be handled.
    pub fn behind(&self) -> BTreeMap<Reading, u64> {
        let behind = self.0.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = BTreeMap::new();
        for ((reading, _), offsets) in &*behind {
            *sums.entry(reading.clone()).or_default() += offsets;
        }
        drop(behind);
        sums
    }

    /// Returns what became of messages.
    pub fn all(&self) -> BTreeMap<Count, u64> {
        let messages = self.0.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(count, value): (&Count, &Arc<AtomicU64>)| {
            (count.clone(), value.load(Ordering::Relaxed))
        };
        messages.iter().map(read).collect()
    }

    /// Returns everything that was counted in the text format of Prometheus.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::from(
            "# HELP graylane_mq_messages What became of messages.\n\
             # TYPE graylane_mq_messages counter\n",
        );
        for (count, value) in self.all() {
            let Count { topic, group, origin: lane, outcome } = count;
            let (topic, group, outcome) = (escaped(&topic), escaped(&group), outcome.as_str());
            // Writing into a text does not fail.
            let _ = writeln!(
                text,
                "graylane_mq_messages_total{{topic=\"{topic}\",group=\"{group}\",lane=\"{lane}\",\
                 outcome=\"{outcome}\"}} {value}"
            );
        }
        text.push_str(
            "# HELP graylane_mq_lag Offsets of the queues read here that are not committed.\n\
             # TYPE graylane_mq_lag gauge\n",
        );
        for (Reading { topic, group, lane }, offsets) in self.behind() {
            let (topic, group, lane) = (escaped(&topic), escaped(&group), named(lane));
            let _ = writeln!(
                text,
                "graylane_mq_lag{{topic=\"{topic}\",group=\"{group}\",lane=\"{lane}\"}} {offsets}"
            );
        }
        let switches = self.0.switches.load(Ordering::Relaxed);
        let millis = Duration::from_millis(self.0.switching.load(Ordering::Relaxed));
        let _ = writeln!(
            text,
            "# HELP graylane_mq_switch_seconds How long switches took that this consumer finished.\n\
             # TYPE graylane_mq_switch_seconds summary\n\
             graylane_mq_switch_seconds_sum {}\ngraylane_mq_switch_seconds_count {switches}",
            millis.as_secs_f64()
        );
        text
    }
}

fn named(lane: Option<Lane>) -> String {
    lane.map_or_else(|| BASE.to_owned(), |lane| lane.to_string())
}

/// A label's value as the text format has it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_said_in_the_text_format() {
        let counts = Counts::default();
        let count = Count {
            topic: "t\"".to_owned(),
            group: "g".to_owned(),
            origin: Origin::Lane(Lane::GRAY),
            outcome: Outcome::GivenBack,
        };
        counts.counter(count).fetch_add(2, Ordering::Relaxed);
        counts.switched(Duration::from_millis(1500));
        let text = counts.to_prometheus();
        let line = r#"graylane_mq_messages_total{topic="t\"",group="g",lane="gray",outcome="given_back"} 2"#;
        assert!(text.lines().any(|it| it == line), "{text}");
        assert!(text.contains("graylane_mq_switch_seconds_sum 1.5\n"), "{text}");
    }

    /// Each word that stood in a message's property was a line of the metrics page for ever.
    #[test]
    fn lanes_that_nobody_has_named_are_counted_together() {
        let counts = Counts::default();
        for lane in ["gray", "made-up", "made-up-too", "other"] {
            let origin = Origin::new(lane.parse().ok(), |lane| lane == Lane::GRAY);
            let (topic, group) = ("t".to_owned(), "g".to_owned());
            let count = Count { topic, group, origin, outcome: Outcome::Skipped };
            counts.counter(count).fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(Origin::new(None, |_| true), Origin::Base);
        let text = counts.to_prometheus();
        let line = |lane: &str, number: u32| {
            let labels = format!(r#"topic="t",group="g",lane="{lane}",outcome="skipped""#);
            format!("graylane_mq_messages_total{{{labels}}} {number}\n")
        };
        assert!(text.contains(&line("gray", 1)) && text.contains(&line("other", 3)), "{text}");
        assert_eq!(counts.all().len(), 2);
    }

    #[test]
    fn a_queue_that_went_elsewhere_is_not_behind_here() {
        let counts = Counts::default();
        let reading = Reading { topic: "t".to_owned(), group: "g".to_owned(), lane: None };
        let queue = |number| QueueKey { broker: "broker-a".to_owned(), number };
        counts.is_behind(reading.clone(), &queue(0), 5);
        counts.is_behind(reading.clone(), &queue(1), 2);
        counts.is_behind(reading.clone(), &queue(0), 4);
        let line = r#"graylane_mq_lag{topic="t",group="g",lane="base"} "#;
        assert!(counts.to_prometheus().contains(&format!("{line}6\n")));
        counts.reads_no_more(reading, &queue(0));
        assert!(counts.to_prometheus().contains(&format!("{line}2\n")));
    }
}
