use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use gray_mq::{Finding, Owner, Severity, SideStatus, TopicState, TopicStatus};

use super::{NO_TABLE, WRONG, say};

/// Prints how the topics stand that are asked for.
pub(super) fn status(
    mut topics: Vec<TopicStatus>,
    fits: impl Fn(&TopicStatus) -> bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let name = |status: &TopicStatus| format!("{} {}", status.group, status.topic);
    let known: Vec<_> = topics.iter().map(name).collect();
    topics.retain(fits);
    if topics.is_empty() {
        let nothing = match known.as_slice() {
            [] => NO_TABLE.to_owned(),
            known => format!("there is no such group and topic; there are: {}", known.join(", ")),
        };
        return say_nothing(&nothing, json);
    }
    if json {
        return say(&serde_json::to_string_pretty(&topics)?);
    }
    say(topics.iter().map(show).collect::<Vec<_>>().join("\n\n").trim_end())
}

/// Prints what is wrong with topics, and says by the exit code how bad it is.
pub(super) fn audit(topics: &[TopicStatus], json: bool) -> anyhow::Result<ExitCode> {
    if topics.is_empty() {
        return say_nothing(NO_TABLE, json);
    }
    let all: Vec<_> = topics.iter().flat_map(gray_mq::audit).collect();
    say(&if json { serde_json::to_string_pretty(&all)? } else { findings(&all, topics.len()) })?;
    Ok(match all.iter().map(|finding| finding.severity).max() {
        None => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::FAILURE,
        Some(Severity::Error) => ExitCode::from(WRONG),
    })
}

/// Says why there is nothing to be shown; beside an empty list, where a program reads it.
fn say_nothing(why: &str, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        say("[]")?;
        writeln!(std::io::stderr(), "{why}")?;
    } else {
        say(why)?;
    }
    Ok(ExitCode::FAILURE)
}

/// Writes how a topic stands, for people.
fn show(status: &TopicStatus) -> String {
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = write_topic(&mut text, status);
    text
}

/// Writes what was found to be wrong with so many topics, for people.
fn findings(findings: &[Finding], topics: usize) -> String {
    if findings.is_empty() {
        return format!("all is well with {topics} topics");
    }
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let Finding { group, topic, code, message, .. } = finding;
        format!("{severity}: {group} {topic}: {message} ({code})")
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn write_topic(text: &mut String, status: &TopicStatus) -> std::fmt::Result {
    writeln!(text, "{} {} (epoch {})", status.group, status.topic, status.epoch)?;
    let state = match status.state {
        TopicState::Steady => "steady".to_owned(),
        TopicState::Agreeing => format!("switching, waiting for {}", status.awaited.join(", ")),
        TopicState::Fencing => "switching, everybody has agreed".to_owned(),
    };
    writeln!(text, "  state: {state}")?;
    for (lane, owner) in &status.intent {
        writeln!(text, "  to be {}: {lane}", word(*owner))?;
    }
    for (lane, owner) in &status.pinned {
        writeln!(text, "  decided by an operator: {lane} is {}", word(*owner))?;
    }
    for member in &status.members {
        let lane = member.lane.map_or_else(|| "base".to_owned(), |lane| lane.to_string());
        let queues: Vec<_> = member.queues.iter().map(ToString::to_string).collect();
        let listed = match member.listed {
            Some(true) => "",
            Some(false) => ", NOT LISTED by its brokers",
            None => ", brokers do not say whether it is there",
        };
        writeln!(text, "  consumer {} of {lane} reads {}{listed}", member.id, some(&queues))?;
    }
    for stranger in &status.strangers {
        writeln!(text, "  NOT REGISTERED: {stranger}")?;
    }
    for member in &status.not_reading {
        let lane = member.lane.map_or_else(|| "base".to_owned(), |lane| lane.to_string());
        let why = status.refused.get(&lane).map(|why| format!(": {why}")).unwrap_or_default();
        writeln!(text, "  NOT READING: {} of {lane}{why}", member.id)?;
    }
    for side in &status.sides {
        write_side(text, side)?;
    }
    for unknown in &status.unknown {
        writeln!(text, "  not known: {unknown}")?;
    }
    Ok(())
}

fn write_side(text: &mut String, side: &SideStatus) -> std::fmt::Result {
    let owner = match (side.lane, side.owner) {
        (Some(lane), Some(owner)) => format!("lane {lane}, {}", word(owner)),
        _ => "base".to_owned(),
    };
    let (group, behind, retries) = (&side.group, side.behind, side.retries);
    writeln!(text, "  {group} ({owner}): {behind} offsets behind, {retries} retries to come")?;
    for queue in &side.queues {
        let committed = queue.committed.map_or_else(|| "-".to_owned(), |it| it.to_string());
        writeln!(text, "    {} {committed} of {}", queue.queue, queue.until)?;
    }
    Ok(())
}

const fn word(owner: Owner) -> &'static str {
    match owner {
        Owner::Base => "base's",
        Owner::Lane => "its consumers'",
    }
}

fn some(queues: &[String]) -> String {
    if queues.is_empty() { "nothing".to_owned() } else { queues.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gray_mq::{MemberStatus, QueueKey, QueueStatus};
    use gray_propagation::Lane;

    use super::*;

    fn side(lane: Option<Lane>, group: &str, behind: u64, queues: [(i32, u64); 4]) -> SideStatus {
        let queues = queues.into_iter().zip(0..).map(|((committed, end), number)| QueueStatus {
            queue: QueueKey { broker: "broker-a".to_owned(), number },
            committed: u64::try_from(committed).ok(),
            until: end,
            end,
            fence: None,
            behind: 0,
        });
        let (group, queues) = (group.to_owned(), queues.collect());
        let owner = lane.map(|_| Owner::Lane);
        SideStatus { lane, group, owner, behind, retries: 0, queues }
    }

    #[test]
    fn shows_what_the_guide_shows() {
        let gray = Some(Lane::GRAY);
        let sides = vec![
            side(None, "spring-cloud-a", 0, [(3, 3), (2, 2), (4, 4), (3, 3)]),
            side(gray, "spring-cloud-a_gray", 1, [(3, 3), (-1, 2), (3, 4), (3, 3)]),
        ];
        let member = |id: &str, lane| MemberStatus {
            id: id.to_owned(),
            lane,
            queues: sides[0].queues.iter().map(|it| it.queue.clone()).collect(),
            listed: Some(true),
        };
        let members =
            vec![member("vm@4042#2fc97106/1", None), member("vm@4167#b86964d3@gray/1", gray)];
        let shown = show(&TopicStatus {
            group: "spring-cloud-a".to_owned(),
            topic: "TEST_MQ".to_owned(),
            state: TopicState::Steady,
            epoch: 2,
            intent: BTreeMap::new(),
            awaited: Vec::new(),
            pinned: BTreeMap::new(),
            members,
            strangers: Vec::new(),
            not_reading: Vec::new(),
            refused: BTreeMap::new(),
            sides,
            unknown: Vec::new(),
        });
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/messages.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        assert!(guide.contains(&format!("{shown}```")), "{shown}");
    }
}
