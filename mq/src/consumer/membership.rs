use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::assignment::share_of;
use super::beginning::beginning_last;
use super::core::{Core, From, Role};
use super::handling::backoff;
use super::place::Place;
use super::reader::{Reader, Topic};
use super::steering::Steering;
use crate::{
    ChangeError, Duty, Filter, Ledger, MemberId, MessageBroker, Ownership, QueueKey, StoreError,
    Subscription, UnknownMember,
};

/// How often the table is looked at while it is to be changed.
const BUSY: Duration = Duration::from_millis(100);

/// How long it takes until registering is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long leaving may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// Keeps a consumer's place in the table of one topic, and has the queues read that are its share.
pub(super) struct Membership<B> {
    pub(super) core: Arc<Core<B>>,
    pub(super) role: Arc<Role>,
    pub(super) topic: Arc<Topic>,
    pub(super) place: Arc<Place>,
    pub(super) ledger: Ledger,
    pub(super) steering: Steering<B>,
    readers: BTreeMap<QueueKey, ReaderTask>,
    /// Where the queues ended before it registered.
    ends: BTreeMap<QueueKey, u64>,
    /// The queues that begin with their next message, by what the group had committed before.
    last: BTreeSet<QueueKey>,
    failing: bool,
    /// Who had come and gone, and the epoch, by the newest table seen since it registered.
    newest: (u64, u64),
    /// What has been said of why nothing is consumed yet, and how often that was so.
    waiting: Option<String>,
    refusals: u32,
    /// Since when no broker has listed this consumer that has no place.
    unlisted: Option<Instant>,
}

struct ReaderTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for ReaderTask {
    /// Whoever is dropped finishes nothing. One that is to finish is stopped, and waited for.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is to be done next.
enum Next {
    /// Nothing for a while.
    Wait,
    /// Everything is to be looked at again soon.
    LookAgain,
    /// The place is lost.
    Anew,
}

impl<B: MessageBroker> Membership<B> {
    pub(super) fn new(
        core: Arc<Core<B>>,
        role: Arc<Role>,
        topic: Topic,
        place: Arc<Place>,
    ) -> Self {
        let group = if topic.is_retry { &role.group } else { core.group.as_str() };
        let ledger = Ledger::new(Arc::clone(&core.store), group, &topic.name);
        let topic = Arc::new(topic);
        let steering = Steering::new(Arc::clone(&core), Arc::clone(&role), Arc::clone(&topic));
        Self {
            core,
            role,
            topic,
            place,
            ledger,
            steering,
            readers: BTreeMap::new(),
            ends: BTreeMap::new(),
            last: BTreeSet::new(),
            failing: false,
            newest: (0, 0),
            waiting: None,
            refusals: 0,
            unlisted: None,
        }
    }

    /// Stays in the table until it is stopped; then finishes what is being handled, and leaves.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match stop.run_until_cancelled(self.register()).await {
                Some(Ok(true)) => {}
                Some(Ok(false)) => {
                    let pause = PAUSE.max(backoff(self.refusals));
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    continue;
                }
                Some(Err(error)) => {
                    self.failed(&error);
                    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                    continue;
                }
                None => break,
            }
            self.stay(&stop).await;
            self.end_readers().await;
        }
        self.farewell().await;
    }

    /// Takes a place in the table; `false` while brokers do not list this consumer.
    async fn register(&mut self) -> Result<bool, StoreError> {
        let queues = match self.core.broker.queues(&self.topic.name).await {
            Ok(queues) => queues,
            Err(error) => {
                self.cannot_begin(&error);
                return Ok(false);
            }
        };
        if queues.is_empty() && !self.topic.is_retry {
            self.waits_for("no broker has the topic, waiting for it to be created".to_owned());
        }
        if let Err(refusal) = self.check_filter().await {
            self.cannot_begin(&refusal);
            return Ok(false);
        }
        let (ends, last) = match self.beginnings(&queues).await {
            Ok(beginnings) => beginnings,
            Err(error) => {
                self.cannot_begin(&error);
                return Ok(false);
            }
        };
        let mut wanted = self.ledger.read().await?;
        queues.iter().cloned().for_each(|queue| wanted.add_queue(queue));
        // As late as can be: what takes long up to here would use up the lease.
        let listed = self.place.listed(&wanted);
        if listed.is_empty() {
            let since = *self.unlisted.get_or_insert_with(Instant::now);
            if !queues.is_empty() && since.elapsed() >= self.core.properties.lease / 2 {
                self.waits_for("no broker of its queues answers its heartbeats".to_owned());
            }
            return Ok(false);
        }
        let id = next_id(&self.role.client);
        let step = |table: &mut Ownership| {
            queues.iter().cloned().for_each(|queue| table.add_queue(queue));
            table.leave_all(&self.role.client);
            table.register(id.clone(), self.topic.side);
            Ok::<_, UnknownMember>(())
        };
        let table = match self.ledger.change(step).await {
            Ok((table, ())) => table,
            Err(ChangeError::Store(error)) => return Err(error),
            Err(ChangeError::Step(_)) => return Ok(false),
        };
        debug!(%id, topic = self.topic.name, "registered");
        (self.waiting, self.refusals, self.unlisted) = (None, 0, None);
        (self.ends, self.last) = (ends, last);
        self.place.take(id, &table, listed);
        Ok(true)
    }

    /// Asks brokers about the filter: one that they cannot read would leave nothing out.
    async fn check_filter(&self) -> Result<(), B::Error> {
        if matches!(self.topic.filter, Filter::Tags(_)) {
            return Ok(());
        }
        let (topic, filter) = (self.topic.name.clone(), self.topic.filter.clone());
        let subscription = Subscription { topic, filter, version: self.core.version };
        self.core.broker.accepts(&self.role.client, &self.role.group, &subscription).await
    }

    fn cannot_begin(&mut self, error: &B::Error) {
        self.refusals += 1;
        let causes = gray_config::causes(error);
        self.waits_for(format!("nothing can be consumed yet, trying on: {causes}"));
    }

    /// Says why nothing is consumed yet, once for each reason.
    fn waits_for(&mut self, what: String) {
        if self.waiting.as_ref() != Some(&what) {
            warn!(topic = self.topic.name, group = %self.role.group, "{what}");
            self.waiting = Some(what);
        }
    }

    /// Where queues end that a lane may come to own, and which begin there.
    async fn beginnings(
        &self,
        queues: &BTreeSet<QueueKey>,
    ) -> Result<(BTreeMap<QueueKey, u64>, BTreeSet<QueueKey>), B::Error> {
        let last = beginning_last(&self.core, &self.role, &self.topic, queues).await?;
        Ok((self.ends(queues).await?, last))
    }

    async fn ends(&self, queues: &BTreeSet<QueueKey>) -> Result<BTreeMap<QueueKey, u64>, B::Error> {
        let mut ends = BTreeMap::new();
        if self.topic.side == crate::Side::Base {
            return Ok(ends);
        }
        for queue in queues {
            ends.insert(queue.clone(), self.core.broker.end(&self.topic.name, queue).await?);
        }
        Ok(ends)
    }

    /// Does what a member has to do, for as long as it has its place.
    async fn stay(&mut self, stop: &CancellationToken) {
        let mut changes = self.core.broker.changes();
        self.newest = (0, 0);
        while !stop.is_cancelled() {
            let next = match stop.run_until_cancelled(self.turn()).await {
                Some(Ok(next)) => {
                    self.failing = false;
                    next
                }
                // The table that is known stays in force.
                Some(Err(error)) => {
                    self.failed(&error);
                    Next::Wait
                }
                None => return,
            };
            let pause = match next {
                Next::Wait => self.core.properties.poll,
                Next::LookAgain => BUSY.min(self.core.properties.poll),
                Next::Anew => return,
            };
            if !self.place.is_held() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                _ = changes.changed() => {}
            }
        }
    }

    async fn turn(&mut self) -> Result<Next, StoreError> {
        let table = self.ledger.read().await?;
        let duty = self.place.observe(&table, Instant::now());
        let Some(id) = self.place.id() else { return Ok(Next::Anew) };
        match duty {
            Duty::Nothing => {}
            Duty::Register => return Ok(Next::Anew),
            Duty::Acknowledge(epoch) => {
                fail::fail_point!("before-acknowledge", |_| std::process::abort());
                self.step(|table| table.acknowledge(&id, epoch)).await?;
                fail::fail_point!("after-acknowledge", |_| std::process::abort());
                return Ok(Next::LookAgain);
            }
        }
        // A store of several servers may go back for a moment, to who shared the queues before.
        let seen = (table.roster(), table.epoch());
        if seen.0 < self.newest.0 || seen.1 < self.newest.1 {
            debug!(topic = self.topic.name, ?seen, newest = ?self.newest, "the table is out of date");
            return Ok(Next::Wait);
        }
        self.newest = seen;
        if self.place.is_to_be_renewed(&table) {
            return self.renew(&id, &table).await;
        }
        self.read_share(&id, &table).await?;
        self.place.share(self.steering.shares());
        let busy = self.steering.steer(&self.ledger, &table, &id).await?;
        self.place.see_alive(self.steering.alive());
        Ok(if busy { Next::LookAgain } else { Next::Wait })
    }

    /// Takes a step; whoever is no longer in the table finds out when it looks again.
    async fn step<T>(
        &self,
        step: impl Fn(&mut Ownership) -> Result<T, UnknownMember>,
    ) -> Result<Option<T>, StoreError> {
        match self.ledger.change(step).await {
            Ok((_, taken)) => Ok(Some(taken)),
            Err(ChangeError::Step(error)) => {
                debug!(%error, "taken off the table");
                Ok(None)
            }
            Err(ChangeError::Store(error)) => Err(error),
        }
    }

    async fn renew(&mut self, id: &MemberId, table: &Ownership) -> Result<Next, StoreError> {
        let listed = self.place.listed(table);
        let anew = next_id(&self.role.client);
        let renewed = |table: &mut Ownership| {
            table.renew(id, anew.clone())?;
            Ok(table.clone())
        };
        let Some(table) = self.step(renewed).await? else { return Ok(Next::Anew) };
        self.place.renew(anew, &table, listed);
        Ok(Next::LookAgain)
    }

    /// Reads the queues that are this member's share, and no others.
    async fn read_share(&mut self, id: &MemberId, table: &Ownership) -> Result<(), StoreError> {
        self.add_queues(table).await?;
        let same = table.members().iter().filter(|(_, member)| member.side == self.topic.side);
        let members = same.map(|(id, _)| id.clone()).collect();
        let queues = table.fences().queues().cloned().collect();
        let share = share_of(id, &members, &queues);
        for (queue, reading) in &self.readers {
            if !share.contains(queue) {
                reading.stop.cancel();
            }
        }
        self.readers.retain(|_, reading| !reading.task.is_finished());
        // What is still being handled is still this member's.
        let wanted: BTreeSet<_> = share.iter().chain(self.readers.keys()).cloned().collect();
        let has = table.members().get(id).map(|member| &member.queues);
        if has == Some(&wanted) {
            self.start_readers(&share);
        } else if let Some(free) = self.step(|table| table.claim(id, &wanted)).await? {
            self.start_readers(&share.intersection(&free).cloned().collect());
        }
        Ok(())
    }

    /// Adds queues that the topic has got since.
    async fn add_queues(&self, table: &Ownership) -> Result<(), StoreError> {
        let known: BTreeSet<_> = table.fences().queues().cloned().collect();
        let Ok(queues) = self.core.broker.queues(&self.topic.name).await else { return Ok(()) };
        let new: BTreeSet<_> = queues.difference(&known).cloned().collect();
        if !new.is_empty() {
            info!(topic = self.topic.name, ?new, "the topic has new queues");
            self.step(|table| {
                new.iter().cloned().for_each(|queue| table.add_queue(queue));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    fn start_readers(&mut self, queues: &BTreeSet<QueueKey>) {
        for queue in queues {
            if self.readers.contains_key(queue) {
                continue;
            }
            let reader = Arc::new(Reader {
                core: Arc::clone(&self.core),
                role: Arc::clone(&self.role),
                topic: Arc::clone(&self.topic),
                place: Arc::clone(&self.place),
                queue: queue.clone(),
                end: self.ends.get(queue).copied(),
                from: if self.last.contains(queue) { From::Last } else { From::First },
            });
            let stop = CancellationToken::new();
            let task = tokio::spawn(reader.run(stop.clone()));
            self.readers.insert(queue.clone(), ReaderTask { stop, task });
        }
    }

    /// Ends reading, and waits for what is being handled. Whoever wants to change the table meanwhile
    /// need not wait for that: nothing new is pulled.
    async fn end_readers(&mut self) {
        let mut tasks = JoinSet::new();
        for (_, mut reading) in std::mem::take(&mut self.readers) {
            reading.stop.cancel();
            tasks.spawn(async move {
                // It ends by itself, after a time of its own.
                if let Err(error) = (&mut reading.task).await {
                    warn!(%error, "a reader failed");
                }
            });
        }
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() { return },
                () = tokio::time::sleep(BUSY) => {
                    let agreed = tokio::time::timeout(FAREWELL, self.agree());
                    if let Ok(Err(error)) = agreed.await {
                        debug!(%error, "not acknowledged");
                    }
                }
            }
        }
    }

    async fn agree(&self) -> Result<(), StoreError> {
        let table = self.ledger.read().await?;
        let duty = self.place.observe(&table, Instant::now());
        if let (Duty::Acknowledge(epoch), Some(id)) = (duty, self.place.id()) {
            self.step(|table| table.acknowledge(&id, epoch)).await?;
        }
        Ok(())
    }

    /// Leaves the table, so that others need not wait for this member.
    async fn farewell(&self) {
        let Some(id) = self.place.id() else { return };
        self.place.leave();
        let leave = self.step(|table| {
            table.leave_all(&self.role.client);
            Ok(())
        });
        match tokio::time::timeout(FAREWELL, leave).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%id, %error, "still in the table, until others miss it"),
            Err(_) => warn!(%id, "still in the table, until others miss it"),
        }
    }

    fn failed(&mut self, error: &StoreError) {
        if !self.failing {
            let topic = &self.topic.name;
            warn!(
                topic,
                causes = gray_config::causes(error),
                "the table cannot be had: what is known of it stays in force"
            );
        }
        self.failing = true;
    }
}

/// Names a registration as no other of this process is: whoever reads again as what it was a while ago is
/// somebody else to those who have missed it since.
fn next_id(client: &str) -> MemberId {
    static REGISTRATIONS: AtomicU64 = AtomicU64::new(1);
    MemberId::new(client, REGISTRATIONS.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::BoxFuture;
    use gray_propagation::{GrayStatus, Lane};
    use tokio::sync::{Semaphore, mpsc};

    use super::super::Consumer;
    use super::super::fake::{Case, queue};
    use super::*;
    use crate::{Entry, Messaging, Owner, StateStore};

    /// A server of a store that answers with what it knew a while ago, and writes to the others.
    #[derive(Debug)]
    struct Lagging(Arc<dyn StateStore>, std::sync::Mutex<Option<Entry>>);

    impl StateStore for Lagging {
        fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
            let old = self.1.lock().unwrap().clone();
            Box::pin(async move {
                let now = self.0.read(key).await?;
                Ok(old.or(now))
            })
        }

        fn swap<'a>(
            &'a self,
            key: &'a str,
            seen: Option<&'a Entry>,
            text: &'a str,
        ) -> BoxFuture<'a, Result<bool, StoreError>> {
            self.0.swap(key, seen, text)
        }

        fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
            self.0.keys(prefix)
        }
    }

    /// Whoever once had all queues, and was told so again by a server that lagged behind, read them beside the
    /// one that had got its share meanwhile: messages were handled twice.
    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_out_of_date_gives_nobody_a_queue_back() {
        let case = Case::new(2);
        let lagging = Arc::new(Lagging(Arc::clone(&case.store), std::sync::Mutex::default()));
        let (sender, mut handled) = mpsc::unbounded_channel();
        let messaging = case.messaging(|| GrayStatus::Prod);
        let messaging = Messaging { store: Arc::clone(&lagging) as _, ..messaging };
        let handle = move |delivery: super::super::Delivery| {
            let _ = sender.send(delivery.message.queue.number);
            async { Ok(()) }
        };
        let first =
            Consumer::start(Arc::clone(&case.fake), messaging, Case::properties(), handle).unwrap();
        let shares = |table: &Ownership| -> Vec<usize> {
            table.members().values().map(|member| member.queues.len()).collect()
        };
        case.until(|table| shares(table) == [2]).await;
        let [key] = &case.store.keys("").await.unwrap()[..] else { panic!("several tables") };
        let old = case.store.read(key).await.unwrap();
        let other = Case::properties();
        let other = crate::ConsumerProperties { client: Some("other".to_owned()), ..other };
        let (second, mut others) = case.consume(other);
        case.until(|table| shares(table) == [1, 1]).await;
        tokio::time::sleep(Case::pause()).await;
        *lagging.1.lock().unwrap() = old;
        tokio::time::sleep(Case::pause()).await;
        (0..2).for_each(|number| case.fake.send(number, None));
        let by_second = others.next().await.message.queue.clone();
        tokio::time::sleep(Case::pause()).await;
        let by_first: Vec<u32> = std::iter::from_fn(|| handled.try_recv().ok()).collect();
        assert_eq!(by_first.len(), 1, "{by_first:?} and {by_second}");
        assert_ne!(queue(by_first[0]), by_second);
        *lagging.1.lock().unwrap() = None;
        first.stop().await;
        second.stop().await;
    }

    /// A change waited for one that had lost its place for as long as its handlers took.
    #[tokio::test(start_paused = true)]
    async fn whoever_has_lost_its_place_agrees_while_it_finishes() {
        let case = Case::new(1);
        let (sender, mut begun) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let handle = move |_| {
            let (sender, gate) = (sender.clone(), Arc::clone(&opened));
            async move {
                let _ = sender.send(());
                let _ = gate.acquire().await;
                Ok(())
            }
        };
        let messaging = case.messaging(|| GrayStatus::Prod);
        let consumer =
            Consumer::start(Arc::clone(&case.fake), messaging, Case::properties(), handle).unwrap();
        case.fake.send(0, None);
        begun.recv().await.unwrap();
        case.fake.change(|kept| kept.is_deaf = true);
        // Its lease runs out; it still handles what it has begun, and its brokers still list it.
        tokio::time::sleep(Case::properties().lease).await;
        let switch = |table: &mut Ownership| assert!(table.request(Lane::GRAY, Owner::Lane));
        case.step(switch).await;
        case.until(|table| !table.members().is_empty() && table.awaited().is_empty()).await;
        assert_eq!(gate.available_permits(), 0);
        gate.add_permits(1);
        consumer.stop().await;
    }

    /// An engine that was stopped and started again began at 1 again.
    #[test]
    fn no_two_registrations_of_a_process_share_a_name() {
        let ids: Vec<_> = (0..3).map(|_| next_id("client")).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3, "{ids:?}");
        assert!(ids.iter().all(|id| id.client() == "client"));
    }
}
