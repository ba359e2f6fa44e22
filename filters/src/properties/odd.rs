use gray_config::{Faults, KeyPath};

use super::rule::RuleProperties;
use crate::condition::Condition;
use crate::implies::{Reasoning, always};
use crate::rule_set::Rule;
use crate::share::Share;

/// How many steps are taken to find out which rules are never reached: some ten milliseconds.
const STEPS: usize = 1_000_000;

/// Warns of rules that can be read and hardly do what was meant.
pub(super) fn warn(
    properties: &[RuleProperties],
    rules: &[Option<Rule>],
    at: &KeyPath,
    faults: &mut Faults,
) {
    warn_of_unreachable(rules, at, faults);
    warn_of_expired(properties, at, faults);
    warn_of_shares(rules, at, faults);
}

/// Warns of rules that no request ever reaches.
fn warn_of_unreachable(rules: &[Option<Rule>], at: &KeyPath, faults: &mut Faults) {
    let mut reasoning = Reasoning::new(STEPS);
    // A rule that is switched off takes nobody, and one that expires does not for ever.
    let takes = |rule: &&Rule| rule.off.is_none() && rule.expires.is_none();
    for (index, rule) in rules.iter().enumerate() {
        let Some(rule) = rule else { continue };
        let mut earlier = rules.iter().take(index).flatten().filter(takes);
        let by = earlier.find(|earlier| match (&rule.when, &earlier.when) {
            (_, None) => true,
            (None, Some(wide)) => always(wide),
            (Some(narrow), Some(wide)) => reasoning.implies(narrow, wide),
        });
        if let Some(by) = by {
            let message = format!("never reached: rule `{}` takes these requests first", by.name);
            faults.warning(&at.index(index), message);
        } else if rule.when.as_ref().is_some_and(|when| reasoning.never(when)) {
            let message = "never hits: its conditions contradict each other";
            faults.warning(&at.index(index).key("when"), message);
        }
        if reasoning.is_exhausted() {
            let message = "there are so many rules that this one and those after it were not compared with \
                           the earlier ones: whether they are ever reached was not found out";
            faults.warning(&at.index(index), message);
            break;
        }
    }
}

/// Warns of rules whose time has gone.
fn warn_of_expired(properties: &[RuleProperties], at: &KeyPath, faults: &mut Faults) {
    let now = jiff::Timestamp::now();
    for (index, rule) in properties.iter().enumerate() {
        if rule.expires.is_some_and(|expires| expires.0 <= now) {
            faults.warning(&at.index(index).key("expires"), "the rule has expired");
        }
    }
}

/// Warns where rules of nothing but percentages promise more than there is: each takes its share of
/// what the earlier ones left. One of 100 % means that rest, and shares of one salt lie in each other.
fn warn_of_shares(rules: &[Option<Rule>], at: &KeyPath, faults: &mut Faults) {
    let mut earlier: Vec<Share> = Vec::new();
    // In steps of 0.01 %, which add up exactly.
    let mut sum = 0;
    for (index, rule) in rules.iter().enumerate() {
        let Some(share) = rule.as_ref().and_then(part_of_all) else { continue };
        let taken = earlier.iter().filter(|it| it.is_part_of(share)).map(|it| it.steps());
        sum += u32::from(share.steps() - taken.max().unwrap_or_default());
        earlier.push(share);
        if sum > 10_000 {
            let message = format!(
                "the percentages up to this rule add up to {}: a rule takes its share of what those \
                 before it left, so that this one gets less than {} % of all",
                f64::from(sum) / 100.0,
                share.percent()
            );
            faults.warning(&at.index(index).key("when").key("percentage").key("share"), message);
            break;
        }
    }
}

/// The share of all requests that a rule asks for, unless it is all that is left, or not for ever.
fn part_of_all(rule: &Rule) -> Option<Share> {
    match &rule.when {
        Some(Condition::Percentage(it)) if rule.off.is_none() && rule.expires.is_none() => {
            Some(it.share).filter(|share| share.percent() < 100.0)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use gray_config::Document;
    use gray_propagation::Lane;

    use super::*;
    use crate::lists::{List, Lists};
    use crate::properties::rules_of;

    /// Reads a list of rules; gives everything that is wrong with it.
    fn problems_of(text: &str) -> String {
        let document = Document::parse("rules", text).unwrap();
        let mut faults = Faults::default();
        let at = KeyPath::ROOT;
        let properties: Vec<RuleProperties> = document.read(&at, &mut faults).unwrap_or_default();
        let lanes = [("gray", true), ("blue", true), ("off", false)];
        let lanes = lanes.map(|(name, on)| (name.parse::<Lane>().unwrap(), on)).into();
        let lists = [("vips", "1001\n1002\n"), ("nets", "10.1.0.0/16\n")];
        let lists = lists.map(|(name, text)| (name.to_owned(), List::new(text)));
        rules_of(&properties, &lanes, &Lists(lists.into()), &at, &mut faults);
        document.problems(&faults).to_string()
    }

    #[track_caller]
    pub(in crate::properties) fn check_odd(rules: &str, expected: &str) {
        let problems = problems_of(&format!("- {rules}"));
        assert!(problems.contains(expected), "{rules}: {problems}");
    }

    /// What the first takes, and what is therefore never left for the second.
    const UNREACHABLE: [(&str, &str); 22] = [
        ("{path: {prefix: /a}}", "{path: {prefix: /a/b}}"),
        ("{path: {suffix: a}}", "{path: {suffix: ba}}"),
        ("{path: {contains: b}}", "{path: {prefix: abc}}"),
        ("{path: {regex: '^/a+$'}}", "{path: {in: [/a, /aa]}}"),
        ("{path: {prefix: /A, ignoreCase: true}}", "{path: {prefix: /aB}}"),
        ("{header: {name: X, exists: true}}", "{header: {name: x, equal: '1'}}"),
        ("{header: {name: x, in: ['1', '2']}}", "{header: {name: x, equal: '2'}}"),
        ("{user: {notIn: [a]}}", "{user: {notIn: [a, b]}}"),
        ("{user: {notEqual: a}}", "{user: {notIn: [a, b]}}"),
        ("{user: {inList: vips}}", "{user: {equal: '1001'}}"),
        ("{clientIp: {in: [10.0.0.0/8, '::1']}}", "{clientIp: {in: [10.1.0.0/16, 10.9.9.9]}}"),
        ("{clientIp: {equal: 10.0.0.0/8}}", "{clientIp: {inList: nets}}"),
        ("{clientIp: {notEqual: 10.1.0.0/16}}", "{clientIp: {notIn: [10.0.0.0/8]}}"),
        ("{city: {in: [北京, 上海]}}", "{city: {equal: 上海市}}"),
        ("{city: {exists: true}}", "{city: {equal: 上海}}"),
        ("{percentage: {share: 100}}", "{path: {equal: /}}"),
        ("{percentage: {share: 20, salt: s}}", "{percentage: {share: 5, salt: s}}"),
        ("{not: {path: {prefix: /a/b}}}", "{not: {path: {prefix: /a}}}"),
        ("{any: [{method: {equal: GET}}, {path: {prefix: /a}}]}", "{path: {equal: /a}}"),
        ("{path: {prefix: /a}}", "{all: [{path: {prefix: /a}}, {method: {equal: GET}}]}"),
        (
            "{all: [{path: {prefix: /a}}, {method: {in: [GET, PUT]}}]}",
            "{all: [{method: {equal: GET}}, {path: {prefix: /a/b}}, {user: {exists: true}}]}",
        ),
        (
            "{any: [{method: {equal: GET}}, {method: {equal: PUT}}]}",
            "{any: [{method: {equal: PUT}}, {all: [{method: {equal: GET}}, {path: {equal: /}}]}]}",
        ),
    ];

    /// What looks alike, and leaves something for the second.
    const REACHABLE: [(&str, &str); 16] = [
        ("{path: {prefix: /a/b}}", "{path: {prefix: /a}}"),
        ("{path: {prefix: /a}}", "{path: {prefix: /A, ignoreCase: true}}"),
        ("{path: {equal: /a}}", "{path: {equal: /a, ignoreCase: true}}"),
        ("{header: {name: x, equal: '1'}}", "{header: {name: y, equal: '1'}}"),
        ("{header: {name: x, exists: true}}", "{header: {name: x, notEqual: '1'}}"),
        ("{header: {name: x, equal: '1'}}", "{header: {name: x, in: ['1', '2']}}"),
        ("{user: {notIn: [a, b]}}", "{user: {notIn: [a]}}"),
        ("{clientIp: {equal: 10.1.0.0/16}}", "{clientIp: {equal: 10.0.0.0/8}}"),
        ("{clientIp: {in: [10.0.0.0/9]}}", "{clientIp: {in: [10.0.0.1, 10.200.0.1]}}"),
        ("{clientIp: {equal: 10.0.0.0/8}}", "{clientIp: {notEqual: 10.0.0.0/8}}"),
        ("{city: {equal: 上海}}", "{province: {equal: 上海}}"),
        ("{percentage: {share: 20}}", "{percentage: {share: 5}}"),
        ("{percentage: {share: 100, by: [user]}}", "{path: {equal: /}}"),
        ("{percentage: {share: 5, salt: s}}", "{percentage: {share: 20, salt: s}}"),
        ("{not: {path: {prefix: /a}}}", "{not: {path: {prefix: /a/b}}}"),
        (
            "{all: [{path: {prefix: /a}}, {method: {equal: GET}}]}",
            "{any: [{path: {prefix: /a}}, {method: {equal: GET}}]}",
        ),
    ];

    /// Comparing a great many takes a bounded time, and it is said that it was not done.
    #[test]
    fn so_many_rules_are_not_all_compared() {
        let line = |number: u32| {
            format!("- {{name: r{number}, when: {{header: {{name: x, equal: '{number}'}}}}}}\n")
        };
        let problems = problems_of(&(0..5_000).map(line).collect::<String>());
        assert!(problems.contains("was not found out"), "{problems}");
        assert_eq!(problems.matches("warning").count(), 1, "{problems}");
    }

    #[test]
    fn warns_of_rules_that_are_never_reached() {
        check_odd("{name: a}\n- {name: b, when: {path: {equal: x}}}", "warning: rules:2:3: [1]");
        check_odd(
            "{name: a, when: {path: {equal: x}}}\n- {name: b, when: {path: {equal: x}}}",
            "never reached: rule `a`",
        );
        for (first, second) in UNREACHABLE {
            check_odd(
                &format!("{{name: a, when: {first}}}\n- {{name: b, when: {second}}}"),
                "never reached: rule `a`",
            );
        }
        for (first, second) in REACHABLE {
            let text = format!("- {{name: a, when: {first}}}\n- {{name: b, when: {second}}}");
            let problems = problems_of(&text);
            assert_eq!(problems, "", "{text}");
        }
        check_odd(
            "{name: a, when: {all: [{method: {equal: GET}}, {method: {in: [PUT, POST]}}]}}",
            "[0].when: never hits: its conditions contradict each other",
        );
        // A lane that is switched off takes nobody.
        for rule in ["{name: a, lane: \"off\"}", "{name: a, enabled: false}"] {
            let problems = problems_of(&format!("- {rule}\n- {{name: b}}"));
            assert!(!problems.contains("never reached"), "{rule}: {problems}");
        }
    }

    #[test]
    fn warns_of_percentages_that_are_more_than_there_is() {
        let two = |first: &str, second: &str| {
            format!(
                "{{name: a, when: {{percentage: {{share: {first}}}}}}}\n\
                 - {{name: b, lane: blue, when: {{percentage: {{share: {second}}}}}}}"
            )
        };
        check_odd(&two("60", "60"), "warning: rules:2:");
        check_odd(&two("60", "60"), "add up to 120: a rule takes its share");
        let of_one_salt = ["60, salt: s", "80, salt: s"];
        let right = [["60", "40"], ["5", "100"], ["0", "99.99"], of_one_salt];
        for [first, second] in right {
            assert_eq!(problems_of(&format!("- {}", two(first, second))), "", "{first}, {second}");
        }
        let rule = |name: &str, share: &str, more: &str| {
            format!("- {{name: {name}, when: {{percentage: {{share: {share}}}}}{more}}}\n")
        };
        // Which as floating-point numbers add up to a little more than 100.
        let whole = [rule("a", "0.2", ""), rule("b", "83.9", ""), rule("c", "15.9", "")].concat();
        assert_eq!(problems_of(&whole), "");
        let ends = ", expires: 2999-01-01T00:00:00Z";
        assert_eq!(problems_of(&[rule("a", "60", ends), rule("b", "60", "")].concat()), "");
    }
}
