use std::fmt::Write as _;

use gray_mq::{Finding, Owner, Severity, SideStatus, TopicState, TopicStatus};

/// Writes how a topic stands, for people.
pub(super) fn show(status: &TopicStatus) -> String {
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = write_topic(&mut text, status);
    text
}

/// Writes what was found to be wrong with so many topics, for people.
pub(super) fn findings(findings: &[Finding], topics: usize) -> String {
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
