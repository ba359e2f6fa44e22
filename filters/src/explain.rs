use serde::Serialize;

use crate::condition::{Condition, Level, Percentage, Source};
use crate::operator::{Operator, Test};
use crate::senses::Subject;
use crate::share::address_key;

/// How a request was decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether gray release is switched on.
    pub on: bool,
    /// The lane: `ALL`, `PROD`, `GRAY` or a lane's name.
    pub status: String,
    /// The user, where one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Country, province and city, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Vec<String>>,
    /// The rule that hit.
    pub rule: Option<String>,
    /// The rules that were asked, in order.
    pub rules: Vec<RuleReport>,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// The rule's name.
    pub name: String,
    /// Where it sends requests.
    pub target: String,
    /// Whether it hit.
    pub hit: bool,
    /// Why it cannot hit at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<&'static str>,
    /// Its condition; none for a rule that takes every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionReport>,
}

/// What one condition said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// The condition in words.
    pub condition: String,
    /// Whether it holds.
    pub holds: bool,
    /// What it looked at, as far as the request has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// The conditions within it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Self>,
}

impl ConditionReport {
    pub(crate) fn new(condition: &Condition, subject: &Subject<'_>) -> Self {
        let parts: &[Condition] = match condition {
            Condition::All(parts) | Condition::Any(parts) => parts,
            Condition::Not(part) => std::slice::from_ref(part),
            _ => &[],
        };
        Self {
            condition: describe(condition),
            holds: condition.holds(subject),
            seen: seen(condition, subject),
            parts: parts.iter().map(|part| Self::new(part, subject)).collect(),
        }
    }
}

fn describe(condition: &Condition) -> String {
    match condition {
        Condition::All(_) => "all".to_owned(),
        Condition::Any(_) => "any".to_owned(),
        Condition::Not(_) => "not".to_owned(),
        Condition::Text(source, test) => format!("{} {}", source_word(source), test_words(test)),
        Condition::Client { set, inside: true } => format!("clientIp in {set}"),
        Condition::Client { set, inside: false } => format!("clientIp not in {set}"),
        Condition::ClientShare(share) => format!("clientIp in {} %", share.percent()),
        Condition::Place { level, names, inside } => {
            let word = if *inside { "in" } else { "not in" };
            format!("{} {word} {names}", level_word(*level))
        }
        Condition::PlaceKnown { level, known } => {
            format!("{} {}", level_word(*level), if *known { "known" } else { "unknown" })
        }
        Condition::Percentage(Percentage { share, .. }) => format!("in {} %", share.percent()),
        Condition::Time(window) => format!("time {window}"),
    }
}

fn source_word(source: &Source) -> String {
    match source {
        Source::Header(name) => format!("header {name}"),
        Source::Query(name) => format!("query {name}"),
        Source::Cookie(name) => format!("cookie {name}"),
        Source::Path => "path".to_owned(),
        Source::Method => "method".to_owned(),
        Source::Host => "host".to_owned(),
        Source::User => "user".to_owned(),
    }
}

fn test_words(test: &Test) -> String {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match &test.operator {
        Operator::Equal(expected) => format!("equal {:?}", shown(expected)),
        Operator::NotEqual(expected) => format!("not equal {:?}", shown(expected)),
        Operator::Prefix(prefix) => format!("with prefix {:?}", shown(prefix)),
        Operator::Suffix(suffix) => format!("with suffix {:?}", shown(suffix)),
        Operator::Contains(part) => format!("containing {:?}", shown(part)),
        Operator::In(names) => format!("in {names}"),
        Operator::NotIn(names) => format!("not in {names}"),
        Operator::Regex(pattern) => format!("matching {:?}", pattern.as_str()),
        Operator::Exists(true) => "exists".to_owned(),
        Operator::Exists(false) => "is absent".to_owned(),
        Operator::Percentage(share) => format!("in {} %", share.percent()),
    }
}

const fn level_word(level: Level) -> &'static str {
    match level {
        Level::Country => "country",
        Level::Province => "province",
        Level::City => "city",
    }
}

fn seen(condition: &Condition, subject: &Subject<'_>) -> Option<String> {
    match condition {
        Condition::Text(source, test) => source.with(subject, |found| {
            let found = found?;
            let shown = String::from_utf8_lossy(found);
            Some(match &test.operator {
                Operator::Percentage(share) => {
                    let lower = found.to_ascii_lowercase();
                    let key = if test.ignore_case { &*lower } else { found };
                    format!("{shown}, bucket {} of 10000", share.bucket(key))
                }
                _ => shown.into_owned(),
            })
        }),
        Condition::Client { .. } => Some(subject.client().to_string()),
        Condition::ClientShare(share) => {
            let (key, length) = address_key(subject.client());
            let bucket = share.bucket(key.get(..length).unwrap_or_default());
            Some(format!("{}, bucket {bucket} of 10000", subject.client()))
        }
        Condition::Place { level, .. } | Condition::PlaceKnown { level, .. } => {
            let names = level.names(subject);
            (!names.is_empty()).then(|| names.join("/"))
        }
        Condition::Percentage(percentage) => {
            let bucket = percentage.bucket(subject).map(|(bucket, _)| bucket);
            Some(bucket.map_or("no key".to_owned(), |bucket| format!("bucket {bucket} of 10000")))
        }
        Condition::Time(_) => Some(subject.now().to_string()),
        Condition::All(_) | Condition::Any(_) | Condition::Not(_) => None,
    }
}
