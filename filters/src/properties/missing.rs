use gray_config::{Faults, KeyPath};

use super::condition::{ConditionProperties, KeyProperties};
use super::rule::RuleProperties;
use crate::Senses;

/// Warns of rules that ask for what the gateway is not configured to find out.
///
/// `at` is where the rules stand.
pub fn warn_of_missing(
    rules: &[RuleProperties],
    senses: &Senses,
    at: &KeyPath,
    faults: &mut Faults,
) {
    if senses.issued_cookie.is_some() {
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        if rule.when.as_ref().is_some_and(needs_issued_cookie) {
            let message = "no client is given a cookie: `stickyCookie.enabled` is not set in the gateway's \
                           configuration";
            faults.warning(&at.index(index).key("when"), message);
        }
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
