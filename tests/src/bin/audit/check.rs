//! The checker. It reads logs and the table as it stands in the database, and shares no code with
//! what it checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use anyhow::Context;
use serde_json::Value;

use crate::produce::is_of_lane;

/// A message that a broker acknowledged.
struct Produced {
    lane: String,
    queue: String,
    offset: u64,
}

/// A message that a handler was given.
struct Handled {
    at: u128,
    client: String,
    group: String,
    /// `topic`, or `retry` where it came by way of the group's retries.
    source: &'static str,
    /// It was not handled, and comes again by way of the retries.
    failed: bool,
    queue: String,
    offset: u64,
    /// Where it stands in the log of its process.
    line: usize,
}

impl Handled {
    /// Where it was stored that was delivered.
    fn place(&self) -> (&str, &str, u64) {
        (self.source, &self.queue, self.offset)
    }
}

/// Somebody was killed when so much was durable.
struct Killed {
    at: u128,
    /// Whom it struck, `*` for all.
    who: String,
    group: String,
    source: String,
    queue: String,
    offset: u64,
}

/// Everything there is to be read.
pub(crate) struct Evidence<'a> {
    pub(crate) group: &'a str,
    pub(crate) produced: &'a str,
    pub(crate) handled: &'a str,
    pub(crate) killed: &'a str,
    /// The table, as JSON.
    pub(crate) table: &'a str,
    /// Whether each queue was to be handled in its order.
    pub(crate) in_order: bool,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) produced: u64,
    pub(crate) of_lane: u64,
    /// By each group.
    pub(crate) handled: BTreeMap<String, u64>,
    pub(crate) retried: u64,
    /// Handled by a group again, after a kill, from above what was durable.
    pub(crate) redelivered: u64,
    pub(crate) lost: Vec<u64>,
    pub(crate) by_others: Vec<u64>,
    pub(crate) by_both: Vec<u64>,
    /// Handled by a group again, and no kill explains it.
    pub(crate) doubled: Vec<u64>,
    /// Handled for the first time after one that stands behind it in its queue and lane; `None` where any order will do.
    pub(crate) inverted: Option<Vec<u64>>,
    pub(crate) fences: u64,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        let all = [&self.lost, &self.by_others, &self.by_both, &self.doubled];
        let in_order = self.inverted.iter().all(Vec::is_empty);
        all.iter().all(|wrong| wrong.is_empty()) && in_order && self.produced > 0
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let few = |wrong: &[u64]| match wrong {
            [] => "0".to_owned(),
            wrong => {
                format!("{}, such as {:?}", wrong.len(), wrong.iter().take(5).collect::<Vec<_>>())
            }
        };
        writeln!(
            f,
            "produced and acknowledged: {}, {} of them in the lane",
            self.produced, self.of_lane
        )?;
        for (group, count) in &self.handled {
            writeln!(f, "handled by {group}: {count}")?;
        }
        writeln!(f, "of these by way of the group's retries: {}", self.retried)?;
        writeln!(f, "fences written: {}", self.fences)?;
        writeln!(f, "lost: {}", few(&self.lost))?;
        writeln!(f, "handled by a group that does not own the offset: {}", few(&self.by_others))?;
        writeln!(f, "handled by both groups: {}", few(&self.by_both))?;
        writeln!(
            f,
            "handled twice by its group without a kill that explains it: {}",
            few(&self.doubled)
        )?;
        if let Some(inverted) = &self.inverted {
            writeln!(f, "handled after one behind it in its queue and lane: {}", few(inverted))?;
        }
        writeln!(f, "redelivered within a group, after a kill: {}", self.redelivered)
    }
}

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split('\t').collect::<Vec<_>>().try_into().ok()
}

fn produced(text: &str) -> Option<(u64, Produced)> {
    let [_, message, lane, queue, offset] = fields(text)?;
    let (lane, queue, offset) = (lane.to_owned(), queue.to_owned(), offset.parse().ok()?);
    Some((message.parse().ok()?, Produced { lane, queue, offset }))
}

fn handled((number, line): (usize, &str)) -> Option<(u64, Handled)> {
    let [at, client, group, source, queue, offset, id] = fields(line)?;
    let (source, failed) = match source {
        "topic" => ("topic", false),
        "failed" => ("topic", true),
        "retry" => ("retry", false),
        _ => return None,
    };
    let text = str::to_owned;
    let (at, offset) = (at.parse().ok()?, offset.parse().ok()?);
    let (client, group, queue) = (text(client), text(group), text(queue));
    let handled = Handled { at, client, group, source, failed, queue, offset, line: number };
    Some((id.parse().ok()?, handled))
}

fn killed(line: &str) -> Option<Killed> {
    let [at, who, group, source, queue, offset] = fields(line)?;
    let (at, offset) = (at.parse().ok()?, offset.parse().ok()?);
    let [who, group, source, queue] = [who, group, source, queue].map(str::to_owned);
    Some(Killed { at, who, group, source, queue, offset })
}

/// Whose a message of the lane is, by the fences of its queue.
fn is_lanes(table: &Value, queue: &str, offset: u64) -> anyhow::Result<bool> {
    let fences = table.pointer("/table/fences").context("a table without fences")?;
    let of_queue =
        fences.get(queue).with_context(|| format!("queue {queue} is not in the table"))?;
    let mut owner = "base";
    for fence in of_queue.get("gray").and_then(Value::as_array).into_iter().flatten() {
        if fence.get("from").and_then(Value::as_u64).context("a fence without an offset")? <= offset
        {
            owner =
                fence.get("owner").and_then(Value::as_str).context("a fence without an owner")?;
        }
    }
    Ok(owner == "lane")
}

/// The group that a message belongs to.
fn owner(
    group: &str,
    table: &Value,
    of_lane: bool,
    (queue, offset): (&str, u64),
) -> anyhow::Result<String> {
    let own = of_lane && is_lanes(table, queue, offset)?;
    Ok(if own { format!("{group}_gray") } else { group.to_owned() })
}

/// Holds the logs against each other.
pub(crate) fn check(evidence: &Evidence<'_>) -> anyhow::Result<Findings> {
    let table: Value = serde_json::from_str(evidence.table).context("the table")?;
    let all: BTreeMap<u64, Produced> = evidence.produced.lines().filter_map(produced).collect();
    let kills: Vec<Killed> = evidence.killed.lines().filter_map(killed).collect();
    let mut by_id: BTreeMap<u64, Vec<Handled>> = BTreeMap::new();
    for (number, line) in evidence.handled.lines().enumerate() {
        let (id, handled) =
            handled((number, line)).with_context(|| format!("{line:?} is no line"))?;
        by_id.entry(id).or_default().push(handled);
    }
    for by in by_id.values_mut() {
        by.sort_by_key(|handled| handled.at);
    }
    let mut found = Findings { produced: u64::try_from(all.len())?, ..Findings::default() };
    found.inverted = evidence.in_order.then(|| inverted(&all, &by_id));
    found.fences = fences(&table);
    for (id, message) in &all {
        found.of_lane += u64::from(message.lane != "-");
        let of_lane = message.lane != "-";
        let owner = owner(evidence.group, &table, of_lane, (&message.queue, message.offset))?;
        let by = by_id.get(id).map_or(&[][..], Vec::as_slice);
        found.take(*id, &owner, by, &kills);
    }
    // A message that was stored, and of which the producer was not told, is handled by its owner too.
    for (id, by) in by_id.iter().filter(|(id, _)| !all.contains_key(id)) {
        let groups: BTreeSet<_> = by.iter().map(|handled| &handled.group).collect();
        let first = by.iter().filter(|handled| handled.source == "topic");
        let offsets: BTreeSet<_> = first.map(|handled| handled.offset).collect();
        if groups.len() > 1 && offsets.len() <= 1 {
            found.by_both.push(*id);
        }
        for handled in by.iter().filter(|handled| handled.source == "topic") {
            let place = (handled.queue.as_str(), handled.offset);
            if owner(evidence.group, &table, is_of_lane(*id), place)? != handled.group {
                found.by_others.push(*id);
            }
        }
    }
    Ok(found)
}

/// Finds messages that were handled for the first time after one that stands behind them in their queue and lane. Of
/// two within one millisecond only those by one process have an order.
fn inverted(all: &BTreeMap<u64, Produced>, by_id: &BTreeMap<u64, Vec<Handled>>) -> Vec<u64> {
    let mut queues: BTreeMap<(&str, &str), Vec<(&Handled, u64)>> = BTreeMap::new();
    for (id, message) in all {
        let by = by_id.get(id).map_or(&[][..], Vec::as_slice);
        if let Some(first) = by.iter().find(|it| !it.failed && it.source == "topic") {
            queues.entry((&message.lane, &message.queue)).or_default().push((first, *id));
        }
    }
    let mut wrong = Vec::new();
    for mut first in queues.into_values() {
        first.sort_by_key(|(handled, _)| (handled.at, &handled.client, handled.line));
        let mut furthest: Option<&Handled> = None;
        for (handled, id) in first {
            let Some(before) = furthest.filter(|before| before.offset > handled.offset) else {
                furthest = Some(handled);
                continue;
            };
            if before.at < handled.at || before.client == handled.client {
                wrong.push(id);
            }
        }
    }
    wrong
}

fn fences(table: &Value) -> u64 {
    let queues = table.pointer("/table/fences").and_then(Value::as_object);
    let lists =
        queues.into_iter().flat_map(|it| it.values()).filter_map(|it| it.get("gray")?.as_array());
    lists.map(|list| list.len() as u64).sum()
}

impl Findings {
    /// Takes what became of a message: all whom it was given to, in their order.
    fn take(&mut self, id: u64, owner: &str, given: &[Handled], kills: &[Killed]) {
        let groups: BTreeSet<&str> = given.iter().map(|handled| handled.group.as_str()).collect();
        let by: Vec<&Handled> = given.iter().filter(|handled| !handled.failed).collect();
        if by.is_empty() {
            self.lost.push(id);
        }
        if groups.iter().any(|group| *group != owner) {
            self.by_others.push(id);
        }
        if groups.len() > 1 {
            self.by_both.push(id);
        }
        for handled in &by {
            *self.handled.entry(handled.group.clone()).or_default() += 1;
            self.retried += u64::from(handled.source == "retry");
        }
        if by.len() > 1 && groups.len() == 1 {
            let explained = |kill: &Killed| kill.group == owner && explains(kill, given);
            if kills.iter().any(explained) {
                self.redelivered += 1;
            } else {
                self.doubled.push(id);
            }
        }
    }
}

/// How much later than it happened a kill may be noted: others are waited for, and brokers are asked first
/// what was durable.
const NOTED: u128 = 40_000;

/// Tells whether a kill is why a message was handled more than once: between two times that the same was
/// delivered whoever had it first was struck, and it was not durable then; or the broker died while the
/// message was stored, which was then done once more.
fn explains(kill: &Killed, given: &[Handled]) -> bool {
    let is_between =
        |first: &Handled, last: &Handled| first.at <= kill.at && kill.at <= last.at + NOTED;
    let again = given.iter().enumerate().any(|(number, first)| {
        let (source, queue, offset) = first.place();
        let is_durable =
            offset < kill.offset || (kill.source.as_str(), kill.queue.as_str()) != (source, queue);
        let struck = kill.who == "*" || kill.who == first.client;
        let mut later =
            given.iter().skip(number + 1).filter(|later| later.place() == first.place());
        struck && !is_durable && later.any(|later| is_between(first, later))
    });
    let stored_twice = || {
        let (Some(first), Some(last)) = (given.first(), given.last()) else { return false };
        let places = given.iter().filter(|it| !it.failed).map(Handled::place);
        let places: BTreeSet<_> = places.collect();
        kill.who == "*" && places.len() > 1 && is_between(first, last)
    };
    again || stored_twice()
}

/// Says for each message who handled it.
pub(crate) fn who(evidence: &Evidence<'_>) -> String {
    let mut by_id: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (id, handled) in evidence.handled.lines().enumerate().filter_map(handled) {
        let failed = if handled.failed { ":failed" } else { "" };
        by_id.entry(id).or_default().push(format!("{}:{}{failed}", handled.client, handled.group));
    }
    let mut text = String::from("message\tlane\tqueue\toffset\thandled by\n");
    for (id, message) in evidence.produced.lines().filter_map(produced) {
        let Produced { lane, queue, offset, .. } = message;
        let by = by_id.get(&id).map_or_else(String::new, |by| by.join(" "));
        // Writing into a text does not fail.
        let _ = writeln!(text, "{id}\t{lane}\t{queue}\t{offset}\t{by}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"{"nonce": "x", "table": {"epoch": 4, "fences": {"b/0": {"gray": [
        {"from": 10, "owner": "lane"}, {"from": 20, "owner": "base"}]}}}}"#;
    const PRODUCED: &str = "100\t1\t-\tb/0\t9\n101\t2\tgray\tb/0\t10\n102\t3\tgray\tb/0\t20\n";
    const HANDLED: &str = "200\tx\tg\ttopic\tb/0\t9\t1\n201\ty\tg_gray\ttopic\tb/0\t10\t2\n\
                           202\tx\tg\ttopic\tb/0\t20\t3\n";

    fn check_with(handled: &str, killed: &str) -> Findings {
        check_order(handled, killed, false)
    }

    fn check_order(handled: &str, killed: &str, in_order: bool) -> Findings {
        let (group, produced, table) = ("g", PRODUCED, TABLE);
        check(&Evidence { group, produced, handled, killed, table, in_order }).unwrap()
    }

    #[test]
    fn each_message_handled_once_by_its_owner_is_clean() {
        let found = check_with(HANDLED, "");
        assert!(found.is_clean(), "{found}");
        assert_eq!((found.produced, found.of_lane, found.fences), (3, 2, 2));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let lines: Vec<_> = HANDLED.lines().collect();
        assert_eq!(check_with(&lines[1..].join("\n"), "").lost, [1]);
        assert_eq!(check_with(&HANDLED.replace("g_gray", "g"), "").by_others, [2]);
        let both = format!("{HANDLED}303\tx\tg\ttopic\tb/0\t10\t2\n");
        let found = check_with(&both, "");
        assert_eq!((found.by_both, found.by_others), (vec![2], vec![2]));
    }

    /// Of what was stored though its producer was not told, only that both had it was once seen.
    #[test]
    fn what_was_not_acknowledged_is_its_owners_too() {
        for (line, by_others) in [
            ("300\ty\tg_gray\ttopic\tb/0\t11\t5\n", vec![]),
            ("300\ty\tg\ttopic\tb/0\t11\t5\n", vec![5]),
            ("300\ty\tg\ttopic\tb/0\t21\t5\n", vec![]),
            ("300\ty\tg_gray\ttopic\tb/0\t11\t4\n", vec![4]),
        ] {
            assert_eq!(check_with(&format!("{HANDLED}{line}"), "").by_others, by_others, "{line}");
        }
    }

    #[test]
    fn a_message_handled_twice_needs_a_kill_below_which_it_was_not_durable() {
        let twice = format!("{HANDLED}303\tz\tg_gray\ttopic\tb/0\t10\t2\n");
        assert_eq!(check_with(&twice, "").doubled, [2]);
        for (kill, explains) in [
            ("250\ty\tg_gray\ttopic\tb/0\t10\n", true),
            ("250\t*\tg_gray\ttopic\tb/0\t10\n", true),
            // Two others have handled it.
            ("250\tx\tg_gray\ttopic\tb/0\t10\n", false),
            ("250\ty\tg_gray\ttopic\tb/0\t11\n", false),
            ("250\ty\tg\ttopic\tb/0\t10\n", false),
            // Before it was handled at all, and long after it was handled again.
            ("150\ty\tg_gray\ttopic\tb/0\t10\n", false),
            ("50000\ty\tg_gray\ttopic\tb/0\t10\n", false),
        ] {
            let found = check_with(&twice, kill);
            assert_eq!(found.is_clean(), explains, "{kill}: {found}");
        }
    }

    #[test]
    fn what_is_handled_after_one_behind_it_is_out_of_order() {
        let lines = |of: [(u64, &str, u64, u64); 3]| {
            let line = |(at, who, offset, id): (u64, &str, u64, u64)| {
                let group = if id == 2 { "g_gray" } else { "g" };
                format!("{at}\t{who}\t{group}\ttopic\tb/0\t{offset}\t{id}\n")
            };
            of.map(line).concat()
        };
        let found = |text: &str| check_order(text, "", true).inverted.unwrap();
        assert!(found(HANDLED).is_empty());
        // Two and three are of one lane, one is of another.
        assert_eq!(found(&lines([(300, "x", 9, 1), (202, "y", 10, 2), (201, "x", 20, 3)])), [2]);
        assert!(found(&lines([(300, "x", 9, 1), (201, "y", 10, 2), (202, "x", 20, 3)])).is_empty());
        // Nobody can tell which was first of two by different processes.
        assert!(found(&lines([(9, "x", 9, 1), (201, "y", 10, 2), (201, "x", 20, 3)])).is_empty());
        assert_eq!(found(&lines([(9, "x", 9, 1), (201, "x", 20, 3), (201, "x", 10, 2)])), [2]);
        // What comes again was handled before.
        let again = lines([(1, "x", 9, 1), (2, "y", 10, 2), (3, "x", 20, 3)]);
        let again = format!("{again}400\tz\tg_gray\ttopic\tb/0\t10\t2\n");
        let found = check_order(&again, "250\ty\tg_gray\ttopic\tb/0\t10\n", true);
        assert!(found.is_clean(), "{found}");
    }

    /// Of what came by way of the retries any kill once excused anything.
    #[test]
    fn a_retry_handled_twice_needs_a_kill_of_whoever_handled_it() {
        let lines: Vec<_> = HANDLED.lines().collect();
        let (one, three) = (lines[0], lines[2]);
        let retried = format!(
            "{one}\n{three}\n201\ty\tg_gray\tfailed\tb/0\t10\t2\n300\ty\tg_gray\tretry\tb/3\t7\t2\n"
        );
        let found = check_with(&retried, "");
        assert!(found.is_clean() && found.retried == 1, "{found}");
        let twice = format!("{retried}400\tz\tg_gray\tretry\tb/3\t7\t2\n");
        for (kill, explains) in [
            ("350\ty\tg_gray\tretry\tb/3\t7\n", true),
            ("350\t*\tg_gray\tretry\tb/3\t7\n", true),
            ("350\tz\tg_gray\tretry\tb/3\t7\n", false),
            ("350\ty\tg_gray\tretry\tb/3\t8\n", false),
            ("250\ty\tg_gray\tretry\tb/3\t7\n", false),
            // It had failed, and was given back, long before.
            ("350\ty\tg_gray\ttopic\tb/0\t10\n", false),
        ] {
            assert_eq!(check_with(&twice, kill).is_clean(), explains, "{kill}");
        }
        // Whoever had given it back was killed before that was durable: it was given back twice.
        let back = format!(
            "{retried}260\tz\tg_gray\tfailed\tb/0\t10\t2\n400\tz\tg_gray\tretry\tb/3\t8\t2\n"
        );
        assert!(check_with(&back, "250\ty\tg_gray\ttopic\tb/0\t10\n").is_clean());
        assert_eq!(check_with(&back, "250\tz\tg_gray\ttopic\tb/0\t10\n").doubled, [2]);
        assert_eq!(check_with(&back, "").doubled, [2]);
        // What only failed is lost.
        assert_eq!(check_with(&retried.replace("retry", "failed"), "").lost, [2]);
    }
}
