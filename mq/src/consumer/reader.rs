use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use gray_propagation::Lane;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::committing::Kept;
use super::core::{Core, From, Order, Role};
use super::counts::{Count, Origin, Outcome, Reading};
use super::handling::{Arrived, PAUSE, backoff, handle_until_done};
use super::place::{Judging, Place};
use super::progress::Progress;
use crate::{Filter, MessageBroker, PullRequest, Pulled, QueueKey, Side, Verdict};

/// How many messages a pull asks for.
const BATCH: u32 = 32;

/// How many messages of a queue may have been pulled and not ended, and how many bytes they may have.
const MAX_RUNNING: (usize, usize) = (256, 8 << 20);

/// How many bytes those may have beside that of which it is not known whose they are: while a lane is being
/// switched the messages of others, which lie behind them, go on.
const MAX_HELD: usize = 64 << 20;

/// How many may have been pulled from the first on that has not ended: so many come again where this
/// process dies.
const MAX_SPAN: usize = 10_000;

/// For how long a broker waits for a message to come.
const WAIT: Duration = Duration::from_secs(10);

/// The shortest pause.
const TICK: Duration = Duration::from_millis(1);

/// How often what was handled is committed.
const COMMIT: Duration = Duration::from_secs(1);

/// A topic that a consumer reads: one of its own, or that of its group's retries.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    /// The side as which the consumer stands in the topic's table. In that of its retries there is
    /// only one: a retry belongs to the group that took it, whatever its lane.
    pub(super) side: Side,
    pub(super) filter: Filter,
    pub(super) is_retry: bool,
}

/// Reads one queue, and has its messages handled.
pub(super) struct Reader<B> {
    pub(super) core: Arc<Core<B>>,
    pub(super) role: Arc<Role>,
    pub(super) topic: Arc<Topic>,
    pub(super) place: Arc<Place>,
    pub(super) queue: QueueKey,
    /// Where the queue ended before this consumer registered.
    pub(super) end: Option<u64>,
    /// Where it begins if nothing has been committed in it.
    pub(super) from: From,
}

/// What runs while a queue is read.
pub(super) struct Running {
    pub(super) progress: Progress,
    handled: JoinSet<(Arrived, Outcome)>,
    /// Messages that nothing has been decided about.
    arrived: VecDeque<Arrived>,
    /// Messages of which it is not yet known whose they are.
    held: VecDeque<Arrived>,
    /// What was counted here before: looking it up takes longer.
    counters: HashMap<(Origin, Outcome), Arc<AtomicU64>>,
    pub(super) committed: u64,
    pub(super) kept: Kept,
    /// Where the queue ended when it was last heard of.
    end: Option<u64>,
    /// How often a broker gave nothing that had something.
    empty: u32,
    /// What the other side has committed, as far as is known: base, or each lane.
    other: BTreeMap<Lane, u64>,
}

/// Why reading ended.
enum Ended {
    Stopped,
    /// Nothing may be handled or committed any more.
    Lost,
}

impl<B: MessageBroker> Reader<B> {
    /// Reads until it is stopped, or may not go on; what is being handled then is waited for.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let begun = stop.run_until_cancelled(self.start()).await;
        let Some((start, kept)) = begun else { return };
        debug!(group = %self.role.group, topic = self.topic.name, queue = %self.queue, start, "reading");
        let mut running = Running { kept, ..Running::new(start) };
        let ended = self.read(&mut running, &stop).await;
        let until = Instant::now() + self.core.properties.drain;
        let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
        if tokio::time::timeout_at(until, self.finish(&mut running)).await.is_err() {
            warn!(%group, topic, %queue, "messages are still being handled, they come again");
        }
        // What is still under way is not committed. Asked once, however long that took.
        if matches!(ended, Ended::Stopped) {
            let until = until.max(Instant::now() + PAUSE.1);
            let commit = self.commit_at_last(&mut running);
            if tokio::time::timeout_at(until, commit).await.is_err() {
                warn!(%group, topic, %queue, "what was handled is not committed, it comes again");
            }
        }
        self.core.counts.reads_no_more(self.reading(), &self.queue);
    }

    fn reading(&self) -> Reading {
        let (topic, group) = (self.topic.name.clone(), self.role.group.to_string());
        Reading { topic, group, lane: self.role.side.lane() }
    }

    async fn read(&self, running: &mut Running, stop: &CancellationToken) -> Ended {
        let mut changes = self.place.changes();
        let mut commit = tokio::time::interval(COMMIT);
        commit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pull = self.pull(running.progress.next(), Duration::ZERO);
        let in_order = self.core.properties.order == Order::Queue;
        let mut failures = 0;
        loop {
            // In order, what is held waits for what is handled.
            let mut reconsiders = in_order;
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                // Otherwise it is enough to look when something else happens: to be woken by each message
                // costs more than most handlers do.
                Some(ended) = running.handled.join_next(), if in_order || !running.has_room() => {
                    self.end(running, ended);
                }
                pulled = &mut pull, if running.has_room() => {
                    let pause = match pulled {
                        Ok(pulled) => {
                            failures = 0;
                            self.take(running, pulled)
                        }
                        Err(error) => {
                            failures += 1;
                            self.failed("pulled", failures, &error)
                        }
                    };
                    pull = self.pull(running.progress.next(), pause);
                }
                _ = changes.changed() => reconsiders = true,
                _ = commit.tick() => {
                    reconsiders = true;
                    self.settle(running);
                    self.commit(running).await;
                    self.measure(running).await;
                    self.ask_other(running).await;
                }
            }
            self.settle(running);
            if reconsiders {
                running.reconsider();
            }
            self.judge(running);
            if !self.place.is_held() {
                return Ended::Lost;
            }
        }
    }

    /// Takes note of how much is still to be read.
    async fn measure(&self, running: &mut Running) {
        // As long as nothing more is taken, no pull says where the queue ends.
        if !running.has_room() {
            let end = self.core.broker.end(&self.topic.name, &self.queue);
            if let Ok(Ok(end)) = tokio::time::timeout(COMMIT, end).await {
                running.end = Some(end);
            }
        }
        if let Some(end) = running.end {
            let behind = end.saturating_sub(running.committed);
            self.core.counts.is_behind(self.reading(), &self.queue, behind);
        }
    }

    /// Waits for what is being handled, and for what is held to be somebody's: what lies behind it may
    /// have been handled, and would come again if it could not be committed. In order nothing behind it
    /// has been, and it may wait for others who wait for what is to be committed here.
    async fn finish(&self, running: &mut Running) {
        let mut changes = self.place.changes();
        let in_order = self.core.properties.order == Order::Queue;
        while !in_order && self.place.is_held() && running.progress.span() > 0 {
            tokio::select! {
                Some(ended) = running.handled.join_next() => self.end(running, ended),
                _ = changes.changed() => {}
                // A lease runs out without anybody saying so.
                () = tokio::time::sleep(COMMIT) => {}
            }
            running.reconsider();
            self.judge(running);
        }
        // Where the place is lost, whoever has it next handles what is held.
        while let Some(ended) = running.handled.join_next().await {
            self.end(running, ended);
        }
    }

    /// Pulls after a pause; the future does not end early, so that a pull under way is not lost.
    fn pull(&self, offset: u64, pause: Duration) -> BoxFuture<'static, Result<Pulled, B::Error>> {
        let (core, role, topic) =
            (Arc::clone(&self.core), Arc::clone(&self.role), Arc::clone(&self.topic));
        let queue = self.queue.clone();
        async move {
            // Even no time at all would be a millisecond: timers have no finer tick.
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let request = PullRequest {
                group: &role.group,
                topic: &topic.name,
                queue: &queue,
                offset,
                count: BATCH,
                wait: WAIT,
                filter: &topic.filter,
            };
            core.broker.pull(&request).await
        }
        .boxed()
    }

    /// Takes what a pull brought, and returns how long to wait before the next.
    fn take(&self, running: &mut Running, pulled: Pulled) -> Duration {
        let next = running.progress.next();
        running.end = Some(pulled.end);
        if pulled.end < next {
            let (topic, queue, end) = (&self.topic.name, &self.queue, pulled.end);
            warn!(topic, %queue, end, next, "the broker has lost messages, reading from its end on");
            if running.progress.span() == 0 {
                running.progress = Progress::new(end);
            }
            return PAUSE.1;
        }
        for message in pulled.messages {
            if running.progress.begin(message.offset, message.body.len()) {
                running.arrived.push_back(Arrived::new(message, &self.core.carrier));
            }
        }
        running.progress.reach(pulled.next);
        self.note_empty(running, next);
        // A broker that answers at once, and with nothing, is not asked again at once.
        if running.progress.next() > next { Duration::ZERO } else { TICK }
    }

    /// Says once that a broker has messages and gives none, though it has been asked several times.
    fn note_empty(&self, running: &mut Running, asked: u64) {
        const OFTEN: u32 = 3;
        let stands = running.progress.next() == asked && running.end.is_some_and(|end| end > asked);
        running.empty = if stands { running.empty.saturating_add(1) } else { 0 };
        if running.empty == OFTEN {
            let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
            warn!(%group, topic, %queue, asked, end = running.end, "the broker gives no message, asking on");
        }
    }

    /// Decides about what has arrived, as far as can be told now; what cannot be is held.
    fn judge(&self, running: &mut Running) {
        if running.arrived.is_empty() {
            return;
        }
        let judging = self.place.judging();
        let in_order = self.core.properties.order == Order::Queue;
        while let Some(arrived) = running.arrived.pop_front() {
            let offset = arrived.message.offset;
            // In order: one at a time, and nothing passes what waits.
            let waits = in_order && (!running.handled.is_empty() || !running.held.is_empty());
            let verdict =
                if waits { Verdict::Hold } else { self.verdict(&judging, running, &arrived) };
            match verdict {
                Verdict::Handle => {
                    running.progress.resume(offset);
                    let is_of_base = self.topic.side == Side::Base;
                    if is_of_base && arrived.lane().is_some_and(|lane| judging.is_alive(lane)) {
                        self.count(running, &arrived, Outcome::Escaped);
                    }
                    self.handle(running, arrived);
                }
                Verdict::Skip => {
                    self.count(running, &arrived, Outcome::Skipped);
                    running.progress.end(offset);
                }
                // What is thrown away is pulled again by whoever reads the queue next.
                Verdict::Hold | Verdict::Discard => {
                    // In order nothing passes it, and there is no need to pull more.
                    if !in_order {
                        running.progress.hold(offset);
                    }
                    running.held.push_back(arrived);
                }
            }
        }
    }

    fn verdict(&self, judging: &Judging<'_>, running: &Running, arrived: &Arrived) -> Verdict {
        let message = &*arrived.message;
        if !self.topic.is_retry && !self.core.wants(message) {
            return Verdict::Skip;
        }
        let lane = arrived.lane().filter(|_| !self.topic.is_retry);
        let verdict = judging.judge(&self.queue, message.offset, lane);
        let Some(lane) = lane.filter(|_| self.core.properties.order == Order::Queue) else {
            return verdict;
        };
        // In order, nothing behind a fence is handled before the other side has committed up to it.
        let fence = judging.fence(&self.queue, message.offset, lane).unwrap_or_default();
        let too_early = running.other.get(&lane).copied().unwrap_or_default() < fence;
        if verdict == Verdict::Handle && too_early { Verdict::Hold } else { verdict }
    }

    /// Asks what the other side has committed, where something waits for it.
    async fn ask_other(&self, running: &mut Running) {
        let in_order = self.core.properties.order == Order::Queue;
        let Some(arrived) = running.held.front().filter(|_| in_order) else { return };
        let Some(lane) = arrived.lane() else { return };
        let other = if self.topic.side == Side::Base { Side::Lane(lane) } else { Side::Base };
        let Ok(group) = self.core.group.of(other) else { return };
        match self.core.broker.committed(&group, &self.topic.name, &self.queue).await {
            Ok(Some(committed)) => drop(running.other.insert(lane, committed)),
            Ok(None) => {}
            Err(error) => debug!(%error, group, "what it has committed cannot be asked"),
        }
    }

    fn handle(&self, running: &mut Running, arrived: Arrived) {
        let (core, role) = (Arc::clone(&self.core), Arc::clone(&self.role));
        let place = Arc::clone(&self.place);
        running.handled.spawn(async move {
            let outcome = handle_until_done(&core, &role, &place, &arrived).await;
            (arrived, outcome)
        });
    }

    /// Takes note of all messages that have ended.
    pub(super) fn settle(&self, running: &mut Running) {
        while let Some(ended) = running.handled.try_join_next() {
            self.end(running, ended);
        }
    }

    /// Takes note of a message that has ended.
    fn end(&self, running: &mut Running, ended: Result<(Arrived, Outcome), JoinError>) {
        match ended {
            Ok((arrived, outcome)) => {
                self.count(running, &arrived, outcome);
                running.progress.end(arrived.message.offset);
            }
            // The task itself does not panic, and is aborted with its reader only.
            Err(error) => warn!(%error, "a message was given up"),
        }
    }

    fn count(&self, running: &mut Running, arrived: &Arrived, outcome: Outcome) {
        let lane = arrived.lane();
        // Who has named a lane is asked only of one that was not counted yet.
        if let Some(known) = running.counters.get(&(Origin::new(lane, |_| true), outcome)) {
            known.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let origin = Origin::new(lane, |lane| self.has_named(lane));
        let counter = || {
            let (topic, group) = (arrived.message.topic.clone(), self.role.group.to_string());
            self.core.counts.counter(Count { topic, group, origin, outcome })
        };
        // Retries are of several topics.
        if self.topic.is_retry {
            counter().fetch_add(1, Ordering::Relaxed);
        } else {
            let known = running.counters.entry((origin, outcome)).or_insert_with(counter);
            known.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn has_named(&self, lane: Lane) -> bool {
        self.role.side == Side::Lane(lane)
            || self.core.settings.peek().lanes().contains(&lane)
            || self.core.settings_of(&self.topic.name).ignored.contains(&lane)
    }

    /// Says once that something failed, and returns how long to wait before it is tried again.
    pub(super) fn failed(&self, what: &str, failures: u32, error: &B::Error) -> Duration {
        if failures == 1 {
            let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
            warn!(%group, topic, %queue, %error, "cannot be {what}, trying again");
        }
        backoff(failures)
    }
}

impl Running {
    fn new(start: u64) -> Self {
        Self {
            progress: Progress::new(start),
            handled: JoinSet::new(),
            arrived: VecDeque::new(),
            held: VecDeque::new(),
            counters: HashMap::new(),
            committed: start,
            kept: Kept::Nothing,
            end: None,
            empty: 0,
            other: BTreeMap::new(),
        }
    }

    fn has_room(&self) -> bool {
        let (count, bytes) = self.progress.running();
        let has_room = count < MAX_RUNNING.0 && bytes < MAX_RUNNING.1;
        has_room && self.progress.held_bytes() < MAX_HELD && self.progress.span() < MAX_SPAN
    }

    /// Has everything decided about anew, in the order in which it came.
    fn reconsider(&mut self) {
        self.held.append(&mut self.arrived);
        std::mem::swap(&mut self.held, &mut self.arrived);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Case, queue};
    use super::*;
    use crate::{MemberId, Owner};

    #[test]
    fn what_is_held_takes_room_of_its_own_which_is_limited_too() {
        let mut running = Running::new(0);
        for offset in 0..1_000 {
            assert!(running.has_room(), "{offset}");
            running.progress.begin(offset, 1 << 10);
            running.progress.hold(offset);
        }
        running.progress.begin(1_000, MAX_HELD);
        assert!(!running.has_room(), "what runs is too large");
        running.progress.hold(1_000);
        assert!(!running.has_room(), "what is held is too large");
        running.progress.end(1_000);
        assert!(running.has_room());
    }

    /// After 256 messages of a lane that was being switched base stood still, for as long as somebody was
    /// waited for.
    #[tokio::test(start_paused = true)]
    async fn base_goes_on_while_a_lane_is_being_switched() {
        let case = Case::new(1);
        let ghost = MemberId::new("ghost", 1);
        case.fake.change(|kept| {
            kept.clients.entry("g_gray".to_owned()).or_default().insert("ghost".to_owned());
        });
        case.step(|table| {
            table.add_queue(queue(0));
            table.register(ghost.clone(), Side::Lane(Lane::GRAY));
            table.request(Lane::GRAY, Owner::Lane);
        })
        .await;
        for _ in 0..=2 * MAX_RUNNING.0 {
            case.fake.send(0, Some("gray"));
        }
        case.fake.send(0, None);
        let (consumer, mut handled) = case.consume(Case::properties());
        let first = handled.next().await;
        assert!(first.message.properties.is_empty(), "{:?}", first.message);
        let table = case.ledger().read().await.unwrap();
        assert_eq!(table.awaited(), [ghost]);
        // Nothing of what is held is lost.
        for offset in 0..=2 * MAX_RUNNING.0 {
            let next = handled.next().await;
            assert_eq!(usize::try_from(next.message.offset).unwrap(), offset);
        }
        consumer.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_lanes_that_nobody_has_named_are_counted_together() {
        let case = Case::new(1);
        for number in 0..100 {
            case.fake.send(0, Some(&format!("made-up-{number}")));
        }
        case.fake.send(0, Some("gray"));
        let (consumer, _handled) = case.consume(Case::properties());
        let committed = |offset| move |it: &u64| *it == offset;
        case.fake.until(|kept| kept.committed.values().any(committed(101))).await;
        let counts: Vec<_> = consumer.counts().all().into_iter().collect();
        let origins: Vec<_> =
            counts.iter().map(|(count, number)| (count.origin, *number)).collect();
        assert_eq!(origins, [(Origin::Lane(Lane::GRAY), 1), (Origin::Other, 100)]);
        consumer.stop().await;
    }
}
