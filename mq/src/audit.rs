//! What is wrong, or waits for somebody, with the messages of lanes: found in what the table, the
//! brokers and the offsets say, without changing any of it.

use serde::Serialize;

use crate::{MemberStatus, Owner, QueueStatus, SideStatus, TopicState, TopicStatus};

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The consumer group, as it is in the base environment.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// How bad it is.
    pub severity: Severity,
    /// A word for machines.
    pub code: &'static str,
    /// What was found, and what to do.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Messages wait, or something is under way for longer than it should be.
    Warning,
    /// Messages may be handled by the wrong consumers, or are lost.
    Error,
}

/// Finds what is wrong with a topic.
pub fn audit(status: &TopicStatus) -> Vec<Finding> {
    let mut findings = Findings { status, found: Vec::new() };
    findings.of_members();
    findings.of_those_who_do_not_read();
    findings.of_switch();
    for side in &status.sides {
        findings.of_side(side);
    }
    for unknown in &status.unknown {
        findings.add(Severity::Warning, "unknown", format!("it cannot be found out {unknown}"));
    }
    findings.found
}

struct Findings<'a> {
    status: &'a TopicStatus,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, severity: Severity, code: &'static str, message: String) {
        let (group, topic) = (self.status.group.clone(), self.status.topic.clone());
        self.found.push(Finding { group, topic, severity, code, message });
    }

    fn of_members(&mut self) {
        for stranger in &self.status.strangers {
            let message = format!(
                "{stranger} consumes without being registered: it handles messages of any lane; stop \
                 it, or give it a consumer group of its own"
            );
            self.add(Severity::Error, "stranger", message);
        }
        for member in self.status.members.iter().filter(|member| member.listed == Some(false)) {
            let message = format!(
                "{} is registered, and no broker lists it: others take it off when it has been missed \
                 for as long as its lease; where nobody is left, the next consumer that starts does",
                member.id
            );
            self.add(Severity::Warning, "unlisted", message);
        }
    }

    fn of_those_who_do_not_read(&mut self) {
        let topic = &self.status.topic;
        for it in &self.status.not_reading {
            let lane = it.lane.map_or_else(|| "base".to_owned(), |lane| lane.to_string());
            let why = match self.status.refused.get(&lane) {
                Some(refusal) => format!("its filter is refused: {refusal}"),
                None => {
                    "its log says why, the broker may refuse its filter (enablePropertyFilter); \
                         where it starts or stops just now, look at it again"
                        .to_owned()
                }
            };
            let message = format!("{} of {lane} is there and does not read {topic}: {why}", it.id);
            self.add(Severity::Warning, "notReading", message);
        }
    }

    fn of_switch(&mut self) {
        let waits_for = match self.status.state {
            TopicState::Steady => return,
            TopicState::Agreeing => format!("{} has not agreed", self.status.awaited.join(", ")),
            TopicState::Fencing => "no consumer has written the fences yet".to_owned(),
        };
        let lanes: Vec<_> = self.status.intent.keys().map(String::as_str).collect();
        let message = format!(
            "{} is being switched, and {waits_for}: what is new in the lane waits meanwhile",
            lanes.join(", ")
        );
        self.add(Severity::Warning, "switching", message);
    }

    fn of_side(&mut self, side: &SideStatus) {
        for queue in &side.queues {
            self.of_what_is_lost(side, queue);
        }
        let of_side = |member: &&MemberStatus| member.lane == side.lane;
        let mut members = self.status.members.iter().filter(of_side).peekable();
        let nobody = members.peek().is_none();
        let read: Vec<_> = members.flat_map(|member| &member.queues).collect();
        if nobody {
            self.of_empty_side(side);
            return;
        }
        let unread = side.queues.iter().filter(|queue| queue.behind > 0);
        let unread: Vec<_> = unread
            .map(|it| &it.queue)
            .filter(|it| !read.contains(it))
            .map(ToString::to_string)
            .collect();
        if !unread.is_empty() && self.status.state == TopicState::Steady {
            let message = format!(
                "nobody of {} reads {}, where messages wait: queues are dealt out anew within a few \
                 seconds, so look at it again",
                side.group,
                unread.join(", ")
            );
            self.add(Severity::Warning, "unread", message);
        }
    }

    /// Says where a queue ends before what somebody knows of it.
    fn of_what_is_lost(&mut self, side: &SideStatus, at: &QueueStatus) {
        let QueueStatus { queue, end, .. } = at;
        if let Some(committed) = at.committed.filter(|committed| committed > end) {
            let message = format!(
                "{} has committed {committed} in {queue}, which ends at {end}: the broker has lost \
                 messages, and new ones below that offset will be skipped; reset the group's offset",
                side.group
            );
            self.add(Severity::Error, "wentBack", message);
        }
        if let (Some(lane), Some(fence)) = (side.lane, at.fence.filter(|fence| fence > end)) {
            let message = format!(
                "{queue} ends at {end}, before the last fence of {lane} at {fence}: the broker has lost \
                 messages, and until the queue has come so far again new ones of {lane} belong to whom \
                 they did before that fence, and {lane} cannot be switched"
            );
            self.add(Severity::Error, "fenceAhead", message);
        }
    }

    /// Says what waits for a side that has no consumer.
    fn of_empty_side(&mut self, side: &SideStatus) {
        let waits = side.behind + side.retries;
        if waits == 0 {
            return;
        }
        let base_is_there = self.status.members.iter().any(|member| member.lane.is_none());
        let there = self.status.not_reading.iter().filter(|it| it.lane == side.lane).count();
        let what_now = match (side.lane, side.owner) {
            (Some(lane), Some(Owner::Lane)) if there > 0 => format!(
                "{there} are in the group and do not read it (notReading); `graylane mq drain` gives to \
                 base what is produced in {lane} from now on"
            ),
            _ if there > 0 => format!("{there} are in the group and do not read it (notReading)"),
            (Some(lane), Some(Owner::Lane)) => {
                format!("start one, or give {lane} to base with `graylane mq drain`")
            }
            (Some(_), _) if base_is_there => "consumers of base are draining it".to_owned(),
            _ => "start a consumer".to_owned(),
        };
        let message = format!(
            "{} has no consumer, and at most {waits} messages wait for one; {what_now}",
            side.group
        );
        self.add(Severity::Warning, "waiting", message);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gray_propagation::Lane;

    use super::*;
    use crate::QueueKey;

    fn queue() -> QueueKey {
        QueueKey { broker: "a".to_owned(), number: 0 }
    }

    fn side(lane: Option<Lane>, owner: Option<Owner>, behind: u64) -> SideStatus {
        let committed = Some(10 - behind);
        let (until, end, fence) = (10, 10, lane.map(|_| 4));
        let queues = vec![QueueStatus { queue: queue(), committed, until, end, fence, behind }];
        SideStatus { lane, group: "g".to_owned(), owner, behind, retries: 0, queues }
    }

    fn member(lane: Option<Lane>) -> MemberStatus {
        MemberStatus { id: "one".to_owned(), lane, queues: vec![queue()], listed: Some(true) }
    }

    fn status() -> TopicStatus {
        TopicStatus {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            state: TopicState::Steady,
            epoch: 1,
            intent: BTreeMap::default(),
            awaited: Vec::new(),
            pinned: BTreeMap::default(),
            members: vec![member(None), member(Some(Lane::GRAY))],
            strangers: Vec::new(),
            not_reading: Vec::new(),
            refused: BTreeMap::default(),
            sides: vec![side(None, None, 3), side(Some(Lane::GRAY), Some(Owner::Lane), 3)],
            unknown: Vec::new(),
        }
    }

    #[track_caller]
    fn check(status: &TopicStatus, expected: &[(Severity, &str)]) {
        let found: Vec<_> = audit(status).iter().map(|it| (it.severity, it.code)).collect();
        assert_eq!(found, expected, "{status:#?}");
    }

    #[test]
    fn what_is_well_is_left_alone() {
        check(&status(), &[]);
    }

    #[test]
    fn who_is_there_and_should_not_be_is_an_error() {
        let strangers = vec!["10.0.0.9@7#java".to_owned()];
        check(&TopicStatus { strangers, ..status() }, &[(Severity::Error, "stranger")]);
        let mut silent = status();
        silent.members.iter_mut().for_each(|member| member.listed = Some(false));
        check(&silent, &[(Severity::Warning, "unlisted"), (Severity::Warning, "unlisted")]);
    }

    #[test]
    fn messages_that_nobody_reads_are_told_of() {
        let mut nobody = status();
        nobody.members.truncate(1);
        check(&nobody, &[(Severity::Warning, "waiting")]);
        assert!(audit(&nobody)[0].message.contains("graylane mq drain"), "{nobody:?}");
        nobody.sides[1].owner = Some(Owner::Base);
        assert!(audit(&nobody)[0].message.contains("draining"), "{nobody:?}");
        nobody.members.clear();
        check(&nobody, &[(Severity::Warning, "waiting"), (Severity::Warning, "waiting")]);
        let mut elsewhere = status();
        elsewhere.members[0].queues.clear();
        check(&elsewhere, &[(Severity::Warning, "unread")]);
    }

    /// A gray consumer whose filter its broker refused was told to be started, or all was well.
    #[test]
    fn who_is_there_and_does_not_read_is_told_of() {
        let mut refused = status();
        refused.members.truncate(1);
        refused.not_reading = vec![member(Some(Lane::GRAY))];
        check(&refused, &[(Severity::Warning, "notReading"), (Severity::Warning, "waiting")]);
        let said = |status: &TopicStatus, number: usize| audit(status)[number].message.clone();
        assert!(said(&refused, 0).contains("enablePropertyFilter"), "{}", said(&refused, 0));
        assert!(!said(&refused, 1).contains("start"), "{}", said(&refused, 1));
        refused.sides[1].owner = Some(Owner::Base);
        assert!(!said(&refused, 1).contains("draining"), "{}", said(&refused, 1));
        refused.refused = [("gray".to_owned(), "no such thing".to_owned())].into();
        let expected = "its filter is refused: no such thing";
        assert!(said(&refused, 0).ends_with(expected), "{}", said(&refused, 0));
        refused.sides.truncate(1);
        check(&refused, &[(Severity::Warning, "notReading")]);
    }

    #[test]
    fn a_switch_and_a_broker_that_went_back_are_told_of() {
        let awaited = vec!["one".to_owned()];
        let state = TopicState::Agreeing;
        check(&TopicStatus { state, awaited, ..status() }, &[(Severity::Warning, "switching")]);
        let state = TopicState::Fencing;
        check(&TopicStatus { state, ..status() }, &[(Severity::Warning, "switching")]);
        let mut back = status();
        back.sides[0].queues[0].committed = Some(11);
        check(&back, &[(Severity::Error, "wentBack")]);
        let mut back = status();
        back.sides[1].queues[0].fence = Some(10);
        check(&back, &[]);
        back.sides[1].queues[0].fence = Some(11);
        check(&back, &[(Severity::Error, "fenceAhead")]);
        let unknown = vec!["where it stands: no answer".to_owned()];
        check(&TopicStatus { unknown, ..status() }, &[(Severity::Warning, "unknown")]);
    }
}
