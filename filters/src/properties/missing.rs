use gray_config::{Faults, KeyPath};

use super::condition::{ConditionProperties, KeyProperties};
use super::rule::RuleProperties;
use crate::condition::Condition;
use crate::{Places, Rule, Senses};

/// Warns of rules that ask for what the gateway is not configured to find out.
///
/// Takes the rules as they are written and as they were understood; `at` is where they stand.
pub fn warn_of_missing(
    written: &[RuleProperties],
    rules: &[Rule],
    senses: &Senses,
    at: &KeyPath,
    faults: &mut Faults,
) {
    for (index, rule) in written.iter().enumerate() {
        let at = at.index(index).key("when");
        if let Some(understood) = rules.iter().find(|it| *it.name == *rule.name) {
            warn_of_places(std::slice::from_ref(understood), senses, &at, faults);
        }
        let unissued = senses.issued_cookie.is_none();
        if unissued && rule.when.as_ref().is_some_and(needs_issued_cookie) {
            let message = "no client is given a cookie: `stickyCookie.enabled` is not set in the gateway's \
                           configuration";
            faults.warning(&at, message);
        }
    }
}

/// Warns of rules that ask for a place which nothing that the gateway has could say.
///
/// `at` is where the place stands.
pub fn warn_of_places(rules: &[Rule], senses: &Senses, at: &KeyPath, faults: &mut Faults) {
    let mut conditions = rules.iter().filter_map(|rule| rule.when.as_ref());
    if conditions.any(|when| needs_places(when, &senses.places)) {
        let message = "no request can be known to come from there: `places` in the gateway's \
                       configuration names no database, and none of its own networks is there";
        faults.warning(at, message);
    }
}

fn needs_places(condition: &Condition, places: &Places) -> bool {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => {
            parts.iter().any(|part| needs_places(part, places))
        }
        Condition::Not(part) => needs_places(part, places),
        Condition::Place { level, names, .. } => !places.may_name(*level, names),
        _ => false,
    }
}

fn needs_issued_cookie(condition: &ConditionProperties) -> bool {
    use ConditionProperties as P;
    match condition {
        P::All(parts) | P::Any(parts) => parts.iter().any(needs_issued_cookie),
        P::Not(part) => needs_issued_cookie(part),
        P::Percentage(share) => share.by.contains(&KeyProperties::IssuedCookie),
        _ => false,
    }
}
