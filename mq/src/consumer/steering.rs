use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gray_propagation::Lane;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::core::{Core, Role};
use super::liveness::Liveness;
use super::reader::Topic;
use crate::{
    Absence, ChangeError, ConsumeMode, FenceError, Ledger, MemberId, MessageBroker, Owner,
    Ownership, QueueKey, Settings, Side, StoreError,
};

/// How long a change may wait for members that do not agree, as a multiple of the lease: one that has
/// died is taken off after one. Those who did not ask for it wait for one lease more.
const PATIENCE: u32 = 3;

/// How long nothing is asked for again that was given up.
const REST: Duration = Duration::from_secs(30);

/// How long it takes until a change is looked at again that cannot be made.
const AGAIN: Duration = Duration::from_secs(2);

/// How many fences of a lane a queue may have before old ones are looked for, and how often.
const KEPT: usize = 16;
const TIDY: Duration = Duration::from_secs(30);

/// Brings the table of a topic to what is wanted: asks for changes, writes fences, takes off who is
/// gone, gives up what cannot be finished. Every member could do all of it at any time.
#[derive(Debug)]
pub(super) struct Steering<B> {
    core: Arc<Core<B>>,
    role: Arc<Role>,
    topic: Arc<Topic>,
    absence: Absence,
    liveness: Liveness,
    /// Since when the change of an epoch has been waited for.
    waiting: Option<(u64, Instant)>,
    resting: Option<Instant>,
    /// Since when a change is wanted that cannot be made, or when that was last looked at.
    unable: Option<Instant>,
    /// Why the fences of the change that is waited for cannot be written.
    unfenced: Option<String>,
    /// The lanes of which it was said that they can have no consumers.
    refused: BTreeSet<Lane>,
    asked: Option<Instant>,
    tidied: Option<Instant>,
    /// Up to where both groups had committed when it was last looked at.
    behind: Vec<(QueueKey, Lane, u64)>,
}

/// The fences cannot be written by what was read.
#[derive(Debug, thiserror::Error)]
enum NotFenced {
    /// Somebody has changed the table since.
    #[error("the table has changed")]
    Changed,
    #[error(transparent)]
    Fence(#[from] FenceError),
}

impl<B: MessageBroker> Steering<B> {
    pub(super) fn new(core: Arc<Core<B>>, role: Arc<Role>, topic: Arc<Topic>) -> Self {
        let lease = core.properties.lease;
        Self {
            core,
            role,
            topic,
            absence: Absence::new(lease),
            liveness: Liveness::new(lease),
            waiting: None,
            resting: None,
            unable: None,
            unfenced: None,
            refused: BTreeSet::new(),
            asked: None,
            tidied: None,
            behind: Vec::new(),
        }
    }

    /// The lanes whose consumers are alive.
    pub(super) const fn alive(&self) -> &BTreeSet<Lane> {
        self.liveness.alive()
    }

    /// Tells whether the lane's consumers handle what base handles too.
    pub(super) fn shares(&self) -> bool {
        let Side::Lane(lane) = self.topic.side else { return false };
        let settings = self.core.settings_of(&self.topic.name);
        settings.mode == ConsumeMode::Base
            && !settings.ignored.contains(&lane)
            && !self.role.drains()
    }

    /// Takes whatever step the table is ready for; tells whether more is to come soon.
    pub(super) async fn steer(
        &mut self,
        ledger: &Ledger,
        table: &Ownership,
        own: &MemberId,
    ) -> Result<bool, StoreError> {
        // Brokers are asked after the table was read, and not oftener than the table usually is.
        let now = Instant::now();
        if self.asked.is_none_or(|asked| now.duration_since(asked) >= self.core.properties.poll / 2)
        {
            self.asked = Some(now);
            self.look_around(ledger, table).await?;
        }
        if table.intent().is_some() {
            self.finish(ledger, table, own).await?;
            return Ok(true);
        }
        self.waiting = None;
        // Whoever has not heard yet who is alive must not take a failed query for "nobody".
        if !self.topic.is_retry && self.liveness.is_known() && leads(table, own) {
            return self.ask(ledger, table).await;
        }
        Ok(false)
    }

    /// Asks brokers who is there.
    async fn look_around(&mut self, ledger: &Ledger, table: &Ownership) -> Result<(), StoreError> {
        let brokers: BTreeSet<_> =
            table.fences().queues().map(|queue| queue.broker.clone()).collect();
        let mut sides: BTreeSet<Side> =
            table.members().values().map(|member| member.side).collect();
        if !self.topic.is_retry {
            sides.extend(self.lanes(table).into_iter().map(Side::Lane));
        }
        let mut listed = BTreeMap::new();
        for side in sides {
            let group = match self.core.group.of(side) {
                Ok(_) if self.topic.is_retry => self.role.group.to_string(),
                Ok(group) => group,
                Err(error) => {
                    debug!(%error, "a lane without consumers");
                    continue;
                }
            };
            match self.core.broker.listed(&group, &brokers).await {
                Ok(clients) => drop(listed.insert(side, clients)),
                // What was known stays: a broker that does not answer may know of somebody.
                Err(error) => {
                    debug!(%error, group, "its consumers are not known");
                    return Ok(());
                }
            }
        }
        let now = Instant::now();
        for (lane, is_alive) in self.liveness.see(table.open(), &listed, now) {
            let topic = &self.topic.name;
            if is_alive {
                info!(topic, %lane, "the lane has consumers");
            } else {
                info!(topic, %lane, "the lane has no consumers any more");
            }
        }
        let gone = self.absence.gone(table, &listed, now);
        if !gone.is_empty() {
            warn!(topic = self.topic.name, ?gone, "consumers are gone, and taken off the table");
            let leave = |table: &mut Ownership| {
                for id in &gone {
                    table.leave(id);
                }
                Ok::<_, NotFenced>(())
            };
            changed(ledger.change(leave).await)?;
        }
        Ok(())
    }

    /// The lanes that matter to a table.
    fn lanes(&self, table: &Ownership) -> BTreeSet<Lane> {
        let mut lanes = self.core.settings.peek().lanes().clone();
        lanes.extend(table.open());
        lanes.extend(table.pinned().keys());
        lanes.extend(&self.core.settings_of(&self.topic.name).ignored);
        lanes
    }

    /// Asks for what is wanted and not yet so.
    async fn ask(&mut self, ledger: &Ledger, table: &Ownership) -> Result<bool, StoreError> {
        let is_recent = |since: Option<Instant>, rest| since.is_some_and(|it| it.elapsed() < rest);
        if is_recent(self.resting, REST) || is_recent(self.unable, AGAIN) {
            return Ok(false);
        }
        let settings = self.core.settings_of(&self.topic.name);
        let has = |lane| if table.is_open(lane) { Owner::Lane } else { Owner::Base };
        let mut changes = BTreeMap::new();
        for lane in self.lanes(table) {
            let wanted = self.possible(lane, wanted(lane, &settings, self.alive(), table));
            if has(lane) != wanted {
                changes.insert(lane, wanted);
            }
        }
        if changes.is_empty() {
            self.forget(ledger, table).await?;
            return Ok(false);
        }
        // Where it could not be finished nobody is to hold anything back for it.
        let ends = self.ends(table).await;
        if let Err(error) = ends.and_then(|ends| table.fits(&changes, &ends)) {
            if self.unable.replace(Instant::now()).is_none() {
                let topic = &self.topic.name;
                warn!(topic, ?changes, %error, "a change is wanted, and cannot be made now");
            }
            return Ok(false);
        }
        self.unable = None;
        let (topic, group) = (&self.topic.name, self.core.group.as_str());
        info!(topic, group, ?changes, "asking for a change");
        let request = |table: &mut Ownership| {
            for (lane, owner) in &changes {
                table.request(*lane, *owner);
            }
            Ok::<_, NotFenced>(())
        };
        changed(ledger.change(request).await)?;
        Ok(true)
    }

    /// What may be asked for where something is wanted: messages that are given to a lane that can have no
    /// consumers would be passed over by base, and handled by nobody.
    fn possible(&mut self, lane: Lane, wanted: Owner) -> Owner {
        let group = self.core.group.of(Side::Lane(lane));
        match (wanted, group) {
            (Owner::Lane, Err(error)) => {
                if self.refused.insert(lane) {
                    let topic = &self.topic.name;
                    warn!(topic, %lane, %error, "the messages of the lane stay base's");
                }
                Owner::Base
            }
            (wanted, _) => wanted,
        }
    }

    /// Forgets fences that both groups have left behind, now and then, so that a table does not grow for
    /// ever: by what they had committed a while ago, which a broker that is killed has kept.
    async fn forget(&mut self, ledger: &Ledger, table: &Ownership) -> Result<(), StoreError> {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY) {
            return Ok(());
        }
        self.tidied = Some(Instant::now());
        let mut behind = Vec::new();
        for queue in table.fences().queues() {
            for lane in table.fences().lanes() {
                if table.fences().of(queue, lane).len() <= KEPT {
                    continue;
                }
                let sides = [Side::Base, Side::Lane(lane)];
                let groups = sides.map(|side| self.core.group.of(side));
                let mut lowest = u64::MAX;
                for group in groups.into_iter().flatten() {
                    let name = &self.topic.name;
                    let committed = self.core.broker.committed(&group, name, queue).await;
                    lowest = lowest.min(committed.ok().flatten().unwrap_or_default());
                }
                behind.push((queue.clone(), lane, lowest));
            }
        }
        let behind = std::mem::replace(&mut self.behind, behind);
        if behind.is_empty() {
            return Ok(());
        }
        let forget = |table: &mut Ownership| {
            for (queue, lane, committed) in &behind {
                table.forget(queue, *lane, *committed);
            }
            Ok::<_, NotFenced>(())
        };
        changed(ledger.change(forget).await)
    }

    /// Finishes a change that everybody has agreed to, or gives it up after a while.
    async fn finish(
        &mut self,
        ledger: &Ledger,
        table: &Ownership,
        own: &MemberId,
    ) -> Result<(), StoreError> {
        let epoch = table.epoch();
        let since = match self.waiting {
            Some((waiting, since)) if waiting == epoch => since,
            _ => self.waiting.insert((epoch, Instant::now())).1,
        };
        if table.awaited().is_empty() {
            match self.fence(ledger, table).await {
                Ok(()) => {
                    self.core.counts.switched(since.elapsed());
                    return Ok(());
                }
                Err(ChangeError::Step(NotFenced::Changed)) => return Ok(()),
                Err(ChangeError::Store(error)) => return Err(error),
                Err(ChangeError::Step(NotFenced::Fence(error))) => {
                    debug!(%error, "the fences cannot be written");
                    self.unfenced = Some(error.to_string());
                }
            }
        }
        if since.elapsed() >= self.core.properties.lease * patience(table, own) {
            let (topic, awaited) = (&self.topic.name, table.awaited());
            let why = self.unfenced.take().unwrap_or_else(|| "not everybody has agreed".to_owned());
            warn!(
                topic,
                epoch,
                why,
                ?awaited,
                "a change is given up for now, and is asked for again"
            );
            self.resting = Some(Instant::now());
            let abandon = |table: &mut Ownership| {
                if table.epoch() == epoch {
                    table.abandon();
                }
                Ok::<_, NotFenced>(())
            };
            changed(ledger.change(abandon).await)?;
        }
        Ok(())
    }

    /// Reads where the queues end.
    async fn ends(&self, table: &Ownership) -> Result<BTreeMap<QueueKey, u64>, FenceError> {
        let mut ends = BTreeMap::new();
        for queue in table.fences().queues() {
            match self.core.broker.end(&self.topic.name, queue).await {
                Ok(end) => drop(ends.insert(queue.clone(), end)),
                Err(error) => {
                    debug!(%error, %queue, "its end cannot be read");
                    return Err(FenceError::NoEnd(queue.clone()));
                }
            }
        }
        Ok(ends)
    }

    /// Reads where the queues end, and writes the fences, unless the table has changed meanwhile.
    async fn fence(
        &self,
        ledger: &Ledger,
        table: &Ownership,
    ) -> Result<(), ChangeError<NotFenced>> {
        let ends = self.ends(table).await.map_err(|error| ChangeError::Step(error.into()))?;
        fail::fail_point!("before-fence", |_| std::process::abort());
        let fence = |newest: &mut Ownership| {
            if newest != table {
                return Err(NotFenced::Changed);
            }
            Ok(newest.fence(&ends)?)
        };
        let (table, ()) = ledger.change(fence).await?;
        fail::fail_point!("after-fence", |_| std::process::abort());
        let (topic, group) = (&self.topic.name, self.core.group.as_str());
        info!(topic, group, epoch = table.epoch(), open = ?table.open(), "changed");
        Ok(())
    }
}

/// One member asks for changes, so that those who see the configuration a moment later do not ask
/// for the opposite: the first of base, or of all where base has none.
fn leads(table: &Ownership, own: &MemberId) -> bool {
    let of_base = table.members().iter().find(|(_, member)| member.side == Side::Base);
    let first = of_base.or_else(|| table.members().iter().next());
    first.is_some_and(|(first, _)| first == own)
}

/// For how many leases a member waits for a change to be finished: the one that asks for changes gives them
/// up too, and where it hangs the others do a lease later.
fn patience(table: &Ownership, own: &MemberId) -> u32 {
    if leads(table, own) { PATIENCE } else { PATIENCE + 1 }
}

/// Whose the messages of a lane should be, by what an operator has decided, else by the rules and by who is
/// alive.
fn wanted(lane: Lane, settings: &Settings, alive: &BTreeSet<Lane>, table: &Ownership) -> Owner {
    let alive = settings.mode == ConsumeMode::Auto && alive.contains(&lane);
    let own = settings.mode.isolates() && (alive || settings.ignored.contains(&lane));
    let wanted = if own { Owner::Lane } else { Owner::Base };
    table.pinned().get(&lane).copied().unwrap_or(wanted)
}

/// Of a change that can always be made.
fn changed<T>(changed: Result<T, ChangeError<NotFenced>>) -> Result<(), StoreError> {
    match changed {
        Ok(_) | Err(ChangeError::Step(_)) => Ok(()),
        Err(ChangeError::Store(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Case, queue};
    use super::super::warnings::Warnings;
    use super::*;

    /// It was asked for all the same: every queue's messages of the lane were held for three leases, and half a
    /// minute later again, for as long as one broker was away or had lost messages.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_for_a_change_that_cannot_be_made() {
        let (warnings, _guard) = Warnings::listen();
        let case = Case::new(1);
        case.step(|table| {
            table.add_queue(queue(0));
            table.request(Lane::GRAY, Owner::Lane);
            table.fence(&[(queue(0), 5)].into()).unwrap();
        })
        .await;
        // The queue ends below the fence, and nobody is there for the lane, which base is to have.
        let (consumer, _handled) = case.consume(Case::properties());
        for _ in 0..200 {
            tokio::time::sleep(Case::properties().poll / 2).await;
            let table = case.ledger().read().await.unwrap();
            assert_eq!(table.intent(), None);
        }
        let said = warnings.with("a change is wanted, and cannot be made now");
        assert!(said.len() == 1 && said[0].contains("before its last fence at 5"), "{said:?}");
        for _ in 0..5 {
            case.fake.send(0, None);
        }
        case.until(|table| table.open().is_empty() && table.intent().is_none()).await;
        consumer.stop().await;
    }

    /// Nobody could consume them, and base skipped and committed them.
    #[tokio::test(start_paused = true)]
    async fn messages_of_a_lane_that_can_have_no_consumers_stay_bases() {
        let (warnings, _guard) = Warnings::listen();
        let [ignored, pinned]: [Lane; 2] = ["team_a", "v2.1"].map(|name| name.parse().unwrap());
        let mut case = Case::new(1);
        case.settings.ignored = [ignored].into();
        case.step(|table| table.pin(pinned, Some(Owner::Lane))).await;
        let (consumer, mut handled) = case.consume(Case::properties());
        let lanes = ["team_a", "v2.1", "gray"];
        for lane in lanes {
            // Each time somebody has looked anew at what is to be asked for.
            tokio::time::sleep(Case::pause()).await;
            case.fake.send(0, Some(lane));
            let message = handled.next().await.message;
            assert!(message.properties["gray"].eq_ignore_ascii_case(lane), "{message:?}");
        }
        let table = case.ledger().read().await.unwrap();
        assert_eq!((table.open(), table.intent()), (&[].into(), None));
        for lane in [ignored, pinned] {
            let said = warnings.with(&format!("lane={lane} "));
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("has no consumer group"), "{said:?}");
        }
        consumer.stop().await;
    }

    /// Where the one that asks for changes hung, what was held waited until it was missed.
    #[tokio::test(start_paused = true)]
    async fn a_change_that_nobody_finishes_is_given_up_though_its_leader_hangs() {
        let case = Case::new(2);
        let (leader, lease) = (MemberId::new("leader", 1), Case::properties().lease);
        case.fake.change(|kept| {
            kept.clients.entry("g".to_owned()).or_default().insert("leader".to_owned());
        });
        case.step(|table| {
            [0, 1].map(queue).into_iter().for_each(|queue| table.add_queue(queue));
            table.register(leader.clone(), Side::Base);
            table.request(Lane::GRAY, Owner::Lane);
        })
        .await;
        let start = Instant::now();
        let (consumer, _handled) = case.consume(Case::properties());
        case.until(|table| table.members().len() == 2).await;
        let table = case.ledger().read().await.unwrap();
        let own = table.members().keys().find(|id| **id != leader).unwrap().clone();
        assert_eq!([patience(&table, &leader), patience(&table, &own)], [PATIENCE, PATIENCE + 1]);
        case.until(|table| table.intent().is_none()).await;
        let took = start.elapsed();
        assert!(took >= lease * (PATIENCE + 1) && took < lease * (PATIENCE + 2), "{took:?}");
        consumer.stop().await;
    }
}
