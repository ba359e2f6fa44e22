use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, pending};
use gray_propagation::{Lane, scope};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::core::{Core, Delivery, From, Order, Role};
use super::counts::{Count, Outcome, Reading};
use super::place::Place;
use super::progress::Progress;
use crate::{Filter, MessageBroker, PullRequest, Pulled, QueueKey, ReceivedMessage, Side, Verdict};

/// How many messages a pull asks for.
const BATCH: u32 = 32;

/// How many messages of a queue may have been pulled and not ended, and how many bytes they may have.
const MAX_RUNNING: (usize, usize) = (256, 8 << 20);

/// For how long a broker waits for a message to come.
const WAIT: Duration = Duration::from_secs(10);

/// How long it takes until what failed is tried again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

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
}

/// What runs while a queue is read.
struct Running {
    progress: Progress,
    handled: JoinSet<u64>,
    /// Messages of which it is not yet known whose they are.
    held: VecDeque<ReceivedMessage>,
    committed: u64,
    /// Where the queue ended when it was last heard of.
    end: u64,
    /// What the other side has committed, as far as is known.
    other: Option<u64>,
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
        let Some(start) = stop.run_until_cancelled(self.start()).await else { return };
        let mut running = Running {
            progress: Progress::new(start),
            handled: JoinSet::new(),
            held: VecDeque::new(),
            committed: start,
            end: start,
            other: None,
        };
        let ended = self.read(&mut running, &stop).await;
        let drain = self.finish(&mut running);
        if tokio::time::timeout(self.core.properties.drain, drain).await.is_err() {
            let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
            warn!(%group, topic, %queue, "messages are still being handled, they come again");
        }
        // What is still under way is not committed.
        if matches!(ended, Ended::Stopped) {
            let commit = self.commit_at_last(&mut running);
            if tokio::time::timeout(self.core.properties.drain, commit).await.is_err() {
                let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
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
        let mut failures = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                true = running.ended() => {}
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
                _ = changes.changed() => {}
                _ = commit.tick() => {
                    self.commit(running).await;
                    let behind = running.end.saturating_sub(running.committed);
                    self.core.counts.is_behind(self.reading(), &self.queue, behind);
                    self.ask_other(running).await;
                }
            }
            self.judge(running);
            if !self.place.is_held() {
                return Ended::Lost;
            }
        }
    }

    /// Waits for what is being handled, and for what is held to be somebody's: what lies behind it may
    /// have been handled, and would come again if it could not be committed.
    async fn finish(&self, running: &mut Running) {
        let mut changes = self.place.changes();
        while self.place.is_held() && running.progress.running().0 > 0 {
            tokio::select! {
                true = running.ended() => {}
                _ = changes.changed() => {}
                () = tokio::time::sleep(COMMIT) => self.ask_other(running).await,
            }
            self.judge(running);
        }
        // Where the place is lost, whoever has it next handles what is held.
        while running.ended().await {}
    }

    /// Pulls after a pause; the future does not end early, so that a pull under way is not lost.
    fn pull(&self, offset: u64, pause: Duration) -> BoxFuture<'static, Result<Pulled, B::Error>> {
        let (core, role, topic) =
            (Arc::clone(&self.core), Arc::clone(&self.role), Arc::clone(&self.topic));
        let queue = self.queue.clone();
        async move {
            tokio::time::sleep(pause).await;
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
        running.end = pulled.end;
        if pulled.end < next {
            let (topic, queue, end) = (&self.topic.name, &self.queue, pulled.end);
            warn!(topic, %queue, end, next, "the broker has lost messages, reading from its end on");
            if running.progress.running().0 == 0 {
                running.progress = Progress::new(end);
            }
            return PAUSE.1;
        }
        for message in pulled.messages {
            if running.progress.begin(message.offset, message.body.len()) {
                running.held.push_back(message);
            }
        }
        running.progress.reach(pulled.next);
        Duration::ZERO
    }

    /// Decides about what is held, as far as can be told now.
    fn judge(&self, running: &mut Running) {
        let in_order = self.core.properties.order == Order::Queue;
        let held = std::mem::take(&mut running.held);
        for message in held {
            // In order: one at a time, and nothing passes what waits.
            let waits = in_order && (!running.handled.is_empty() || !running.held.is_empty());
            let verdict = if waits { Verdict::Hold } else { self.verdict(running, &message) };
            match verdict {
                Verdict::Handle => self.handle(running, message),
                Verdict::Skip => {
                    self.count(&message, Outcome::Skipped);
                    running.progress.end(message.offset);
                }
                // What is thrown away is pulled again by whoever reads the queue next.
                Verdict::Hold | Verdict::Discard => running.held.push_back(message),
            }
        }
    }

    fn verdict(&self, running: &Running, message: &ReceivedMessage) -> Verdict {
        if !self.topic.is_retry && !self.core.wants(message) {
            return Verdict::Skip;
        }
        let lane = self.lane_of(message).filter(|_| !self.topic.is_retry);
        let verdict = self.place.judge(&self.queue, message.offset, lane);
        match lane {
            Some(lane)
                if verdict == Verdict::Handle && self.is_too_early(running, message, lane) =>
            {
                Verdict::Hold
            }
            _ => verdict,
        }
    }

    /// In order, nothing behind a fence is handled before the other side has committed up to it.
    fn is_too_early(&self, running: &Running, message: &ReceivedMessage, lane: Lane) -> bool {
        let fence = self.place.fence(&self.queue, message.offset, lane).unwrap_or_default();
        self.core.properties.order == Order::Queue && running.other.unwrap_or_default() < fence
    }

    /// Asks what the other side has committed, where something waits for it.
    async fn ask_other(&self, running: &mut Running) {
        let in_order = self.core.properties.order == Order::Queue;
        let Some(message) = running.held.front().filter(|_| in_order) else { return };
        let Some(lane) = self.lane_of(message) else { return };
        let other = if self.topic.side == Side::Base { Side::Lane(lane) } else { Side::Base };
        let Ok(group) = self.core.group.of(other) else { return };
        match self.core.broker.committed(&group, &self.topic.name, &self.queue).await {
            Ok(committed) => running.other = committed.or(running.other),
            Err(error) => debug!(%error, group, "what it has committed cannot be asked"),
        }
    }

    fn lane_of(&self, message: &ReceivedMessage) -> Option<Lane> {
        self.core.carrier.extract(&message.properties).status.lane().copied()
    }

    fn handle(&self, running: &mut Running, message: ReceivedMessage) {
        let lane = self.lane_of(&message);
        if self.topic.side == Side::Base && lane.is_some_and(|lane| self.place.is_alive(lane)) {
            self.count(&message, Outcome::Escaped);
        }
        let (core, role) = (Arc::clone(&self.core), Arc::clone(&self.role));
        let place = Arc::clone(&self.place);
        running.handled.spawn(async move {
            let offset = message.offset;
            let outcome = handle_until_done(&core, &role, &place, &message).await;
            core.counts.add(count(&core, &role, &message, outcome));
            offset
        });
    }

    /// Returns the offset to begin with.
    async fn start(&self) -> u64 {
        let mut failures = 0;
        loop {
            match self.position().await {
                Ok(position) => return position,
                Err(error) => {
                    failures += 1;
                    tokio::time::sleep(self.failed("begun", failures, &error)).await;
                }
            }
        }
    }

    async fn position(&self) -> Result<u64, B::Error> {
        let (broker, queue, name) = (&self.core.broker, &self.queue, &self.topic.name);
        let committed = broker.committed(&self.role.group, name, queue).await?;
        // What lies below the lane's first fence is not the lane's. Where there is none yet, it will be
        // where the queue ended before this consumer registered, or behind that: not where it ends now.
        let lane = match self.topic.side {
            Side::Lane(lane) => self.place.first_of(queue, lane).or(self.end),
            Side::Base => None,
        };
        match (committed, lane) {
            (committed, Some(first)) => Ok(committed.unwrap_or_default().max(first)),
            (Some(committed), None) => Ok(committed),
            (None, None) if self.begins_last() => broker.end(name, queue).await,
            (None, None) => broker.begin(name, queue).await,
        }
    }

    fn begins_last(&self) -> bool {
        let is_base = self.topic.side == Side::Base && !self.topic.is_retry;
        is_base && self.core.properties.from == From::Last
    }

    /// Commits, and tries again where that fails: nobody else will do it, and what was handled would be
    /// handled again.
    async fn commit_at_last(&self, running: &mut Running) {
        loop {
            self.commit(running).await;
            if running.committed == running.progress.committable() || !self.place.is_held() {
                return;
            }
            tokio::time::sleep(PAUSE.0).await;
        }
    }

    async fn commit(&self, running: &mut Running) {
        let offset = running.progress.committable();
        if offset == running.committed || !self.place.is_held() {
            return;
        }
        let (group, name) = (&self.role.group, &self.topic.name);
        match self.core.broker.commit(group, name, &self.queue, offset).await {
            Ok(()) => running.committed = offset,
            Err(error) => {
                warn!(%group, topic = name, queue = %self.queue, %error, "not committed, trying again");
            }
        }
    }

    fn count(&self, message: &ReceivedMessage, outcome: Outcome) {
        self.core.counts.add(count(&self.core, &self.role, message, outcome));
    }

    /// Says once that something failed, and returns how long to wait before it is tried again.
    fn failed(&self, what: &str, failures: u32, error: &B::Error) -> Duration {
        if failures == 1 {
            let (group, topic, queue) = (&self.role.group, &self.topic.name, &self.queue);
            warn!(%group, topic, %queue, %error, "cannot be {what}, trying again");
        }
        backoff(failures)
    }
}

impl Running {
    fn has_room(&self) -> bool {
        let (count, bytes) = self.progress.running();
        count < MAX_RUNNING.0 && bytes < MAX_RUNNING.1
    }

    /// Waits for the next message to end; `false` where none is being handled.
    async fn ended(&mut self) -> bool {
        match self.handled.join_next().await {
            Some(Ok(offset)) => self.progress.end(offset),
            // The task itself does not panic, and nobody aborts it.
            Some(Err(error)) => warn!(%error, "a message was given up"),
            None => return false,
        }
        true
    }
}

fn count<B>(core: &Core<B>, role: &Role, message: &ReceivedMessage, outcome: Outcome) -> Count {
    let lane = core.carrier.extract(&message.properties).status.lane().copied();
    Count { topic: message.topic.clone(), group: role.group.to_string(), lane, outcome }
}

/// How long to wait after so many failures: longer each time, and not all at the same moment.
fn backoff(failures: u32) -> Duration {
    let most = PAUSE.0.saturating_mul(1 << failures.min(10)).min(PAUSE.1);
    most.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

/// Handles a message until it is done, or somebody else will do it: it was given back.
async fn handle_until_done<B: MessageBroker>(
    core: &Arc<Core<B>>,
    role: &Role,
    place: &Place,
    message: &ReceivedMessage,
) -> Outcome {
    let in_order = core.properties.order == Order::Queue;
    let mut attempt = 1;
    loop {
        let error = match handle_once(core, role, message).await {
            Ok(()) => return Outcome::Handled,
            Err(error) => error,
        };
        let (group, topic, offset) = (&role.group, &message.topic, message.offset);
        warn!(%group, topic, offset, error, "a message could not be handled, it comes again");
        if in_order && attempt < core.properties.attempts {
            attempt += 1;
            tokio::time::sleep(PAUSE.1 / 2).await;
            continue;
        }
        give_back(core, role, place, message).await;
        return Outcome::GivenBack;
    }
}

async fn give_back<B: MessageBroker>(
    core: &Core<B>,
    role: &Role,
    place: &Place,
    message: &ReceivedMessage,
) {
    let mut failures = 0;
    while let Err(error) = core.broker.give_back(&role.group, message).await {
        failures += 1;
        if failures == 1 {
            let (group, topic, offset) = (&role.group, &message.topic, message.offset);
            warn!(%group, topic, offset, %error, "a message cannot be given back, trying again");
        }
        if !place.is_held() {
            // Whoever reads the queue next gets it again, since nothing is committed any more.
            pending::<()>().await;
        }
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Handles a message in its own lane. A panic is an error like others.
async fn handle_once<B: MessageBroker>(
    core: &Arc<Core<B>>,
    role: &Role,
    message: &ReceivedMessage,
) -> Result<(), String> {
    let context = core.carrier.extract(&message.properties);
    let _permit = core.permits.acquire().await;
    let delivery =
        Delivery { message: message.clone(), group: Arc::clone(&role.group), side: role.side };
    // A handler may panic before its future is there.
    let handled = async { (core.handle)(delivery).await };
    match AssertUnwindSafe(scope(context, handled)).catch_unwind().await {
        Ok(handled) => handled.map_err(|error| error.to_string()),
        Err(_) => Err("the handler panicked".to_owned()),
    }
}
