//! Worlds that are written as a native document.

use proptest::prelude::*;

use super::condition::{Asks, Cond, cond};
use super::{Instances, World, instances};

/// Where a rule sends requests.
const TARGETS: [&str; 4] = ["gray", "blue", "base", "all"];

#[derive(Clone, Debug)]
struct Rule {
    target: usize,
    when: Option<Cond>,
    /// Whether it can hit at all, and how that is written.
    life: (&'static str, bool),
}

/// What is different for the service.
#[derive(Clone, Debug, Default)]
struct Own {
    base: Option<&'static str>,
    gray: Option<&'static str>,
    fallback: Option<&'static str>,
    unversioned: Option<&'static str>,
    routed: Option<bool>,
}

#[derive(Clone, Debug)]
pub(super) struct Native {
    on: bool,
    rules: Vec<Rule>,
    blue_on: bool,
    fallback: &'static str,
    unversioned: &'static str,
    own: Own,
    instances: Instances,
}

impl Native {
    /// The version that a lane has for the service.
    fn of_lane(&self, lane: &str) -> &'static str {
        match lane {
            "GRAY" => self.own.gray.unwrap_or("V2"),
            "blue" => "V3",
            _ => self.own.base.unwrap_or("V1"),
        }
    }

    /// The rule that takes a request, by its number.
    fn hit(&self, asks: &Asks) -> Option<(usize, &Rule)> {
        let hits = |(number, rule): &(usize, &Rule)| {
            rule.life.1
                && (TARGETS[rule.target] != "blue" || self.blue_on)
                && rule.when.as_ref().is_none_or(|when| when.holds(asks, &format!("r{number}")))
        };
        self.rules.iter().enumerate().find(hits).filter(|_| self.on)
    }

    fn services(&self) -> String {
        let Own { base, gray, fallback, unversioned, routed } = &self.own;
        let text = |key: &str, value: Option<&str>| value.map(|it| format!("    {key}: {it}\n"));
        let lines = [
            text("base", *base),
            text("lanes", gray.map(|it| format!("{{gray: {it}}}")).as_deref()),
            text("fallback", *fallback),
            text("unversioned", *unversioned),
            text("routed", routed.map(|it| it.to_string()).as_deref()),
        ];
        let lines: String = lines.into_iter().flatten().collect();
        if lines.is_empty() { String::new() } else { format!("services:\n  app:\n{lines}") }
    }
}

impl World for Native {
    fn yaml(&self) -> String {
        let rule = |(number, rule): (usize, &Rule)| {
            let when = rule.when.as_ref().map(|when| format!(", when: {}", when.yaml()));
            let (target, life) = (TARGETS[rule.target], rule.life.0);
            format!("- {{name: r{number}, lane: {target}{life}{}}}\n", when.unwrap_or_default())
        };
        let rules: String = self.rules.iter().enumerate().map(rule).collect();
        format!(
            "enabled: {}\nbase: {{version: V1, unversioned: {}}}\nfallback: {}\n\
             lanes: [{{name: gray, version: V2}}, {{name: blue, version: V3, enabled: {}}}]\n\
             {}rules:\n{rules}",
            self.on,
            self.unversioned,
            self.fallback,
            self.blue_on,
            self.services()
        )
    }

    fn lane(&self, asks: &Asks) -> &'static str {
        if !self.on {
            return "ALL";
        }
        let hit = self.hit(asks);
        match hit.map(|(_, rule)| TARGETS[rule.target]) {
            Some("gray") => "GRAY",
            Some("blue") => "blue",
            Some("all") => "ALL",
            _ => "PROD",
        }
    }

    fn rule(&self, asks: &Asks) -> Option<String> {
        self.hit(asks).map(|(number, _)| format!("r{number}"))
    }

    fn ports(&self, lane: &str) -> (Vec<u16>, Option<&'static str>) {
        let of = |fits: &dyn Fn(Option<&str>) -> bool| self.instances.ports(fits);
        if lane == "ALL" || self.own.routed == Some(false) {
            return (of(&|_| true), None);
        }
        let unversioned = self.own.unversioned.unwrap_or(self.unversioned);
        let base = |version: Option<&str>| {
            version == Some(self.of_lane("PROD")) || (version.is_none() && unversioned == "base")
        };
        let (gray, blue) = (self.of_lane("GRAY"), self.of_lane("blue"));
        let (own, foreign) = match lane {
            "GRAY" => (of(&|version| version == Some(gray)), vec![blue]),
            "blue" => (of(&|version| version == Some(blue)), vec![gray]),
            _ => (of(&base), vec![gray, blue]),
        };
        if !own.is_empty() {
            return (own, None);
        }
        let fallback = self.own.fallback.unwrap_or(self.fallback);
        let instead = match fallback {
            "base" => of(&base),
            "all" => of(&|version| version.is_none_or(|version| !foreign.contains(&version))),
            _ => Vec::new(),
        };
        (instead, Some(fallback))
    }

    fn version(&self, lane: &str) -> Option<&'static str> {
        (lane != "ALL" && self.own.routed != Some(false)).then(|| self.of_lane(lane))
    }

    fn instances(&self) -> &Instances {
        &self.instances
    }
}

const LIVES: [(&str, bool); 4] = [
    (", enabled: true", true),
    (", enabled: false", false),
    (", expires: '2000-01-01T00:00:00Z'", false),
    (", expires: '2900-01-01T00:00:00Z'", true),
];

fn rule() -> impl Strategy<Value = Rule> {
    let life = prop_oneof![4 => Just(("", true)), 1 => prop::sample::select(&LIVES[..])];
    (0_usize..4, prop::option::weighted(0.9, cond()), life).prop_map(|(target, when, life)| Rule {
        target,
        when,
        life,
    })
}

fn own() -> impl Strategy<Value = Own> {
    let maybe =
        |words: &'static [&'static str]| prop::option::weighted(0.3, prop::sample::select(words));
    let own = (
        maybe(&["V8"]),
        maybe(&["V9"]),
        maybe(&["fail", "base", "all"]),
        maybe(&["base", "none"]),
        prop::option::weighted(0.2, any::<bool>()),
    );
    own.prop_map(|(base, gray, fallback, unversioned, routed)| Own {
        base,
        gray,
        fallback,
        unversioned,
        routed,
    })
}

pub(super) fn world() -> impl Strategy<Value = Native> {
    (
        prop::bool::weighted(0.95),
        prop::collection::vec(rule(), 0..5),
        any::<bool>(),
        prop::sample::select(vec!["fail", "base", "all"]),
        prop::sample::select(vec!["base", "none"]),
        prop_oneof![Just(Own::default()), own()],
        instances(),
    )
        .prop_map(|(on, rules, blue_on, fallback, unversioned, own, instances)| Native {
            on,
            rules,
            blue_on,
            fallback,
            unversioned,
            own,
            instances,
        })
}
