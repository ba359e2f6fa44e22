use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::FutureExt;
use gray_propagation::Lane;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::core::{ConsumerProperties, Core, DRAINS, Delivery, HandlerError, Role};
use super::counts::Counts;
use super::drain::{is_drained, left_behind};
use super::engine::Engine;
use crate::{GroupName, InvalidGroup, Ledger, MessageBroker, Messaging, OwnStatus, Seat, Side};

/// How often it is looked at whether this process reads what it should.
const LOOK: Duration = Duration::from_secs(1);

/// Consumes the messages that belong to this process's lane, each handled in the lane that it was
/// produced in.
///
/// In base, and where lanes are not told apart, it is a member of the group that it is given; in a
/// lane, of the group's twin there (see [`GroupName`]). Which it is follows the configuration. Dropped,
/// it stops at once: what is being handled comes again.
#[derive(Debug)]
pub struct Consumer {
    client: String,
    counts: Counts,
    stop: CancellationToken,
    run: JoinSet<()>,
}

/// Why a consumer was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// Its group, or the twin in this process's lane, cannot be had.
    #[error(transparent)]
    Group(#[from] InvalidGroup),
    /// Another one of the group consumes over the same connections, of which brokers would list one only.
    #[error(
        "group `{0}` has a consumer over these connections already: handle more at a time there \
         (`concurrency`), or give this one connections of its own"
    )]
    Taken(String),
}

impl Consumer {
    /// Starts to consume, in the background.
    ///
    /// The handler is called once for each message, many at a time, in the message's context: what it
    /// calls through `GrayClient`, and produces, goes to the message's lane. Where it fails or panics
    /// the message comes again.
    ///
    /// # Errors
    ///
    /// Where the group, or its twin in this process's lane, cannot be had, and where the group has another
    /// consumer over the same connections.
    pub fn start<B, H, F>(
        broker: Arc<B>,
        messaging: Messaging,
        properties: ConsumerProperties,
        handler: H,
    ) -> Result<Self, ConsumerError>
    where
        B: MessageBroker,
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let group = GroupName::new(&properties.group)?;
        if let Some(lane) = messaging.own.current().lane().copied() {
            group.of(Side::Lane(lane))?;
        }
        let seat = broker.take_seat(group.as_str());
        let seat = seat.ok_or_else(|| ConsumerError::Taken(group.as_str().to_owned()))?;
        let client = properties.client.clone().unwrap_or_else(client);
        let version = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let counts = Counts::default();
        let core = Arc::new(Core {
            broker,
            store: messaging.store,
            settings: messaging.settings,
            application: messaging.application.into(),
            group,
            permits: Arc::new(Semaphore::new(properties.concurrency.max(1))),
            properties,
            carrier: messaging.carrier,
            handle: Box::new(move |delivery| handler(delivery).boxed()),
            counts: counts.clone(),
            version: u64::try_from(version.as_millis()).unwrap_or_default(),
        });
        let stop = CancellationToken::new();
        let mut run = JoinSet::new();
        let supervisor = Supervisor {
            core,
            own: messaging.own,
            client: client.clone(),
            running: BTreeMap::new(),
            refused: None,
            drained: BTreeMap::new(),
            _seat: seat,
        };
        run.spawn(supervisor.run(stop.clone()));
        Ok(Self { client, counts, stop, run })
    }

    /// Returns what it is known by to brokers.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Returns what became of messages.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Stops: what is being handled is finished, within the time that it may take, and committed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.run.join_next().await.is_some() {}
    }
}

/// What a consumer is known by that is not told: the machine, the process, and a word that no other
/// start of it has.
fn client() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map_or_else(|_| "host".to_owned(), |host| host.trim().to_owned());
    format!("{host}@{}#{:08x}", std::process::id(), fastrand::u32(..))
}

/// Has this process read what it should, whatever the configuration says and whoever is alive.
struct Supervisor<B> {
    core: Arc<Core<B>>,
    own: OwnStatus,
    client: String,
    running: BTreeMap<String, (Role, Engine)>,
    /// What was last said of why nothing is consumed in the lane of this process.
    refused: Option<InvalidGroup>,
    /// What of a topic a lane had left behind has been read, by the epoch in which it was closed.
    drained: BTreeMap<(Lane, String), u64>,
    /// Given up when all of them have gone.
    _seat: Seat,
}

impl<B: MessageBroker> Supervisor<B> {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let wanted = self.wanted().await;
            // Who changes sides leaves one before joining the other.
            let gone: Vec<String> = self
                .running
                .iter()
                .filter(|(client, (role, _))| wanted.get(*client) != Some(role))
                .map(|(client, _)| client.clone())
                .collect();
            for client in gone {
                if let Some((_, engine)) = self.running.remove(&client) {
                    engine.stop().await;
                }
            }
            for (client, role) in wanted {
                let core = &self.core;
                let start = || (role.clone(), Engine::start(core, role));
                self.running.entry(client).or_insert_with(start);
            }
            stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        }
        let mut stopping = JoinSet::new();
        for (_, (_, engine)) in self.running {
            stopping.spawn(engine.stop());
        }
        while stopping.join_next().await.is_some() {}
    }

    /// The consumers that this process should be, by what they are known by.
    async fn wanted(&mut self) -> BTreeMap<String, Role> {
        let isolates = |topic: &String| self.core.settings_of(topic).mode.isolates();
        let topics = self.core.properties.topics.clone();
        let (own, common): (Vec<_>, Vec<_>) = topics.iter().cloned().partition(isolates);
        let mut roles = Vec::new();
        let lane = self.own.current().lane().copied();
        self.say_refused(lane.filter(|_| !own.is_empty()));
        if let Some(lane) = lane {
            roles.push(self.role(Side::Lane(lane), own, ""));
            roles.push(self.role(Side::Base, common, ""));
        } else {
            roles.push(self.role(Side::Base, topics, ""));
            for (lane, topics) in self.left_behind().await {
                roles.push(self.role(Side::Lane(lane), topics, DRAINS));
            }
        }
        // What reads what a lane has left behind reads its retries in any case.
        let reads = |role: &Role| !role.topics.is_empty() || role.drains();
        let roles = roles.into_iter().flatten().filter(reads);
        roles.map(|role| (role.client.to_string(), role)).collect()
    }

    /// Says once why nothing is consumed in a lane that this process has got since it was started.
    fn say_refused(&mut self, lane: Option<Lane>) {
        let group = lane.map_or(Ok(String::new()), |lane| self.core.group.of(Side::Lane(lane)));
        let refused = group.err();
        if let (Some(error), Some(lane)) = (&refused, lane)
            && self.refused != refused
        {
            let group = self.core.group.as_str();
            warn!(%lane, group, %error, "nothing is consumed in the lane of this process");
        }
        self.refused = refused;
    }

    fn role(&self, side: Side, topics: Vec<String>, mark: &str) -> Option<Role> {
        // A lane without a group has no consumers.
        let group = self.core.group.of(side).ok()?;
        let client = match side {
            Side::Base => format!("{}{mark}", self.client),
            Side::Lane(lane) => format!("{}@{lane}{mark}", self.client),
        };
        Some(Role { side, group: group.into(), client: client.into(), topics })
    }

    /// The lanes that have left something behind and have no consumers to read it, each with the
    /// topics of which that has not been read yet.
    async fn left_behind(&mut self) -> BTreeMap<Lane, Vec<String>> {
        let mut left = BTreeMap::<Lane, Vec<String>>::new();
        for topic in &self.core.properties.topics {
            let ledger = Ledger::new(Arc::clone(&self.core.store), self.core.group.as_str(), topic);
            let table = match ledger.read().await {
                Ok(table) => table,
                // What this process reads stays as it is.
                Err(error) => {
                    debug!(%error, "what lanes have left behind is not known");
                    return self.draining();
                }
            };
            for lane in left_behind(&table) {
                let topics = left.entry(lane).or_default();
                let known = self.drained.get(&(lane, topic.clone())) == Some(&table.epoch());
                if known || is_drained(&self.core, &table, topic, lane).await {
                    self.drained.insert((lane, topic.clone()), table.epoch());
                } else {
                    topics.push(topic.clone());
                }
            }
        }
        left
    }

    fn draining(&self) -> BTreeMap<Lane, Vec<String>> {
        let drains = self.running.values().filter(|(role, _)| role.drains());
        drains.filter_map(|(role, _)| Some((role.side.lane()?, role.topics.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use gray_propagation::GrayStatus;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::super::fake::Case;
    use super::super::warnings::Warnings;
    use super::*;

    /// It was left out at the start only; whoever got such a lane later consumed nothing, and said nothing.
    #[tokio::test(start_paused = true)]
    async fn a_lane_that_gets_no_group_while_it_runs_is_warned_of_once() {
        let (warnings, _guard) = Warnings::listen();
        let case = Case::new(1);
        let own = Arc::new(Mutex::new(GrayStatus::Prod));
        let asked = Arc::clone(&own);
        let messaging = case.messaging(move || *asked.lock().unwrap());
        let (sender, mut handled) = mpsc::unbounded_channel();
        let handle = move |delivery| {
            let _ = sender.send(delivery);
            async { Ok(()) }
        };
        let consumer =
            Consumer::start(Arc::clone(&case.fake), messaging, Case::properties(), handle).unwrap();
        case.fake.send(0, None);
        assert_eq!(handled.recv().await.unwrap().side, Side::Base);
        *own.lock().unwrap() = GrayStatus::Gray("team_a".parse().unwrap());
        // It is looked several times.
        case.until(|table| table.members().is_empty()).await;
        tokio::time::sleep(5 * LOOK).await;
        let said = warnings.with("lane=team_a ");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("lane `team_a` has no consumer group"), "{said:?}");
        consumer.stop().await;
    }

    /// What was being handled went on for half a minute, and was committed.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_dropped_stops_at_once() {
        let case = Case::new(1);
        let (sender, mut begun) = mpsc::unbounded_channel();
        let (ended, mut ends) = mpsc::channel::<()>(1);
        let handle = move |_| {
            let (sender, ended) = (sender.clone(), ended.clone());
            async move {
                let _ = sender.send(());
                std::future::pending::<()>().await;
                drop(ended);
                Ok(())
            }
        };
        let messaging = case.messaging(|| GrayStatus::Prod);
        let consumer =
            Consumer::start(Arc::clone(&case.fake), messaging, Case::properties(), handle).unwrap();
        case.fake.send(0, None);
        begun.recv().await.unwrap();
        let dropped = Instant::now();
        drop(consumer);
        assert_eq!(ends.recv().await, None);
        assert_eq!(dropped.elapsed(), Duration::ZERO);
        case.fake.until(|kept| kept.committed.is_empty()).await;
    }
}
