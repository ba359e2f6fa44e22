//! Who is there and does not read a topic: a consumer whose filter a broker refuses, for example, says that it
//! is there, and reads its group's retries, but has no place in the table of the topic.

use std::collections::{BTreeMap, BTreeSet};

use gray_propagation::{GrayStatus, Lane, MessageCarrier};

use super::{MemberStatus, TopicStatus};
use crate::{Filter, GroupName, MessageBroker, Ownership, Side, Subscription};

/// Ends what a process of base is known by that reads what a lane has left behind.
const DRAINS: &str = "~drain";

/// Who reads the retries of which group: a consumer of ours, whatever else it reads.
#[derive(Debug, Default)]
pub(super) struct Readers(BTreeMap<String, BTreeSet<String>>);

impl Readers {
    /// Takes who is in the table of a group's retries.
    pub(super) fn add(&mut self, group: String, table: &Ownership) {
        let clients = table.members().keys().map(|id| id.client().to_owned());
        self.0.entry(group).or_default().extend(clients);
    }

    /// Tells whether somebody is in any of the tables.
    pub(super) fn know(&self, client: &str) -> bool {
        self.0.values().any(|clients| clients.contains(client))
    }

    /// Returns whose consumers there are of a group and its twins.
    pub(super) fn sides(&self, group: &str) -> BTreeSet<Side> {
        let Ok(named) = GroupName::new(group) else { return BTreeSet::new() };
        let side = |name: &String| {
            let side = match name.strip_prefix(group)? {
                "" => Side::Base,
                twin => Side::Lane(twin.strip_prefix('_')?.parse::<Lane>().ok()?),
            };
            (named.of(side).as_ref() == Ok(name)).then_some(side)
        };
        self.0.keys().filter_map(side).collect()
    }

    /// Returns those of a side that brokers list and that do not read the topic, although others do or
    /// messages wait: a topic that an application has given up is left alone.
    pub(super) fn not_reading(
        &self,
        status: &TopicStatus,
        listed: &BTreeMap<Side, BTreeSet<String>>,
        table: &Ownership,
    ) -> Vec<MemberStatus> {
        let Ok(named) = GroupName::new(&status.group) else { return Vec::new() };
        let members = table.members().iter().map(|(id, member)| (member.side, id.client()));
        let registered: BTreeSet<_> = members.collect();
        // Of the topics of a group a process may read some in its lane, and those that are not told apart in
        // base.
        let read = registered.iter().filter_map(|(side, client)| process(*side, client));
        let read: BTreeSet<_> = read.collect();
        let in_lanes = listed.iter().filter(|(side, _)| **side != Side::Base);
        let in_lanes = in_lanes.flat_map(|(side, all)| all.iter().map(|it| (*side, it.as_str())));
        let in_lanes: BTreeSet<_> =
            in_lanes.filter_map(|(side, client)| process(side, client)).collect();
        let mut found = Vec::new();
        for (side, clients) in listed {
            let Ok(group) = named.of(*side) else { continue };
            let Some(readers) = self.0.get(&group) else { continue };
            let of_side = status.sides.iter().find(|it| it.lane == side.lane());
            let waits = of_side.is_some_and(|it| it.behind > 0);
            let reads = |client: &str| match process(*side, client) {
                Some(process) if *side == Side::Base && in_lanes.contains(process) => true,
                Some(process) => read.contains(process),
                // It reads the topic only while there is something left.
                None => !waits || !client.ends_with(DRAINS),
            };
            let missing = clients.intersection(readers);
            let missing = missing.filter(|client| !registered.contains(&(*side, client.as_str())));
            for client in missing.filter(|it| !reads(it) && (waits || !registered.is_empty())) {
                let (id, lane, queues) = (client.clone(), side.lane(), Vec::new());
                found.push(MemberStatus { id, lane, queues, listed: Some(true) });
            }
        }
        found
    }
}

/// Returns what the process of a consumer is known by; none where it is there for what a lane has left
/// behind only, or is named otherwise than consumers of the lane are.
fn process(side: Side, client: &str) -> Option<&str> {
    match side {
        Side::Base => Some(client),
        Side::Lane(lane) => client.strip_suffix(lane.as_str())?.strip_suffix('@'),
    }
}

/// Asks brokers whether they refuse the filters of lanes that somebody is in and does not read.
pub(super) async fn ask_about_filters<B: MessageBroker>(broker: &B, status: &mut TopicStatus) {
    let Ok(named) = GroupName::new(&status.group) else { return };
    let in_lanes = status.not_reading.iter().filter_map(|it| Some((it.lane?, &it.id)));
    for (lane, client) in in_lanes.collect::<BTreeMap<_, _>>() {
        let Ok(group) = named.of(Side::Lane(lane)) else { continue };
        let property = MessageCarrier::default();
        let of_lane = format!("{} in ('{}')", property.name(), GrayStatus::Gray(lane));
        let (topic, filter) = (status.topic.clone(), Filter::Sql(of_lane));
        let subscription = Subscription { topic, filter, version: 0 };
        if let Err(refusal) = broker.accepts(client, &group, &subscription).await {
            status.refused.insert(lane.to_string(), gray_config::causes(&refusal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemberId, QueueKey, SideStatus, TopicState};

    const GRAY: Side = Side::Lane(Lane::GRAY);

    fn table(members: &[(Side, &str)]) -> Ownership {
        let mut table = Ownership::default();
        table.add_queue(QueueKey { broker: "a".to_owned(), number: 0 });
        for (side, client) in members {
            table.register(MemberId::new(client, 1), *side);
        }
        table
    }

    fn status(behind: u64) -> TopicStatus {
        let side = |lane| SideStatus {
            lane,
            group: String::new(),
            owner: None,
            behind,
            retries: 0,
            queues: Vec::new(),
        };
        TopicStatus {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            state: TopicState::Steady,
            epoch: 1,
            intent: BTreeMap::default(),
            awaited: Vec::new(),
            pinned: BTreeMap::default(),
            members: Vec::new(),
            strangers: Vec::new(),
            not_reading: Vec::new(),
            refused: BTreeMap::default(),
            sides: vec![side(None), side(Some(Lane::GRAY))],
            unknown: Vec::new(),
        }
    }

    /// Who does not read, of those that are registered in the topic and those that read retries.
    #[track_caller]
    fn check(registered: &[(Side, &str)], there: &[(Side, &str)], behind: u64, expected: &[&str]) {
        let (mut readers, mut listed) = (Readers::default(), BTreeMap::new());
        for (side, client) in there {
            let group = if *side == GRAY { "g_gray" } else { "g" };
            readers.add(group.to_owned(), &table(&[(Side::Base, client)]));
            listed.entry(*side).or_insert_with(BTreeSet::new).insert((*client).to_owned());
        }
        let found = readers.not_reading(&status(behind), &listed, &table(registered));
        let clients: Vec<_> = found.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(clients, expected, "{registered:?} {there:?}");
    }

    #[test]
    fn who_reads_its_retries_only_is_found() {
        let (base, gray) = ((Side::Base, "a@1#x"), (GRAY, "b@1#x@gray"));
        check(&[base, gray], &[base, gray], 9, &[]);
        check(&[base], &[base, gray], 0, &["b@1#x@gray"]);
        check(&[gray], &[base, gray], 0, &["a@1#x"]);
        // Nobody reads a topic that the application has given up; unless something is to be read.
        check(&[], &[base, gray], 0, &[]);
        check(&[], &[base, gray], 1, &["a@1#x", "b@1#x@gray"]);
    }

    #[test]
    fn who_reads_the_topic_by_another_name_reads_it() {
        // Of two topics of a group one is told apart, and the other is not.
        let (base, gray) = ((Side::Base, "a@1#x"), (GRAY, "a@1#x@gray"));
        check(&[base], &[base, gray], 1, &[]);
        check(&[gray], &[base, gray], 1, &[]);
        check(&[(Side::Base, "other")], &[base, gray], 1, &["a@1#x@gray"]);
        // Who drains a lane reads what is left, and retries.
        let drain = (GRAY, "a@1#x@gray~drain");
        check(&[base], &[base, drain], 0, &[]);
        check(&[base], &[base, drain], 1, &["a@1#x@gray~drain"]);
        check(&[base, drain], &[base, drain], 1, &[]);
        // A group of its own that is named like a twin.
        check(&[base], &[base, (GRAY, "c@1#x")], 1, &[]);
    }

    #[test]
    fn groups_are_known_by_those_who_read_their_retries() {
        let mut readers = Readers::default();
        for group in ["g", "g_gray", "g_x_gray", "g2", "g_no.lane", "other"] {
            readers.add(group.to_owned(), &table(&[(Side::Base, group)]));
        }
        assert_eq!(readers.sides("g"), [Side::Base, GRAY].into());
        assert_eq!(readers.sides("g_x"), [GRAY].into());
        assert!(readers.know("other") && !readers.know("another"));
    }
}
