//! The modelled world: a queue, its broker, the state store and the members of both groups.

use gray_mq::{Duty, MemberId, Owner, Ownership, QueueKey, Side, Standing, Verdict};
use gray_propagation::Lane;

use crate::actor::{Actor, Kind, State};

/// How much happens from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) messages: u64,
    pub(crate) requests: u8,
    pub(crate) failures: u8,
    pub(crate) abandons: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// Messages at the broker: all of them gray, in one queue.
    pub(crate) end: u64,
    pub(crate) store: Ownership,
    /// What the store held before: a read may be stale.
    pub(crate) stale: Ownership,
    pub(crate) actors: Vec<Actor>,
    /// By which sides each message was handled: base, gray.
    pub(crate) handled: Vec<[bool; 2]>,
    /// The switches that came about, in order: from which offset on the lane had its messages, or had them no more.
    /// Kept beside the table, since what the table says of it is what is to be checked.
    pub(crate) switched: Vec<(u64, bool)>,
    /// What each side has durably committed.
    pub(crate) committed: [u64; 2],
    pub(crate) left: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Produce,
    Request(Owner),
    Abandon,
    Start(usize),
    Observe(usize),
    ObserveStale(usize),
    Acknowledge(usize),
    Pull(usize),
    Judge(usize),
    Commit(usize),
    FallAsleep(usize),
    Crash(usize),
    TakeOff(usize),
    ReadEnd(usize),
    Fence(usize),
}

fn queue() -> QueueKey {
    QueueKey { broker: "b".to_owned(), number: 0 }
}

fn id(actor: usize) -> MemberId {
    MemberId(actor.to_string())
}

const fn side_index(side: Side) -> usize {
    match side {
        Side::Base => 0,
        Side::Lane(_) => 1,
    }
}

impl World {
    pub(crate) fn new(actors: Vec<Actor>, left: Budget) -> Self {
        let mut store = Ownership::default();
        store.add_queue(queue());
        let stale = store.clone();
        let (handled, switched) = (Vec::new(), Vec::new());
        Self { end: 0, store, stale, actors, handled, switched, committed: [0; 2], left }
    }

    /// Writes to the store, by compare-and-set: whoever has read what was there before has to read
    /// again. What may still be read out of date is the last table before somebody came or went, or of the epoch before.
    fn write(&mut self, table: Ownership) {
        if table == self.store {
            return;
        }
        if table.epoch() != self.store.epoch() || table.roster() != self.store.roster() {
            self.stale = self.store.clone();
        }
        self.store = table;
        for actor in &mut self.actors {
            actor.end = None;
        }
        let stale = |actor: &Actor| actor.kind != Kind::Plain && actor.state != State::Dead;
        if !self.actors.iter().any(stale) {
            self.stale = self.store.clone();
        }
    }

    /// Takes a step; `None` where it cannot be taken, or changes nothing.
    fn step(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        next.take(step)?;
        (next != *self).then_some(next)
    }

    fn take(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Produce => {
                self.left.messages = self.left.messages.checked_sub(1)?;
                self.end += 1;
                self.handled.push([false; 2]);
            }
            Step::Request(owner) => {
                self.left.requests = self.left.requests.checked_sub(1)?;
                self.change(|table| table.request(Lane::GRAY, owner)).then_some(())?;
            }
            Step::Abandon => {
                self.left.abandons = self.left.abandons.checked_sub(1)?;
                self.change(Ownership::abandon);
            }
            Step::Start(actor) => self.start(actor)?,
            Step::Observe(actor) => self.observe(actor, &self.store.clone())?,
            Step::ObserveStale(actor) => self.observe(actor, &self.stale.clone())?,
            Step::Acknowledge(actor) => {
                let epoch = self.actors[actor].owes.take()?;
                // Whoever has been taken off meanwhile is told so.
                let _ = self.change(|table| table.acknowledge(&id(actor), epoch));
            }
            Step::Pull(actor) => self.pull(actor)?,
            Step::Judge(actor) => self.judge(actor)?,
            Step::Commit(actor) => self.commit(actor)?,
            Step::FallAsleep(actor) => self.fall_asleep(actor)?,
            Step::Crash(actor) => self.crash(actor)?,
            Step::TakeOff(actor) => {
                self.actors[actor].missing.then_some(())?;
                self.change(|table| table.leave(&id(actor)));
            }
            Step::ReadEnd(actor) => self.read_end(actor)?,
            Step::Fence(actor) => {
                let end = self.actors[actor].end.take()?;
                let to = self.store.intent()?.lanes[&Lane::GRAY];
                self.change(|table| table.fence(&[(queue(), end)].into())).ok()?;
                self.switched.push((end, to == Owner::Lane));
            }
        }
        Some(())
    }

    /// Changes what the store holds.
    fn change<T>(&mut self, change: impl FnOnce(&mut Ownership) -> T) -> T {
        let mut table = self.store.clone();
        let changed = change(&mut table);
        self.write(table);
        changed
    }

    fn pull(&mut self, actor: usize) -> Option<()> {
        let end = self.end;
        let one = &mut self.actors[actor];
        one.standing()?;
        (one.pulled.is_empty() && one.position < end).then_some(())?;
        one.pulled = one.position..end;
        Some(())
    }

    fn read_end(&mut self, actor: usize) -> Option<()> {
        self.store.intent()?;
        let one = &mut self.actors[actor];
        one.standing()?;
        one.end = Some(self.end);
        Some(())
    }

    fn crash(&mut self, actor: usize) -> Option<()> {
        self.fails(actor)?;
        let one = &mut self.actors[actor];
        one.state = State::Dead;
        one.missing = true;
        (one.pulled, one.owes, one.end) = (0..0, None, None);
        Some(())
    }

    /// Registers an actor that has not, or whose lease has run out.
    fn start(&mut self, actor: usize) -> Option<()> {
        let one = &self.actors[actor];
        match &one.state {
            State::Off => {}
            State::On(standing) if standing.has_run_out() => {}
            State::On(_) | State::Dead => return None,
        }
        let side = one.side;
        self.change(|table| table.register(id(actor), side));
        let table = self.store.clone();
        let position = self.committed[side_index(side)];
        let one = &mut self.actors[actor];
        one.state = State::On(Standing::new(side, &table));
        one.missing = false;
        (one.position, one.pulled, one.owes) = (position, 0..0, None);
        Some(())
    }

    fn observe(&mut self, actor: usize, table: &Ownership) -> Option<()> {
        let one = &mut self.actors[actor];
        let duty = one.standing()?.observe(&id(actor), table);
        match duty {
            Duty::Nothing => {}
            Duty::Acknowledge(epoch) => one.owes = Some(epoch),
            Duty::Register => one.owes = None,
        }
        Some(())
    }

    fn judge(&mut self, actor: usize) -> Option<()> {
        let one = &mut self.actors[actor];
        let offset = one.pulled.clone().next()?;
        let side = side_index(one.side);
        match one.standing()?.judge(&queue(), offset, Some(Lane::GRAY)) {
            Verdict::Hold => return None,
            Verdict::Discard => {
                one.pulled = 0..0;
                return Some(());
            }
            Verdict::Skip => {}
            Verdict::Handle => self.handled[usize::try_from(offset).unwrap()][side] = true,
        }
        let one = &mut self.actors[actor];
        one.pulled.start = offset + 1;
        one.position = offset + 1;
        Some(())
    }

    fn commit(&mut self, actor: usize) -> Option<()> {
        let one = &mut self.actors[actor];
        one.standing()?;
        let (side, position) = (side_index(one.side), one.position);
        self.committed[side] = self.committed[side].max(position);
        Some(())
    }

    /// The actor's lease runs out, and only then may others take it off; it goes on as if it had not
    /// noticed: what it has pulled and what it is about to write is still there.
    fn fall_asleep(&mut self, actor: usize) -> Option<()> {
        self.fails(actor)?;
        let one = &mut self.actors[actor];
        one.standing()?.run_out();
        one.missing = true;
        Some(())
    }

    fn fails(&mut self, actor: usize) -> Option<()> {
        let one = &mut self.actors[actor];
        (one.kind == Kind::Failing && one.standing().is_some()).then_some(())?;
        self.left.failures = self.left.failures.checked_sub(1)?;
        Some(())
    }

    /// Everything that may happen next.
    pub(crate) fn successors(&self) -> Vec<(Step, Self)> {
        let after = |step| Some((step, self.after(step)?));
        self.steps().into_iter().filter_map(after).collect()
    }

    /// All steps that there are, whether they can be taken now or not.
    pub(crate) fn steps(&self) -> Vec<Step> {
        const OUTSIDE: [Step; 4] =
            [Step::Produce, Step::Request(Owner::Lane), Step::Request(Owner::Base), Step::Abandon];
        const WORKS: [fn(usize) -> Step; 5] =
            [Step::Start, Step::Observe, Step::Pull, Step::Judge, Step::ReadEnd];
        const FAILS: [fn(usize) -> Step; 7] = [
            Step::Fence,
            Step::ObserveStale,
            Step::Acknowledge,
            Step::Commit,
            Step::FallAsleep,
            Step::Crash,
            Step::TakeOff,
        ];
        let mut steps = OUTSIDE.to_vec();
        for (number, actor) in self.actors.iter().enumerate() {
            steps.extend(WORKS.map(|step| step(number)));
            if actor.kind != Kind::Plain {
                steps.extend(FAILS.map(|step| step(number)));
            }
        }
        steps
    }

    /// The world after a step, if it can be taken and changes anything.
    pub(crate) fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.step(step)?;
        match step {
            Step::Observe(actor) if self.actors[actor].kind == Kind::Plain => {
                next.take(Step::Acknowledge(actor));
            }
            Step::Judge(actor) if self.actors[actor].kind == Kind::Plain => {
                while next.take(Step::Judge(actor)).is_some() {}
                next.take(Step::Commit(actor));
            }
            Step::ReadEnd(actor) if self.actors[actor].kind == Kind::Plain => {
                next.take(Step::Fence(actor));
            }
            _ => {}
        }
        Some(next)
    }

    /// What is wrong: a message that was handled by somebody who does not own it, or by both, or whose owner the
    /// table has forgotten.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.handled.iter().enumerate().find_map(|(offset, by)| {
            let at = u64::try_from(offset).unwrap();
            // Each switch is about what comes after it, and the last one before a message is the one that counts.
            let gray = self.switched.iter().rev().find(|(from, _)| *from <= at);
            let gray = gray.is_some_and(|(_, gray)| *gray);
            let owner = if gray { "the lane" } else { "base" };
            if by[usize::from(!gray)] {
                return Some(format!("message {offset} of {owner} was handled by {by:?}"));
            }
            let fences = self.store.fences();
            let said = fences.owner(&queue(), at, Some(Lane::GRAY)) != Some(Side::Base);
            (said != gray).then(|| format!("message {offset} of {owner} is said to be another's"))
        })
    }

    /// Lets those that work go on until nothing is left to do, and returns what is then wrong: a
    /// message that nobody has handled.
    pub(crate) fn settle(mut self) -> Option<String> {
        const WORK: [fn(usize) -> Step; 8] = [
            Step::Start,
            Step::Observe,
            Step::Acknowledge,
            Step::Pull,
            Step::Judge,
            Step::Commit,
            Step::ReadEnd,
            Step::Fence,
        ];
        let sides: Vec<_> =
            self.actors.iter().filter(|it| it.kind != Kind::Failing).map(|it| it.side).collect();
        for (number, actor) in self.actors.iter_mut().enumerate() {
            if actor.kind == Kind::Failing {
                actor.state = State::Dead;
                self.store.leave(&id(number));
                // Where nobody else is there for its side it is started anew.
                if !sides.contains(&actor.side) {
                    *actor = Actor::new(actor.side, Kind::Stepwise);
                }
            }
        }
        let works = |actor: &usize| self.actors[*actor].kind != Kind::Failing;
        let works: Vec<usize> = (0..self.actors.len()).filter(works).collect();
        let mut before = None;
        while before.as_ref() != Some(&self) {
            before = Some(self.clone());
            for step in works.iter().flat_map(|actor| WORK.map(|step| step(*actor))) {
                self = self.step(step).unwrap_or(self);
            }
        }
        let lost = self.handled.iter().position(|by| !by[0] && !by[1]);
        let stuck = self.store.intent().is_some().then(|| "the switch is stuck".to_owned());
        self.wrong().or(stuck).or(lost.map(|offset| format!("message {offset} is lost")))
    }
}
