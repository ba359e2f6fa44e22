use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gray_propagation::Lane;
use tokio::time::Instant;

use super::core::DRAINS;
use crate::Side;

/// Which lanes have consumers, by the last answer of all brokers.
#[derive(Debug)]
pub(super) struct Liveness {
    /// For how long a lane counts as alive whose consumers are gone: a restart is no reason to switch
    /// twice.
    length: Duration,
    alive: BTreeSet<Lane>,
    /// Since when lanes that were alive have had nobody.
    silent: BTreeMap<Lane, Instant>,
    /// Whether brokers have ever said who is alive.
    known: bool,
}

impl Liveness {
    pub(super) const fn new(length: Duration) -> Self {
        Self { length, alive: BTreeSet::new(), silent: BTreeMap::new(), known: false }
    }

    /// The lanes whose consumers are alive.
    pub(super) const fn alive(&self) -> &BTreeSet<Lane> {
        &self.alive
    }

    /// Tells whether brokers have ever answered: until then "nobody" means nothing.
    pub(super) const fn is_known(&self) -> bool {
        self.known
    }

    /// Takes note of the lanes that have consumers: at once of new ones, and of those that are gone after
    /// a while. Consumers that only drain do not count. Returns the lanes for which it changed, and
    /// whether they are alive now.
    ///
    /// `open` is which lanes own their messages now, `listed` whom brokers list of each side that was
    /// asked about.
    pub(super) fn see(
        &mut self,
        open: &BTreeSet<Lane>,
        listed: &BTreeMap<Side, BTreeSet<String>>,
        now: Instant,
    ) -> Vec<(Lane, bool)> {
        // Whoever has just come does not know better: who has a lane may have had consumers a moment ago.
        if !std::mem::replace(&mut self.known, true) {
            let was_asked = |lane: &&Lane| listed.contains_key(&Side::Lane(**lane));
            self.alive.extend(open.iter().filter(was_asked));
        }
        let mut changes = Vec::new();
        for (side, clients) in listed {
            let Side::Lane(lane) = *side else { continue };
            if clients.iter().any(|client| !client.ends_with(DRAINS)) {
                self.silent.remove(&lane);
                if self.alive.insert(lane) {
                    changes.push((lane, true));
                }
            } else if self.alive.contains(&lane) {
                let since = *self.silent.entry(lane).or_insert(now);
                if now.duration_since(since) >= self.length {
                    self.alive.remove(&lane);
                    self.silent.remove(&lane);
                    changes.push((lane, false));
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Duration = Duration::from_secs(10);

    struct Seen {
        liveness: Liveness,
        start: Instant,
        open: BTreeSet<Lane>,
    }

    impl Seen {
        fn new(open: &[Lane]) -> Self {
            let open = open.iter().copied().collect();
            Self { liveness: Liveness::new(L), start: Instant::now(), open }
        }

        /// What changes when, so many seconds after the start, these are listed for `gray`.
        fn see(&mut self, seconds: u64, clients: &[&str]) -> Vec<(Lane, bool)> {
            let clients = clients.iter().map(|client| (*client).to_owned()).collect();
            let listed = [(Side::Base, BTreeSet::new()), (Side::Lane(Lane::GRAY), clients)];
            let now = self.start + Duration::from_secs(seconds);
            self.liveness.see(&self.open, &listed.into(), now)
        }
    }

    #[test]
    fn a_lane_comes_at_once_and_goes_after_a_while() {
        let mut seen = Seen::new(&[]);
        assert!(!seen.liveness.is_known());
        assert_eq!(seen.see(0, &[]), []);
        assert!(seen.liveness.is_known() && seen.liveness.alive().is_empty());
        assert_eq!(seen.see(1, &["a"]), [(Lane::GRAY, true)]);
        assert_eq!(seen.see(2, &["a", "b"]), []);
        assert_eq!(seen.see(3, &[]), []);
        assert_eq!(seen.see(12, &[]), []);
        assert_eq!(seen.liveness.alive(), &[Lane::GRAY].into());
        assert_eq!(seen.see(13, &[]), [(Lane::GRAY, false)]);
        assert!(seen.liveness.alive().is_empty());
    }

    #[test]
    fn a_restart_is_not_noticed_and_the_next_absence_counts_anew() {
        let mut seen = Seen::new(&[]);
        assert_eq!(seen.see(0, &["a"]), [(Lane::GRAY, true)]);
        assert_eq!(seen.see(1, &[]), []);
        assert_eq!(seen.see(9, &["a"]), []);
        assert_eq!(seen.see(10, &[]), []);
        assert_eq!(seen.see(19, &[]), []);
        assert_eq!(seen.see(20, &[]), [(Lane::GRAY, false)]);
    }

    /// Otherwise a leader that starts while a lane's consumers restart would close it.
    #[test]
    fn who_has_just_come_takes_open_lanes_as_alive_for_a_while() {
        let mut seen = Seen::new(&[Lane::GRAY, "blue".parse().unwrap()]);
        assert_eq!(seen.see(0, &[]), []);
        // Nobody could be asked about the other: it has no group.
        assert_eq!(seen.liveness.alive(), &[Lane::GRAY].into());
        assert_eq!(seen.see(9, &[]), []);
        assert_eq!(seen.see(10, &[]), [(Lane::GRAY, false)]);
        // Only at first: whoever knows better believes brokers.
        assert_eq!(seen.see(11, &[]), []);
    }

    #[test]
    fn whoever_drains_keeps_no_lane_alive() {
        let mut seen = Seen::new(&[]);
        let drains = format!("a{DRAINS}");
        assert_eq!(seen.see(0, &[&drains]), []);
        assert_eq!(seen.see(1, &["a"]), [(Lane::GRAY, true)]);
        assert_eq!(seen.see(2, &[&drains]), []);
        assert_eq!(seen.see(12, &[&drains]), [(Lane::GRAY, false)]);
    }
}
