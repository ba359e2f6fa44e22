use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::Trust;
use crate::{Instance, ServiceName};

/// Keeps instances that a registry forgot rather than lost.
///
/// A registry that restarts tells of no instances at all, then of some, until all have registered
/// again. An empty list where there were instances is therefore believed only after a grace, and
/// what vanished just after a link came back only when that has settled. Everything else is believed
/// at once: the last gray instance that leaves is the normal end of a release, be it among others or in
/// a group of its lane's own.
#[derive(Debug)]
pub(crate) struct Retention {
    grace: Duration,
    kept: HashMap<(usize, ServiceName), Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    current: Vec<Instance>,
    latest: Vec<Instance>,
    /// When the latest list is to be believed, if it is not yet.
    believed_at: Option<Instant>,
}

impl Retention {
    /// Keeps an emptied service's instances for `grace`.
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, kept: HashMap::new() }
    }

    /// Takes note of what a source says about a service.
    pub(crate) fn note(
        &mut self,
        source: usize,
        service: &ServiceName,
        latest: Vec<Instance>,
        trust: Trust,
    ) {
        let kept = self.kept.entry((source, service.clone())).or_default();
        let now = Instant::now();
        // A lane that lives in a group of its own leaves it empty at the end of a release.
        let of_base = kept.current.iter().any(|instance| instance.lane.is_none());
        let emptied = latest.is_empty() && of_base;
        let doubted = kept.believed_at.is_some();
        match trust {
            Trust::Settling(until) => kept.doubt(latest, until),
            Trust::Pushed if emptied || doubted => kept.doubt(latest, now + self.grace),
            Trust::Certain | Trust::Pushed => kept.believe(latest),
        }
    }

    /// Believes what is due, and returns the services that changed by it.
    pub(crate) fn expire(&mut self) -> Vec<ServiceName> {
        let now = Instant::now();
        let due =
            self.kept.iter_mut().filter(|(_, kept)| kept.believed_at.is_some_and(|at| at <= now));
        due.map(|((_, service), kept)| {
            let latest = std::mem::take(&mut kept.latest);
            kept.believe(latest);
            service.clone()
        })
        .collect()
    }

    /// Returns when something is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.kept.values().filter_map(|kept| kept.believed_at).min()
    }

    /// Tells whether a source has said anything about a service.
    pub(crate) fn knows(&self, source: usize, service: &ServiceName) -> bool {
        self.kept.contains_key(&(source, service.clone()))
    }

    /// Returns the instances of a service, of all sources.
    pub(crate) fn instances(&self, service: &ServiceName) -> Vec<Instance> {
        let mut of: Vec<(&usize, &Kept)> = self
            .kept
            .iter()
            .filter_map(|((source, name), kept)| (name == service).then_some((source, kept)))
            .collect();
        of.sort_by_key(|(source, _)| **source);
        of.into_iter().flat_map(|(_, kept)| kept.current.clone()).collect()
    }
}

impl Kept {
    fn believe(&mut self, latest: Vec<Instance>) {
        *self = Self { current: latest, ..Self::default() };
    }

    /// Takes what is new at once, and keeps what vanished until the time is up.
    fn doubt(&mut self, latest: Vec<Instance>, until: Instant) {
        let listed = |addr: SocketAddr| latest.iter().any(|instance| instance.addr == addr);
        let vanished = self.current.iter().filter(|instance| !listed(instance.addr)).cloned();
        let vanished: Vec<Instance> = vanished.collect();
        if vanished.is_empty() {
            return self.believe(latest);
        }
        self.current = latest.iter().cloned().chain(vanished).collect();
        self.latest = latest;
        self.believed_at = Some(self.believed_at.unwrap_or(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    struct Case(Retention, ServiceName);

    impl Case {
        fn new() -> Self {
            Self(Retention::new(GRACE), ServiceName::new("user-app"))
        }

        fn note(&mut self, ports: &[u16], trust: Trust) {
            let instance = |port: &u16| Instance::new(([127, 0, 0, 1], *port).into());
            self.0.note(0, &self.1, ports.iter().map(instance).collect(), trust);
        }

        #[track_caller]
        fn check(&mut self, expected: &[u16]) {
            self.0.expire();
            let mut ports: Vec<u16> =
                self.0.instances(&self.1).iter().map(|instance| instance.addr.port()).collect();
            ports.sort_unstable();
            assert_eq!(ports, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_emptied_service_is_believed_after_the_grace() {
        let mut case = Case::new();
        case.note(&[1, 2], Trust::Pushed);
        case.note(&[], Trust::Pushed);
        case.check(&[1, 2]);
        tokio::time::advance(GRACE / 2).await;
        case.note(&[], Trust::Pushed);
        case.check(&[1, 2]);
        tokio::time::advance(GRACE / 2).await;
        case.check(&[]);
    }

    #[tokio::test(start_paused = true)]
    async fn instances_that_come_back_one_by_one_are_waited_for() {
        let mut case = Case::new();
        case.note(&[1, 2], Trust::Pushed);
        case.note(&[], Trust::Pushed);
        case.note(&[2], Trust::Pushed);
        case.check(&[1, 2]);
        case.note(&[1, 2], Trust::Pushed);
        assert_eq!(case.0.next_due(), None);
        case.note(&[2], Trust::Pushed);
        case.check(&[2]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_vanished_with_the_link_is_kept_until_it_settled() {
        let mut case = Case::new();
        let settling = Trust::Settling(Instant::now() + 3 * GRACE);
        case.note(&[1, 2, 3], Trust::Pushed);
        case.note(&[2], settling);
        case.check(&[1, 2, 3]);
        tokio::time::advance(2 * GRACE).await;
        case.note(&[2, 3, 4], settling);
        case.check(&[1, 2, 3, 4]);
        // What vanishes late is kept no longer than the rest.
        case.note(&[2, 4], settling);
        case.check(&[1, 2, 3, 4]);
        tokio::time::advance(GRACE).await;
        case.check(&[2, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_instance_of_a_lanes_own_group_is_believed_at_once() {
        let mut case = Case::new();
        let gray = gray_propagation::Lane::GRAY;
        let instance = Instance { lane: Some(gray), ..Instance::new(([127, 0, 0, 1], 1).into()) };
        case.0.note(0, &case.1, vec![instance], Trust::Pushed);
        case.check(&[1]);
        case.note(&[], Trust::Pushed);
        case.check(&[]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_leaves_is_believed_at_once() {
        let mut case = Case::new();
        case.note(&[1, 2], Trust::Pushed);
        case.note(&[1], Trust::Pushed);
        case.check(&[1]);
        case.note(&[], Trust::Certain);
        case.check(&[]);
    }
}
