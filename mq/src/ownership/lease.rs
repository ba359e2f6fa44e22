use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// One connection to one broker, which no later one shares its name with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The name of the broker.
    pub broker: String,
    /// Counts the connections to it.
    pub number: u64,
}

/// How a member knows that nobody can have [taken it off](crate::Ownership::leave).
///
/// Others take it off when brokers, asked after they had seen its registration in the table, did not
/// list it, and a time L has passed since. A broker lists a member from its first heartbeat over a
/// connection until that connection breaks. A member therefore counts only connections over which it
/// was listed before it registered: as long as one of them has answered a heartbeat within L/2, nobody
/// can have missed this registration for longer than that. Connections that are made later count
/// once it has [renewed](crate::Ownership::renew) its registration; a member that was listed over
/// short connections one after the other, and was each time asked for in between, would otherwise be
/// missed by others and not notice.
#[derive(Clone, Debug)]
pub struct Lease {
    half: Duration,
    heard: BTreeMap<ConnectionId, Instant>,
    has_run_out: bool,
}

impl Lease {
    /// A lease for a member that has registered, by the connections over which it was listed before,
    /// each with the moment when the last heartbeat that was answered was sent; `length` is L.
    pub fn new(length: Duration, heard: BTreeMap<ConnectionId, Instant>) -> Self {
        Self { half: length / 2, heard, has_run_out: false }
    }

    /// Takes note that a heartbeat sent at that moment was answered.
    pub fn heard(&mut self, connection: &ConnectionId, sent: Instant, now: Instant) {
        // What has run out stays so, even if nobody has asked meanwhile.
        if self.is_held(now)
            && let Some(last) = self.heard.get_mut(connection)
        {
            *last = (*last).max(sent);
        }
    }

    /// Counts other connections from now on: the member has renewed its registration. A lease that
    /// has run out stays so.
    pub fn renew(&mut self, heard: BTreeMap<ConnectionId, Instant>, now: Instant) {
        if self.is_held(now) {
            self.heard = heard;
        }
    }

    /// Tells whether it is held; once it is not, it never is again.
    pub fn is_held(&mut self, now: Instant) -> bool {
        let fresh = self.heard.values().any(|last| now.duration_since(*last) < self.half);
        self.has_run_out |= !fresh;
        !self.has_run_out
    }

    /// Tells whether it counts a connection.
    pub fn counts(&self, connection: &ConnectionId) -> bool {
        self.heard.contains_key(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Duration = Duration::from_secs(10);

    fn connection(number: u64) -> ConnectionId {
        ConnectionId { broker: "a".to_owned(), number }
    }

    #[test]
    fn is_held_for_half_the_time_after_which_others_miss_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut lease = Lease::new(L, [(connection(0), start)].into());
        assert!(lease.is_held(after(4)));
        lease.heard(&connection(0), after(3), after(4));
        assert!(lease.is_held(after(7)));
        assert!(!lease.is_held(after(8)));
        // It was heard again too late.
        lease.heard(&connection(0), after(8), after(8));
        assert!(!lease.is_held(after(8)));
    }

    #[test]
    fn a_later_connection_does_not_count_before_it_is_renewed() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut lease = Lease::new(L, [(connection(0), start)].into());
        lease.heard(&connection(1), after(4), after(4));
        assert!(!lease.clone().is_held(after(5)));
        lease.renew([(connection(1), after(4))].into(), after(4));
        assert!(lease.is_held(after(8)));
        assert!(lease.counts(&connection(1)) && !lease.counts(&connection(0)));
    }

    #[test]
    fn nobody_asking_does_not_prolong_it() {
        let start = Instant::now();
        let mut lease = Lease::new(L, [(connection(0), start)].into());
        let late = start + Duration::from_secs(6);
        lease.heard(&connection(0), late, late);
        lease.renew([(connection(1), late)].into(), late);
        assert!(!lease.is_held(late));
    }
}
