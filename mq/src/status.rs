mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gray_propagation::Lane;
use serde::Serialize;

use self::reading::{Readers, ask_about_filters};
use crate::{
    GroupName, Ledger, MemberId, MessageBroker, Owner, Ownership, QueueKey, Side, StateStore,
    StoreError,
};

/// How the messages of one consumer group and topic stand, for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// The consumer group, as it is in the base environment.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// What is going on.
    pub state: TopicState,
    /// Counts changes of who may handle what.
    pub epoch: u64,
    /// What is to be changed, where something is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub intent: BTreeMap<String, Owner>,
    /// The members that have not agreed to that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<String>,
    /// What an operator has decided over everything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned: BTreeMap<String, Owner>,
    /// The consumers.
    pub members: Vec<MemberStatus>,
    /// Who consumes in one of the groups, by its brokers' word, without being registered for any of
    /// its topics: no consumer of ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<String>,
    /// Consumers of ours that brokers list in one of the groups and that do not read the topic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_reading: Vec<MemberStatus>,
    /// Why a broker refuses the filter of a lane that some of these are in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, String>,
    /// What each group has still to read: base's first.
    pub sides: Vec<SideStatus>,
    /// What could not be found out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// What is going on with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TopicState {
    /// Nothing is to be changed.
    Steady,
    /// Members are asked to agree to a change.
    Agreeing,
    /// Everybody has agreed, and fences are to be written.
    Fencing,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its registration; where it has none, what it is known by to its brokers.
    pub id: String,
    /// The lane that it is in; none in base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// The queues that it reads.
    pub queues: Vec<QueueKey>,
    /// Whether brokers list it; not said where they do not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<bool>,
}

/// What the consumers of a side have still to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SideStatus {
    /// The lane; none for base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// Its consumer group.
    pub group: String,
    /// Who owns what is produced in the lane now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// How many offsets the group is behind, all queues together: at most so many of its messages.
    pub behind: u64,
    /// How many of the group's retries have come and are to be read.
    pub retries: u64,
    /// Where each queue stands.
    pub queues: Vec<QueueStatus>,
}

/// Where a group stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The queue.
    pub queue: QueueKey,
    /// What has been committed; none where nothing ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<u64>,
    /// Up to where the group has to read: the end of the queue, or the fence behind which nothing is
    /// its own.
    pub until: u64,
    /// Where the queue ends.
    pub end: u64,
    /// The last fence of the lane in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// How many offsets the group is behind in it.
    pub behind: u64,
}

/// Returns how all topics stand that a store has tables of.
///
/// # Errors
///
/// Where the store fails. What brokers do not answer is said in the status.
pub async fn status<B: MessageBroker>(
    broker: &B,
    store: &Arc<dyn StateStore>,
) -> Result<Vec<TopicStatus>, StoreError> {
    let (mut tables, mut readers) = (Vec::new(), Readers::default());
    for key in store.keys("graylane.mq.").await? {
        let Some((group, topic)) = Ledger::names(&key) else { continue };
        let table = Ledger::new(Arc::clone(store), &group, &topic).read().await?;
        // The tables of retries only say who reads them: who drains a lane may read nothing else.
        if broker.retry_topic(&group).as_ref() == Some(&topic) {
            readers.add(group, &table);
            continue;
        }
        tables.push((group, topic, table));
    }
    let names: BTreeSet<_> = tables.iter().map(|(group, topic, _)| (group, topic)).collect();
    let mut all = Vec::new();
    for (group, topic, table) in &tables {
        let mut status = of_topic(broker, group.clone(), topic.clone(), table, &readers).await;
        status.strangers.retain(|client| !readers.know(client));
        let of_group = names.iter().filter(|(name, _)| *name == group).map(|(_, topic)| *topic);
        look_again(broker, store, &mut status, of_group).await?;
        ask_about_filters(broker, &mut status).await;
        all.push(status);
    }
    Ok(all)
}

/// Leaves out who has registered meanwhile, or has left.
async fn look_again<'a, B: MessageBroker>(
    broker: &B,
    store: &Arc<dyn StateStore>,
    status: &mut TopicStatus,
    topics: impl Iterator<Item = &'a String>,
) -> Result<(), StoreError> {
    if status.strangers.is_empty() && status.not_reading.is_empty() {
        return Ok(());
    }
    let clients = async |group: &str, topic: &str| {
        let table = Ledger::new(Arc::clone(store), group, topic).read().await?;
        let clients = table.members().keys().map(|id| id.client().to_owned());
        Ok::<BTreeSet<_>, StoreError>(clients.collect())
    };
    for topic in topics {
        let registered = clients(&status.group, topic).await?;
        status.strangers.retain(|client| !registered.contains(client));
        if *topic == status.topic {
            status.not_reading.retain(|it| !registered.contains(&it.id));
        }
    }
    let lanes: BTreeSet<_> = status.not_reading.iter().map(|it| it.lane).collect();
    for lane in lanes {
        let side = lane.map_or(Side::Base, Side::Lane);
        let group = GroupName::new(&status.group).and_then(|group| group.of(side));
        let Ok(group) = group else { continue };
        let Some(retries) = broker.retry_topic(&group) else { continue };
        let there = clients(&group, &retries).await?;
        status.not_reading.retain(|it| it.lane != lane || there.contains(&it.id));
    }
    Ok(())
}

async fn of_topic<B: MessageBroker>(
    broker: &B,
    group: String,
    topic: String,
    table: &Ownership,
    readers: &Readers,
) -> TopicStatus {
    let mut unknown = Vec::new();
    // Brokers are known by the topics that lead to them.
    if let Err(error) = broker.queues(&topic).await {
        unknown.push(format!("where the queues of {topic} are: {error}"));
    }
    let awaited: Vec<_> = match table.intent() {
        Some(_) => table.awaited().iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    let state = match table.intent() {
        None => TopicState::Steady,
        Some(_) if awaited.is_empty() => TopicState::Fencing,
        Some(_) => TopicState::Agreeing,
    };
    let named = |lanes: &BTreeMap<Lane, Owner>| {
        lanes.iter().map(|(lane, owner)| (lane.to_string(), *owner)).collect()
    };
    let in_groups = sides(table).into_iter().chain(readers.sides(&group)).collect();
    let listed = listed(broker, &group, table, in_groups, &mut unknown).await;
    let (members, strangers) = members(table, &listed);
    let mut status = TopicStatus {
        state,
        epoch: table.epoch(),
        intent: table.intent().map(|intent| named(&intent.lanes)).unwrap_or_default(),
        awaited,
        pinned: named(table.pinned()),
        members,
        strangers,
        not_reading: Vec::new(),
        refused: BTreeMap::new(),
        sides: Vec::new(),
        unknown: Vec::new(),
        group,
        topic,
    };
    for side in sides(table) {
        match of_side(broker, &status, table, side).await {
            Ok(side) => status.sides.push(side),
            Err(error) => unknown.push(error),
        }
    }
    status.not_reading = readers.not_reading(&status, &listed, table);
    status.unknown = unknown;
    status
}

/// Returns base, and every lane that a table knows.
fn sides(table: &Ownership) -> BTreeSet<Side> {
    let lanes = table.fences().lanes().into_iter().chain(table.open().clone());
    let of_members = table.members().values().map(|member| member.side);
    lanes.map(Side::Lane).chain(of_members).chain([Side::Base]).collect()
}

/// Returns whom brokers list in the groups of these sides, as far as they answer.
async fn listed<B: MessageBroker>(
    broker: &B,
    group: &str,
    table: &Ownership,
    sides: BTreeSet<Side>,
    unknown: &mut Vec<String>,
) -> BTreeMap<Side, BTreeSet<String>> {
    let brokers = table.fences().queues().map(|queue| queue.broker.clone()).collect();
    let mut listed = BTreeMap::new();
    for side in sides {
        let Ok(name) = GroupName::new(group).and_then(|group| group.of(side)) else { continue };
        match broker.listed(&name, &brokers).await {
            Ok(clients) => drop(listed.insert(side, clients)),
            Err(error) => unknown.push(format!("who is in {name}: {error}")),
        }
    }
    listed
}

/// Returns the consumers of a table, and those that brokers list beside them.
fn members(
    table: &Ownership,
    listed: &BTreeMap<Side, BTreeSet<String>>,
) -> (Vec<MemberStatus>, Vec<String>) {
    let member = |(id, member): (&MemberId, &crate::Member)| MemberStatus {
        id: id.to_string(),
        lane: member.side.lane(),
        queues: member.queues.iter().cloned().collect(),
        listed: listed.get(&member.side).map(|clients| clients.contains(id.client())),
    };
    let all: BTreeSet<_> = listed.values().flatten().collect();
    let known: BTreeSet<&str> = table.members().keys().map(MemberId::client).collect();
    let strangers = all.into_iter().filter(|client| !known.contains(client.as_str()));
    let strangers = strangers.cloned().collect();
    (table.members().iter().map(member).collect(), strangers)
}

async fn of_side<B: MessageBroker>(
    broker: &B,
    status: &TopicStatus,
    table: &Ownership,
    side: Side,
) -> Result<SideStatus, String> {
    let group = GroupName::new(&status.group).and_then(|group| group.of(side));
    let group = group.map_err(|error| error.to_string())?;
    let failed = |error: B::Error| format!("where {group} stands: {error}");
    let mut queues = Vec::new();
    let mut behind = 0;
    for queue in table.fences().queues() {
        let committed = broker.committed(&group, &status.topic, queue).await.map_err(failed)?;
        let end = broker.end(&status.topic, queue).await.map_err(failed)?;
        let (first, until) = bounds(table, queue, side, end);
        let left = until.saturating_sub(committed.unwrap_or_default().max(first));
        behind += left;
        let fence = side.lane().and_then(|lane| table.fences().of(queue, lane).last());
        let (queue, fence) = (queue.clone(), fence.map(|fence| fence.from));
        queues.push(QueueStatus { queue, committed, until, end, fence, behind: left });
    }
    let owner_of = |lane| if table.is_open(lane) { Owner::Lane } else { Owner::Base };
    let owner = side.lane().map(owner_of);
    let retries = retries(broker, &group).await.map_err(failed)?;
    Ok(SideStatus { lane: side.lane(), group: group.clone(), owner, behind, retries, queues })
}

/// From where to where a side owns anything of a queue.
fn bounds(table: &Ownership, queue: &QueueKey, side: Side, end: u64) -> (u64, u64) {
    let Side::Lane(lane) = side else { return (0, end) };
    let fences = table.fences().of(queue, lane);
    let first = fences.iter().find(|fence| fence.owner == Owner::Lane).map_or(end, |it| it.from);
    let until = match fences.last() {
        Some(fence) if fence.owner == Owner::Base => fence.from,
        _ => end,
    };
    (first, until)
}

async fn retries<B: MessageBroker>(broker: &B, group: &str) -> Result<u64, B::Error> {
    let Some(topic) = broker.retry_topic(group) else { return Ok(0) };
    let mut left = 0;
    for queue in broker.queues(&topic).await? {
        let end = broker.end(&topic, &queue).await?;
        let committed = broker.committed(group, &topic, &queue).await?;
        left += end.saturating_sub(committed.unwrap_or_default());
    }
    Ok(left)
}
