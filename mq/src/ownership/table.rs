use std::collections::{BTreeMap, BTreeSet};

use gray_propagation::Lane;
use serde::{Deserialize, Serialize};

use super::{
    Fence, FenceError, Fences, MemberId, Owner, QueueKey, Side, UnknownBroker, UnknownMember,
};

/// Who owns the messages of a topic that one consumer group and its gray twins read, and who has to
/// agree before that changes.
///
/// It is a value: every method is a step that somebody takes on a copy read from the state store and
/// writes back by compare-and-set, so that of two who take a step at once one has to look again. A
/// switch takes four steps:
///
/// 1. An intent is [requested](Self::request).
/// 2. Every member stops handling what it pulls of these lanes from then on, and
///    [acknowledges](Self::acknowledge) that. What is of other lanes or of none goes on.
/// 3. After the last acknowledgement somebody reads where each queue ends, and writes these ends as
///    [fences](Self::fence).
/// 4. Members that see the fences go on.
///
/// Whatever anybody has handled by then was pulled before the ends were read and lies below them, so
/// that its owner never changes; and what lies above is looked at only by those who know the fence.
/// A member that has died would be waited for in vain: it is [taken off](Self::leave) once its broker
/// has not listed it for so long that it must itself have noticed (see [`super::Standing`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// Counts the steps that change who may handle what; one with an intent differs from one without.
    epoch: u64,
    fences: Fences,
    /// The lanes that own what is produced now.
    open: BTreeSet<Lane>,
    members: BTreeMap<MemberId, Member>,
    /// Counts those who came and went, so that who is not among the members can tell whether it is
    /// not any more, or not yet in a table that is out of date.
    #[serde(default)]
    roster: u64,
    /// What an operator has decided, over whatever else asks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pinned: BTreeMap<Lane, Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intent: Option<Intent>,
}

/// A consumer that has to agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Member {
    /// Whose consumer it is.
    pub side: Side,
    /// The epoch of the last intent that it has acknowledged; 0 for none.
    pub acknowledged: u64,
    /// The queues that it alone reads among the members of its side.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub queues: BTreeSet<QueueKey>,
}

/// What is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Intent {
    /// Who is to own the messages of each of these lanes.
    pub lanes: BTreeMap<Lane, Owner>,
}

impl Ownership {
    /// Returns who owns what.
    pub const fn fences(&self) -> &Fences {
        &self.fences
    }

    /// Returns the lanes that have had anything to do here: consumers, messages, or an operator's decision.
    pub fn lanes(&self) -> BTreeSet<Lane> {
        let members = self.members.values().filter_map(|member| member.side.lane());
        let said = self.pinned.keys().chain(&self.open).copied();
        said.chain(members).chain(self.fences.lanes()).collect()
    }

    /// Returns the epoch, which grows whenever who may handle what changes.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns what is to be changed.
    pub const fn intent(&self) -> Option<&Intent> {
        self.intent.as_ref()
    }

    /// Returns those who have to agree.
    pub const fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    /// Tells whether what is produced in a lane now belongs to its own consumers.
    pub fn is_open(&self, lane: Lane) -> bool {
        self.open.contains(&lane)
    }

    /// Makes somebody one of those who have to agree. It must not have pulled anything yet: where
    /// something is to be changed it has agreed already, and waits with the others.
    pub fn register(&mut self, id: MemberId, side: Side) {
        let member = Member { side, acknowledged: self.epoch, queues: BTreeSet::new() };
        self.members.insert(id, member);
        self.roster += 1;
    }

    /// Returns how often somebody came or went.
    pub const fn roster(&self) -> u64 {
        self.roster
    }

    /// Gives a member a new name, and leaves everything else about it as it is. It is for one that is
    /// listed by its brokers over new connections: whoever has missed it over the old ones has missed
    /// somebody else (see [`crate::Lease`]).
    ///
    /// # Errors
    ///
    /// Where it is not registered.
    pub fn renew(&mut self, id: &MemberId, anew: MemberId) -> Result<(), UnknownMember> {
        let member = self.members.remove(id).ok_or_else(|| UnknownMember(id.clone()))?;
        self.members.insert(anew, member);
        self.roster += 1;
        Ok(())
    }

    /// Lets a member read these queues and no others, except those that another member of its side
    /// still reads; returns what it may read.
    ///
    /// # Errors
    ///
    /// Where it is not registered.
    pub fn claim(
        &mut self,
        id: &MemberId,
        wanted: &BTreeSet<QueueKey>,
    ) -> Result<BTreeSet<QueueKey>, UnknownMember> {
        let member = self.members.get(id).ok_or_else(|| UnknownMember(id.clone()))?;
        let of_others = |queue: &&QueueKey| {
            let mut others = self.members.iter().filter(|(other, _)| *other != id);
            others.any(|(_, other)| other.side == member.side && other.queues.contains(*queue))
        };
        let free: BTreeSet<_> = wanted.iter().filter(|it| !of_others(it)).cloned().collect();
        if let Some(member) = self.members.get_mut(id) {
            member.queues.clone_from(&free);
        }
        Ok(free)
    }

    /// Takes somebody off: it has stopped, or cannot but have noticed that it is cut off.
    pub fn leave(&mut self, id: &MemberId) {
        if self.members.remove(id).is_some() {
            self.roster += 1;
        }
    }

    /// Takes every registration of a consumer off, by what it is known by to its brokers: one that got no
    /// answer when it registered does not know which of them were written.
    pub fn leave_all(&mut self, client: &str) {
        let own = self.members.keys().filter(|id| id.client() == client);
        let own: Vec<_> = own.cloned().collect();
        for id in own {
            self.leave(&id);
        }
    }

    /// Lets a queue be read. Nobody has, so no one has to be asked.
    pub fn add_queue(&mut self, queue: QueueKey) {
        let first = Fence { from: 0, owner: Owner::Lane };
        let lanes = self.open.iter().map(|lane| (*lane, vec![first])).collect();
        self.fences.0.entry(queue).or_insert(lanes);
    }

    /// Asks for the messages of a lane to belong to somebody from now on; tells whether that changes
    /// anything.
    pub fn request(&mut self, lane: Lane, owner: Owner) -> bool {
        let current = if self.open.contains(&lane) { Owner::Lane } else { Owner::Base };
        let asked = self.intent.as_ref().and_then(|intent| intent.lanes.get(&lane)).copied();
        if owner == asked.unwrap_or(current) {
            return false;
        }
        // An acknowledgement holds for the lanes that were to be changed when it was given.
        self.epoch += 1;
        self.intent.get_or_insert_default().lanes.insert(lane, owner);
        true
    }

    /// Takes down that a member handles nothing that it pulls of the lanes that are to be changed in
    /// this epoch, until it has seen the end of it.
    ///
    /// # Errors
    ///
    /// Where it is not registered; an acknowledgement of an epoch that is over changes nothing.
    pub fn acknowledge(&mut self, id: &MemberId, epoch: u64) -> Result<(), UnknownMember> {
        let member = self.members.get_mut(id).ok_or_else(|| UnknownMember(id.clone()))?;
        member.acknowledged = member.acknowledged.max(epoch);
        Ok(())
    }

    /// Returns the members that have not acknowledged what is to be changed.
    pub fn awaited(&self) -> Vec<MemberId> {
        let behind = self.members.iter().filter(|(_, member)| member.acknowledged < self.epoch);
        behind.map(|(id, _)| id.clone()).collect()
    }

    /// Tells whether fences of these lanes could be written where the queues end.
    ///
    /// # Errors
    ///
    /// A queue whose end is not known, or that ends before its last fence.
    pub fn fits(
        &self,
        lanes: &BTreeMap<Lane, Owner>,
        ends: &BTreeMap<QueueKey, u64>,
    ) -> Result<(), FenceError> {
        for (queue, fences) in &self.fences.0 {
            let end = *ends.get(queue).ok_or_else(|| FenceError::NoEnd(queue.clone()))?;
            let last = lanes.keys().filter_map(|lane| fences.get(lane)?.last());
            if let Some(last) = last.into_iter().find(|last| last.from > end) {
                let (queue, fence) = (queue.clone(), last.from);
                return Err(FenceError::WentBack { queue, end, fence });
            }
        }
        Ok(())
    }

    /// Changes what is to be changed, from these ends of the queues on. They must have been read after
    /// this table, which says that everybody has acknowledged.
    ///
    /// # Errors
    ///
    /// See [`FenceError`]; nothing is changed then.
    pub fn fence(&mut self, ends: &BTreeMap<QueueKey, u64>) -> Result<(), FenceError> {
        let Some(intent) = &self.intent else { return Err(FenceError::NoIntent) };
        let awaited = self.awaited();
        if !awaited.is_empty() {
            return Err(FenceError::NotAcknowledged(awaited));
        }
        self.fits(&intent.lanes, ends)?;
        let mut changed = self.fences.clone();
        for (queue, lanes) in &mut changed.0 {
            let end = *ends.get(queue).ok_or_else(|| FenceError::NoEnd(queue.clone()))?;
            for (lane, owner) in &intent.lanes {
                let last = lanes.get(lane).and_then(|fences| fences.last()).copied();
                // Where nothing changes hands there is nothing to wait for, in order or not.
                if last.map_or(Owner::Base, |last| last.owner) != *owner {
                    lanes.entry(*lane).or_default().push(Fence { from: end, owner: *owner });
                }
            }
        }
        for (lane, owner) in &intent.lanes {
            match owner {
                Owner::Lane => self.open.insert(*lane),
                Owner::Base => self.open.remove(lane),
            };
        }
        self.fences = changed;
        self.intent = None;
        self.epoch += 1;
        Ok(())
    }

    /// Returns what an operator has decided about lanes.
    pub const fn pinned(&self) -> &BTreeMap<Lane, Owner> {
        &self.pinned
    }

    /// Decides whom the messages of a lane are to belong to, whoever is alive and whatever the
    /// configuration says; `None` leaves it to these again.
    pub fn pin(&mut self, lane: Lane, owner: Option<Owner>) {
        match owner {
            Some(owner) => self.pinned.insert(lane, owner),
            None => self.pinned.remove(&lane),
        };
    }

    /// Returns the lanes that own what is produced now.
    pub const fn open(&self) -> &BTreeSet<Lane> {
        &self.open
    }

    /// Takes a broker's queues off, which is gone for good, and with them who has owned what of them. Of one
    /// that is not, the queues would be added again, and read as if nobody had ever owned anything.
    ///
    /// # Errors
    ///
    /// Where the table has no queue of it; nothing is changed then.
    pub fn remove_broker(&mut self, broker: &str) -> Result<(), UnknownBroker> {
        let known: BTreeSet<_> = self.fences.queues().map(|queue| queue.broker.clone()).collect();
        if !known.contains(broker) {
            return Err(UnknownBroker { broker: broker.to_owned(), known });
        }
        self.fences.remove_broker(broker);
        for member in self.members.values_mut() {
            member.queues.retain(|queue| queue.broker != broker);
        }
        Ok(())
    }

    /// Gives up what is to be changed: everybody goes on as before.
    pub fn abandon(&mut self) {
        if self.intent.take().is_some() {
            self.epoch += 1;
        }
    }

    /// Forgets fences that no message can need any more: those of which the next lies at or below an
    /// offset that both sides have durably committed.
    pub fn forget(&mut self, queue: &QueueKey, lane: Lane, committed: u64) {
        self.fences.forget(queue, lane, committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u32) -> QueueKey {
        QueueKey { broker: "a".to_owned(), number }
    }

    fn id(name: &str) -> MemberId {
        MemberId(name.to_owned())
    }

    fn ends(end: u64) -> BTreeMap<QueueKey, u64> {
        [(queue(0), end), (queue(1), end)].into()
    }

    fn table() -> Ownership {
        let mut table = Ownership::default();
        table.add_queue(queue(0));
        table.add_queue(queue(1));
        table.register(id("base"), Side::Base);
        table
    }

    const GRAY: Lane = Lane::GRAY;

    /// Opens the lane from an offset on.
    fn open(table: &mut Ownership, end: u64) {
        assert!(table.request(GRAY, Owner::Lane));
        table.acknowledge(&id("base"), table.epoch()).unwrap();
        table.fence(&ends(end)).unwrap();
    }

    #[test]
    fn fences_say_who_owns_a_message() {
        let mut table = table();
        open(&mut table, 10);
        table.request(GRAY, Owner::Base);
        table.acknowledge(&id("base"), table.epoch()).unwrap();
        table.fence(&ends(20)).unwrap();
        let owner = |offset| table.fences().owner(&queue(0), offset, Some(GRAY)).unwrap();
        assert_eq!(
            [9, 10, 19, 20].map(owner),
            [Side::Base, Side::Lane(GRAY), Side::Lane(GRAY), Side::Base]
        );
        assert_eq!(table.fences().owner(&queue(0), 15, None), Some(Side::Base));
        assert_eq!(
            table.fences().owner(&queue(0), 15, Some("blue".parse().unwrap())),
            Some(Side::Base)
        );
        assert_eq!(table.fences().owner(&queue(7), 15, None), None);
    }

    /// In order, base waited for ever for what a lane that never was had committed.
    #[test]
    fn a_change_that_is_taken_back_leaves_no_fence() {
        let mut table = table();
        assert!(table.request(GRAY, Owner::Lane));
        table.request(GRAY, Owner::Base);
        table.acknowledge(&id("base"), table.epoch()).unwrap();
        table.fence(&ends(10)).unwrap();
        assert_eq!((table.fences().of(&queue(0), GRAY), table.intent()), (&[][..], None));
        open(&mut table, 20);
        assert_eq!(table.fences().of(&queue(0), GRAY), [Fence { from: 20, owner: Owner::Lane }]);
    }

    #[test]
    fn nothing_changes_before_everybody_has_agreed() {
        let mut table = table();
        assert_eq!(table.fence(&ends(1)), Err(FenceError::NoIntent));
        table.request(GRAY, Owner::Lane);
        assert_eq!(table.fence(&ends(1)), Err(FenceError::NotAcknowledged(vec![id("base")])));
        // Who comes now waits with the others.
        table.register(id("late"), Side::Lane(GRAY));
        assert_eq!(table.awaited(), [id("base")]);
        table.leave(&id("base"));
        assert_eq!(table.acknowledge(&id("base"), 1), Err(UnknownMember(id("base"))));
        assert_eq!(table.fence(&[].into()), Err(FenceError::NoEnd(queue(0))));
        table.fence(&ends(1)).unwrap();
        assert!(table.is_open(GRAY));
    }

    #[test]
    fn an_old_agreement_is_none() {
        let mut table = table();
        open(&mut table, 1);
        table.request(GRAY, Owner::Base);
        table.acknowledge(&id("base"), 1).unwrap();
        assert_eq!(table.awaited(), [id("base")]);
        table.abandon();
        assert!(table.is_open(GRAY) && table.intent().is_none());
    }

    #[test]
    fn a_queue_that_lost_messages_is_not_fenced() {
        let mut table = table();
        open(&mut table, 10);
        table.request(GRAY, Owner::Base);
        table.acknowledge(&id("base"), table.epoch()).unwrap();
        let before = table.clone();
        let error = table.fence(&ends(9)).unwrap_err();
        assert_eq!(error.to_string(), "queue a/0 ends at 9, before its last fence at 10");
        assert_eq!(table, before);
    }

    #[test]
    fn a_new_queue_belongs_to_the_lanes_that_are_open() {
        let mut table = table();
        open(&mut table, 10);
        table.add_queue(queue(2));
        assert_eq!(table.fences().owner(&queue(2), 0, Some(GRAY)), Some(Side::Lane(GRAY)));
        table.add_queue(queue(0));
        assert_eq!(table.fences().owner(&queue(0), 0, Some(GRAY)), Some(Side::Base));
    }

    #[test]
    fn what_is_asked_for_twice_is_asked_for_once() {
        let mut table = table();
        assert!(!table.request(GRAY, Owner::Base));
        assert!(table.request(GRAY, Owner::Lane));
        assert!(!table.request(GRAY, Owner::Lane));
        // Who changes their mind in time is heard.
        assert!(table.request(GRAY, Owner::Base));
        assert_eq!(table.epoch(), 2);
    }

    #[test]
    fn who_agreed_to_one_lane_is_asked_about_another() {
        let mut table = table();
        table.request(GRAY, Owner::Lane);
        table.acknowledge(&id("base"), table.epoch()).unwrap();
        assert_eq!(table.awaited(), []);
        table.request("blue".parse().unwrap(), Owner::Lane);
        assert_eq!(table.awaited(), [id("base")]);
    }

    #[test]
    fn old_fences_are_forgotten_without_changing_an_owner() {
        let mut table = table();
        for end in [10, 20, 30] {
            let owner = if table.is_open(GRAY) { Owner::Base } else { Owner::Lane };
            table.request(GRAY, owner);
            table.acknowledge(&id("base"), table.epoch()).unwrap();
            table.fence(&ends(end)).unwrap();
        }
        let before = table.clone();
        table.forget(&queue(0), GRAY, 25);
        assert_eq!(table.fences().of(&queue(0), GRAY).len(), 2);
        for offset in 25..40 {
            let owner = |table: &Ownership| table.fences().owner(&queue(0), offset, Some(GRAY));
            assert_eq!(owner(&table), owner(&before));
        }
    }

    #[test]
    fn a_queue_is_read_by_one_member_of_a_side() {
        let mut table = table();
        let (both, second) = ([queue(0), queue(1)].into(), [queue(1)].into());
        assert_eq!(table.claim(&id("base"), &both), Ok(both.clone()));
        table.register(id("other"), Side::Base);
        table.register(id("gray"), Side::Lane(GRAY));
        assert_eq!(table.claim(&id("other"), &second), Ok([].into()));
        assert_eq!(table.claim(&id("gray"), &second), Ok(second.clone()));
        assert_eq!(table.claim(&id("base"), &[queue(0)].into()), Ok([queue(0)].into()));
        assert_eq!(table.claim(&id("other"), &both), Ok(second.clone()));
        // What a member had read is free once it has been taken off.
        table.leave(&id("base"));
        assert_eq!(table.claim(&id("other"), &both), Ok(both));
        assert!(table.claim(&id("base"), &second).is_err());
    }

    #[test]
    fn a_member_that_is_renewed_keeps_everything_but_its_name() {
        let mut table = table();
        table.claim(&id("base"), &[queue(0)].into()).unwrap();
        let before = table.members()[&id("base")].clone();
        table.renew(&id("base"), id("base again")).unwrap();
        assert_eq!(table.members(), &[(id("base again"), before)].into());
        assert!(table.renew(&id("base"), id("third")).is_err());
    }

    /// A store that gave no answer had written a registration that its member did not know of: nobody
    /// else could take it off either, since the member was there.
    #[test]
    fn all_registrations_of_a_consumer_are_taken_off() {
        let mut table = table();
        for number in [1, 2] {
            table.register(MemberId::new("a", number), Side::Base);
        }
        table.leave_all("a");
        assert_eq!(table.members().keys().collect::<Vec<_>>(), [&id("base")]);
    }

    #[test]
    fn a_broker_that_is_gone_is_not_waited_for() {
        let mut table = table();
        let gone = QueueKey { broker: "gone".to_owned(), number: 0 };
        table.add_queue(gone.clone());
        table.claim(&id("base"), &[gone, queue(0)].into()).unwrap();
        table.remove_broker("gone").unwrap();
        assert_eq!(table.members()[&id("base")].queues, [queue(0)].into());
        let before = table.clone();
        let error = table.remove_broker("gone").unwrap_err();
        assert_eq!(error.to_string(), "the table has no queue of broker `gone`; there is: a");
        assert_eq!(table, before);
        open(&mut table, 5);
    }

    #[test]
    fn survives_being_written_down() {
        let mut table = table();
        open(&mut table, 10);
        table.request("blue".parse().unwrap(), Owner::Lane);
        table.register(id("late"), Side::Lane(GRAY));
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Ownership>(&text).unwrap(), table);
        assert!(text.contains(r#""a/0":{"gray":[{"from":10,"owner":"lane"}]}"#), "{text}");
    }
}
