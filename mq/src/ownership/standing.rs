use std::collections::BTreeSet;

use gray_propagation::Lane;

use super::{Fences, MemberId, Ownership, QueueKey, Side};

/// What a member itself knows, by which it decides about every message that it has pulled.
///
/// A member that is cut off from the others cannot know that the table has changed without it. It
/// must therefore notice that it is cut off before anybody may [take it off](Ownership::leave): it
/// holds a lease for as long as its broker has answered one of its heartbeats within half the time
/// for which a member must be missing from the broker's list. Once a lease has run out it stays so:
/// the member registers anew, and pulls again what it had pulled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    side: Side,
    /// Who owns what by the newest table seen.
    fences: Fences,
    /// The lanes of which that is to be changed.
    held: BTreeSet<Lane>,
    /// The highest epoch seen; what is older is out of date, however late it comes.
    epoch: u64,
    /// Who had come and gone when it registered: a table from before that does not know it yet.
    roster: u64,
    lease: Lease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lease {
    Held,
    RunOut,
}

/// What a member has to do about a table that it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing.
    Nothing,
    /// To acknowledge this epoch: from now on it handles nothing that it pulls of the lanes that are to
    /// be changed.
    Acknowledge(u64),
    /// To register, since it is not among those that are asked, or may handle nothing any more.
    Register,
}

/// What becomes of a message that was pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is handled.
    Handle,
    /// It belongs to others, and is passed over.
    Skip,
    /// It waits, and is asked about again.
    Hold,
    /// It is thrown away, and pulled again once the member has registered anew.
    Discard,
}

impl Standing {
    /// A member of a side that has just registered, by the table that it has written.
    pub fn new(side: Side, table: &Ownership) -> Self {
        let (fences, held) = (Fences::default(), BTreeSet::new());
        let roster = table.roster();
        let mut standing = Self { side, fences, held, epoch: 0, roster, lease: Lease::Held };
        standing.take(table);
        standing
    }

    /// Takes a table that was read from the store, and says what is to be done about it.
    pub fn observe(&mut self, id: &MemberId, table: &Ownership) -> Duty {
        let Some(member) = table.members().get(id) else {
            let is_old = table.epoch() < self.epoch || table.roster() < self.roster;
            return if is_old { Duty::Nothing } else { self.register() };
        };
        let epoch = table.epoch();
        let pending = table.intent().is_some() && epoch >= self.epoch;
        if self.lease == Lease::RunOut {
            // It throws away whatever it has pulled and pulls, so that nobody need wait for it.
            let is_awaited = pending && member.acknowledged < epoch;
            return if is_awaited { Duty::Acknowledge(epoch) } else { Duty::Register };
        }
        self.take(table);
        if pending && member.acknowledged < epoch {
            Duty::Acknowledge(epoch)
        } else {
            Duty::Nothing
        }
    }

    /// Takes note that it has renewed its registration, by the table that it has written.
    pub fn renewed(&mut self, table: &Ownership) {
        self.roster = self.roster.max(table.roster());
    }

    /// Says what becomes of a message. It is asked after the pull has returned, never before.
    pub fn judge(&self, queue: &QueueKey, offset: u64, lane: Option<Lane>) -> Verdict {
        if self.lease == Lease::RunOut {
            return Verdict::Discard;
        }
        if lane.is_some_and(|lane| self.held.contains(&lane)) {
            return Verdict::Hold;
        }
        match self.fences.owner(queue, offset, lane) {
            None => Verdict::Hold,
            Some(owner) if owner == self.side => Verdict::Handle,
            Some(_) => Verdict::Skip,
        }
    }

    /// Returns the highest epoch seen.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the fences that it knows.
    pub const fn fences(&self) -> &Fences {
        &self.fences
    }

    /// Takes note that the lease has run out.
    pub const fn run_out(&mut self) {
        self.lease = Lease::RunOut;
    }

    /// Tells whether the lease has run out.
    pub fn has_run_out(&self) -> bool {
        self.lease == Lease::RunOut
    }

    fn register(&mut self) -> Duty {
        self.run_out();
        Duty::Register
    }

    fn take(&mut self, table: &Ownership) {
        if table.epoch() < self.epoch {
            return;
        }
        self.epoch = table.epoch();
        self.fences.clone_from(table.fences());
        self.held = table.intent().iter().flat_map(|it| it.lanes.keys().copied()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Owner;
    use super::*;

    const GRAY: Lane = Lane::GRAY;

    fn id() -> MemberId {
        MemberId("a".to_owned())
    }

    fn queue() -> QueueKey {
        QueueKey { broker: "a".to_owned(), number: 0 }
    }

    fn start() -> (Ownership, Standing) {
        let mut table = Ownership::default();
        table.add_queue(queue());
        table.register(id(), Side::Base);
        let standing = Standing::new(Side::Base, &table);
        (table, standing)
    }

    #[test]
    fn what_is_pulled_while_something_is_to_be_changed_waits() {
        let (mut table, mut standing) = start();
        let gray = |standing: &Standing, offset| standing.judge(&queue(), offset, Some(GRAY));
        assert_eq!(gray(&standing, 0), Verdict::Handle);
        table.request(GRAY, Owner::Lane);
        assert_eq!(standing.observe(&id(), &table), Duty::Acknowledge(1));
        assert_eq!(gray(&standing, 1), Verdict::Hold);
        // What is not to be changed goes on.
        assert_eq!(standing.judge(&queue(), 1, None), Verdict::Handle);
        let blue = "blue".parse().ok();
        assert_eq!(standing.judge(&queue(), 1, blue), Verdict::Handle);
        table.acknowledge(&id(), 1).unwrap();
        let before = table.clone();
        table.fence(&[(queue(), 1)].into()).unwrap();
        assert_eq!(standing.observe(&id(), &table), Duty::Nothing);
        assert_eq!((gray(&standing, 0), gray(&standing, 1)), (Verdict::Handle, Verdict::Skip));
        // A store may answer with what is out of date.
        assert_eq!(standing.observe(&id(), &before), Duty::Nothing);
        assert_eq!(gray(&standing, 1), Verdict::Skip);
    }

    #[test]
    fn a_lease_that_has_run_out_stays_so() {
        let (table, mut standing) = start();
        standing.run_out();
        assert_eq!(standing.judge(&queue(), 0, None), Verdict::Discard);
        assert_eq!(standing.observe(&id(), &table), Duty::Register);
        assert_eq!(standing.judge(&queue(), 0, None), Verdict::Discard);
        let standing = Standing::new(Side::Base, &table);
        assert_eq!(standing.judge(&queue(), 0, None), Verdict::Handle);
    }

    /// A change waited for as long as one that had lost its place was finishing what it had begun.
    #[test]
    fn whoever_may_handle_nothing_any_more_agrees_to_any_change() {
        let (mut table, mut standing) = start();
        standing.run_out();
        table.request(GRAY, Owner::Lane);
        assert_eq!(standing.observe(&id(), &table), Duty::Acknowledge(1));
        assert_eq!(standing.judge(&queue(), 0, Some(GRAY)), Verdict::Discard);
        table.acknowledge(&id(), 1).unwrap();
        assert_eq!(standing.observe(&id(), &table), Duty::Register);
        table.fence(&[(queue(), 1)].into()).unwrap();
        assert_eq!(standing.observe(&id(), &table), Duty::Register);
        assert_eq!(standing.judge(&queue(), 0, Some(GRAY)), Verdict::Discard);
    }

    /// Nacos may answer with what it had before: a member that took that for its having been taken off
    /// registered again and again, and never read anything.
    #[test]
    fn a_table_from_before_it_registered_is_passed_over() {
        let mut table = Ownership::default();
        table.add_queue(queue());
        let before = table.clone();
        table.register(id(), Side::Base);
        let mut standing = Standing::new(Side::Base, &table);
        assert_eq!(standing.observe(&id(), &before), Duty::Nothing);
        let renewed = MemberId::new("a", 2);
        let old = table.clone();
        table.renew(&id(), renewed.clone()).unwrap();
        standing.renewed(&table);
        assert_eq!(standing.observe(&renewed, &old), Duty::Nothing);
        table.leave(&renewed);
        assert_eq!(standing.observe(&renewed, &table), Duty::Register);
    }

    #[test]
    fn whoever_is_taken_off_stops_at_once() {
        let (mut table, mut standing) = start();
        table.leave(&id());
        assert_eq!(standing.observe(&id(), &table), Duty::Register);
        assert_eq!(standing.judge(&queue(), 0, None), Verdict::Discard);
    }

    #[test]
    fn a_queue_without_a_row_waits() {
        let (_, standing) = start();
        let other = QueueKey { broker: "a".to_owned(), number: 1 };
        assert_eq!(standing.judge(&other, 0, None), Verdict::Hold);
    }
}
