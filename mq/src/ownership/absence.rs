use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{MemberId, Ownership, Side};

/// Since when somebody has missed members at their brokers.
#[derive(Clone, Debug)]
pub struct Absence {
    length: Duration,
    since: BTreeMap<MemberId, Instant>,
}

impl Absence {
    /// Misses nobody yet; `length` is the time L after which a member that is missed is gone.
    pub const fn new(length: Duration) -> Self {
        Self { length, since: BTreeMap::new() }
    }

    /// Returns the members that are gone: missed now, and L ago, by all brokers of the table.
    ///
    /// `listed` is whom these brokers list of each side. They must have been asked after the table was
    /// read, since a registration that came later cannot have been missed; and all of them must have
    /// answered, since it may be the silent one that a member is known to.
    pub fn gone(
        &mut self,
        table: &Ownership,
        listed: &BTreeMap<Side, BTreeSet<String>>,
        now: Instant,
    ) -> Vec<MemberId> {
        let is_listed = |id: &MemberId, side| {
            listed.get(&side).is_some_and(|clients| clients.contains(id.client()))
        };
        let members = table.members().iter();
        let missed = members.filter(|(id, member)| !is_listed(id, member.side)).map(|(id, _)| id);
        let since = |id: &MemberId| (id.clone(), self.since.get(id).copied().unwrap_or(now));
        self.since = missed.map(since).collect();
        let gone =
            self.since.iter().filter(|(_, since)| now.duration_since(**since) >= self.length);
        gone.map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Duration = Duration::from_secs(10);

    #[test]
    fn whoever_is_missed_for_long_enough_is_gone() {
        let (a, b) = (MemberId::new("a", 1), MemberId::new("b", 1));
        let mut table = Ownership::default();
        table.register(a.clone(), Side::Base);
        table.register(b, Side::Base);
        let mut absence = Absence::new(L);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let listed = |clients: &[&str]| {
            let clients = clients.iter().map(|client| (*client).to_owned()).collect();
            BTreeMap::from([(Side::Base, clients)])
        };
        let mut gone =
            |clients: &[&str], seconds| absence.gone(&table, &listed(clients), after(seconds));
        assert_eq!(gone(&["b"], 0), []);
        assert_eq!(gone(&["b"], 9), []);
        assert_eq!(gone(&["b"], 10), std::slice::from_ref(&a));
        // It comes back, and is missed anew.
        assert_eq!(gone(&["a", "b"], 11), []);
        assert_eq!(gone(&["b"], 12), []);
        assert_eq!(gone(&["b"], 21), []);
        assert_eq!(gone(&["b"], 22), [a]);
    }

    #[test]
    fn a_new_registration_is_missed_from_its_own_time_on() {
        let mut table = Ownership::default();
        table.register(MemberId::new("a", 1), Side::Base);
        let mut absence = Absence::new(L);
        let start = Instant::now();
        assert_eq!(absence.gone(&table, &BTreeMap::new(), start), []);
        table.renew(&MemberId::new("a", 1), MemberId::new("a", 2)).unwrap();
        assert_eq!(absence.gone(&table, &BTreeMap::new(), start + L), []);
        assert_eq!(absence.gone(&table, &BTreeMap::new(), start + 2 * L), [MemberId::new("a", 2)]);
    }
}
