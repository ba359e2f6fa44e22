use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gray_propagation::Lane;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{
    ConnectionId, Duty, Lease, MemberId, Owner, Ownership, QueueKey, Side, Standing, Verdict,
};

/// A consumer's place in the table of one topic: what it may handle, and for how long it knows.
///
/// It is read after each pull, and changed by whoever reads the table and hears of brokers.
#[derive(Debug)]
pub(super) struct Place {
    side: Side,
    /// L.
    length: Duration,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Over which connections brokers list this consumer, and when each was last told.
    heard: BTreeMap<ConnectionId, Instant>,
    registered: Option<Registered>,
    /// Whether the lane's consumers handle what base handles too.
    shares: bool,
    /// The lanes that have consumers.
    alive: BTreeSet<Lane>,
}

#[derive(Debug)]
struct Registered {
    id: MemberId,
    standing: Standing,
    lease: Lease,
}

impl Registered {
    /// Tells whether it may go on; once it may not, it never may again.
    fn is_held(&mut self, now: Instant) -> bool {
        if !self.lease.is_held(now) {
            self.standing.run_out();
        }
        !self.standing.has_run_out()
    }
}

impl Place {
    pub(super) fn new(side: Side, length: Duration) -> Self {
        Self { side, length, inner: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a function on the registration, where there is one.
    fn with<T>(&self, run: impl FnOnce(&mut Registered) -> T) -> Option<T> {
        self.inner().registered.as_mut().map(run)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Tells of every change of what may be handled.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes note of heartbeats that were answered, each with the moment when it was sent.
    pub(super) fn heard(&self, answered: &BTreeMap<ConnectionId, Instant>, now: Instant) {
        let mut inner = self.inner();
        for (connection, sent) in answered {
            // Only the newest connection to a broker can be alive.
            inner
                .heard
                .retain(|id, _| id.broker != connection.broker || id.number >= connection.number);
            inner.heard.insert(connection.clone(), *sent);
            if let Some(registered) = &mut inner.registered {
                registered.lease.heard(connection, *sent, now);
            }
        }
    }

    /// Returns the connections over which this consumer is listed by brokers that have queues in a
    /// table: those that others ask about it. One that has not been heard on for half of L counts no
    /// more: a place that is taken by it is lost at once.
    pub(super) fn listed(&self, table: &Ownership) -> BTreeMap<ConnectionId, Instant> {
        let brokers: BTreeSet<_> = table.fences().queues().map(|queue| &queue.broker).collect();
        let now = Instant::now();
        let mut heard = self.inner().heard.clone();
        heard.retain(|id, last| {
            brokers.contains(&id.broker) && now.duration_since(*last) < self.length / 2
        });
        heard
    }

    /// Takes its place in a table that it has registered in; `listed` are the connections over which
    /// it was listed before.
    pub(super) fn take(
        &self,
        id: MemberId,
        table: &Ownership,
        listed: BTreeMap<ConnectionId, Instant>,
    ) {
        let standing = Standing::new(self.side, table);
        let lease = Lease::new(self.length, listed);
        self.change(|inner| {
            // Until brokers have been asked: who has a lane has consumers.
            inner.alive.extend(table.open());
            inner.registered = Some(Registered { id, standing, lease });
        });
    }

    /// Takes a new name, and counts other connections.
    pub(super) fn renew(
        &self,
        anew: MemberId,
        table: &Ownership,
        listed: BTreeMap<ConnectionId, Instant>,
    ) {
        let now = Instant::now();
        self.with(|registered| {
            registered.id = anew;
            registered.standing.renewed(table);
            registered.lease.renew(listed, now);
        });
    }

    /// Tells whether brokers list this consumer over connections that its lease does not count.
    pub(super) fn is_to_be_renewed(&self, table: &Ownership) -> bool {
        let listed = self.listed(table);
        let lease = |registered: &mut Registered| registered.lease.clone();
        let Some(lease) = self.with(lease) else { return false };
        !listed.keys().all(|connection| lease.counts(connection))
    }

    /// Takes a table that was read, and says what is to be done about it.
    pub(super) fn observe(&self, table: &Ownership, now: Instant) -> Duty {
        let observed = self.with(|registered| {
            let epoch = registered.standing.epoch();
            registered.is_held(now);
            let duty = registered.standing.observe(&registered.id, table);
            (duty, registered.standing.epoch() != epoch)
        });
        let Some((duty, changed)) = observed else { return Duty::Register };
        if changed || duty != Duty::Nothing {
            self.changed.send_modify(|count| *count += 1);
        }
        duty
    }

    /// Says what becomes of messages, all at one moment. It is asked after the pull has returned.
    pub(super) fn judging(&self) -> Judging<'_> {
        let mut inner = self.inner();
        if let Some(registered) = &mut inner.registered {
            registered.is_held(Instant::now());
        }
        Judging { side: self.side, inner }
    }

    fn shares(&self) -> bool {
        self.inner().shares
    }

    /// Tells whether it may go on at all.
    pub(super) fn is_held(&self) -> bool {
        self.with(|registered| registered.is_held(Instant::now())).unwrap_or_default()
    }

    /// Returns the first offset of a queue that a lane's consumers own.
    pub(super) fn first_of(&self, queue: &QueueKey, lane: Lane) -> Option<u64> {
        self.with(|registered| {
            let fences = registered.standing.fences().of(queue, lane);
            fences.iter().find(|fence| fence.owner == Owner::Lane).map(|fence| fence.from)
        })?
    }

    /// Returns its name.
    pub(super) fn id(&self) -> Option<MemberId> {
        self.with(|registered| registered.id.clone())
    }

    /// Gives its place up.
    pub(super) fn leave(&self) {
        self.change(|inner| inner.registered = None);
    }

    /// Takes note of whether the lane's consumers handle what base handles too.
    pub(super) fn share(&self, shares: bool) {
        if self.shares() != shares {
            self.change(|inner| inner.shares = shares);
        }
    }

    /// Takes note of the lanes that have consumers.
    pub(super) fn see_alive(&self, alive: &BTreeSet<Lane>) {
        self.inner().alive.clone_from(alive);
    }
}

/// What becomes of messages at one moment; nothing changes while it is there.
pub(super) struct Judging<'a> {
    side: Side,
    inner: MutexGuard<'a, Inner>,
}

impl Judging<'_> {
    pub(super) fn judge(&self, queue: &QueueKey, offset: u64, lane: Option<Lane>) -> Verdict {
        let registered = self.inner.registered.as_ref();
        match registered.map(|registered| registered.standing.judge(queue, offset, lane)) {
            None => Verdict::Discard,
            Some(Verdict::Skip) if lane.map(Side::Lane) == Some(self.side) && self.inner.shares => {
                Verdict::Handle
            }
            Some(verdict) => verdict,
        }
    }

    /// Returns the fence at or below an offset from which on somebody owns a lane's messages.
    pub(super) fn fence(&self, queue: &QueueKey, offset: u64, lane: Lane) -> Option<u64> {
        let fences = self.inner.registered.as_ref()?.standing.fences().of(queue, lane);
        fences.iter().rev().find(|fence| fence.from <= offset).map(|fence| fence.from)
    }

    /// Tells whether a lane has consumers, as far as is known.
    pub(super) fn is_alive(&self, lane: Lane) -> bool {
        self.inner.alive.contains(&lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that is taken by a connection that is silent is lost at once, and would be taken over and over
    /// for as long as its broker is away.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_silent_is_no_reason_to_take_a_place() {
        let length = Duration::from_secs(10);
        let place = Place::new(Side::Base, length);
        let connection = ConnectionId { broker: "a".to_owned(), number: 1 };
        let now = Instant::now();
        place.heard(&[(connection.clone(), now)].into(), now);
        let mut table = Ownership::default();
        table.add_queue(QueueKey { broker: "b".to_owned(), number: 0 });
        assert_eq!(place.listed(&table), BTreeMap::new());
        table.add_queue(QueueKey { broker: "a".to_owned(), number: 0 });
        assert_eq!(place.listed(&table), [(connection, now)].into());
        tokio::time::advance(length / 2).await;
        assert_eq!(place.listed(&table), BTreeMap::new());
    }
}
