use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use gray_config::{Faults, KeyPath, did_you_mean};
use gray_propagation::{GrayStatus, Lane};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::condition::{Compiler, ConditionProperties};
use super::odd::warn;
use crate::lists::Lists;
use crate::rule_set::Rule;

/// A rule as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleProperties {
    /// The rule's name, unique; it is shown in logs and metrics, and is the salt of its percentages.
    #[serde(default)]
    pub name: String,
    /// Where the rule sends requests: a lane's name, `base` or `all`.
    #[serde(default = "gray")]
    pub lane: String,
    /// What must be so; without it, the rule takes every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionProperties>,
    /// Whether the rule is asked at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// From when on the rule is no longer asked (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

fn gray() -> String {
    Lane::GRAY.to_string()
}

const fn yes() -> bool {
    true
}

/// A moment as an operator writes it: `2026-12-31T00:00:00+08:00` (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(pub(crate) jiff::Timestamp);

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|_| format!("`{text}` is no moment; write 2026-12-31T00:00:00+08:00"))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Turns what an operator wrote into rules, noting everything that is wrong with it.
///
/// `lanes` says which lanes there are, and whether each is switched on; a rule of a lane that is off
/// stays in its place and never hits.
pub fn rules_of(
    properties: &[RuleProperties],
    lanes: &BTreeMap<Lane, bool>,
    lists: &Lists,
    at: &KeyPath,
    faults: &mut Faults,
) -> Vec<Rule> {
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for (index, one) in properties.iter().enumerate() {
        let at = at.index(index);
        if one.name.trim().is_empty() {
            faults.error(&at.key("name"), "a rule needs a name");
        } else if !names.insert(&one.name) {
            faults.error(&at.key("name"), format!("a second rule is named `{}`", one.name));
        }
        rules.push(rule(one, lanes, lists, &at, faults));
    }
    warn(properties, &rules, at, faults);
    rules.into_iter().flatten().collect()
}

fn rule(
    properties: &RuleProperties,
    lanes: &BTreeMap<Lane, bool>,
    lists: &Lists,
    at: &KeyPath,
    faults: &mut Faults,
) -> Option<Rule> {
    let mut compiler = Compiler { salt: &properties.name, lists, faults };
    let when = properties.when.as_ref().map(|when| compiler.condition(when, &at.key("when")));
    let (target, lane_on) = target(&properties.lane, lanes, &at.key("lane"), faults)?;
    let off = match (properties.enabled, lane_on) {
        (false, _) => Some("the rule is switched off"),
        (true, false) => Some("the lane is switched off"),
        (true, true) => None,
    };
    let when = match when {
        Some(condition) => Some(condition?),
        None => None,
    };
    // It may be without its condition, and would take what is not its own.
    if !faults.is_whole(at) {
        return None;
    }
    let expires = properties.expires.map(|expires| expires.0);
    Some(Rule { name: properties.name.as_str().into(), target, when, off, expires })
}

/// Reads where a rule sends requests, and whether that lane is switched on.
fn target(
    word: &str,
    lanes: &BTreeMap<Lane, bool>,
    at: &KeyPath,
    faults: &mut Faults,
) -> Option<(GrayStatus, bool)> {
    match word {
        "base" => return Some((GrayStatus::Prod, true)),
        "all" => return Some((GrayStatus::All, true)),
        _ => {}
    }
    let lane = word.parse::<Lane>().ok();
    if let Some((lane, on)) = lane.and_then(|lane| lanes.get_key_value(&lane)) {
        return Some((GrayStatus::Gray(*lane), *on));
    }
    let known: Vec<&str> = lanes.keys().map(Lane::as_str).chain(["base", "all"]).collect();
    let help = did_you_mean(word, known.iter().copied()).map_or_else(
        || format!("one of {}", known.join(", ")),
        |it| format!("did you mean `{it}`?"),
    );
    faults.error_with_help(at, format!("there is no lane `{word}`"), Some(help));
    None
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gray_config::{Document, live};
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;
    use crate::{Head, List, Place, Places, RuleSet, Senses, UserProperties, Users};

    fn lanes() -> BTreeMap<Lane, bool> {
        [("gray", true), ("blue", true), ("off", false)]
            .map(|(name, on)| (name.parse().unwrap(), on))
            .into()
    }

    fn lists() -> Lists {
        let lists = [("vips", "1001\n1002\n"), ("nets", "10.1.0.0/16\n"), ("bad", "x\n")];
        Lists(lists.map(|(name, text)| (name.to_owned(), List::new(text))).into())
    }

    /// Reads a list of rules, with everything that is wrong with it.
    fn read(text: &str) -> (Vec<Rule>, String) {
        let document = Document::parse("rules", text).unwrap();
        let mut faults = Faults::default();
        let at = KeyPath::ROOT;
        let properties: Vec<RuleProperties> = document.read(&at, &mut faults).unwrap_or_default();
        let rules = rules_of(&properties, &lanes(), &lists(), &at, &mut faults);
        (rules, document.problems(&faults).to_string())
    }

    fn senses() -> Senses {
        let mut faults = Faults::default();
        let users = Users::open(&UserProperties::default(), &KeyPath::ROOT, &mut faults);
        let place = Place::new(&["CN"], &["广东省"], &["深圳市"]);
        let places = Places::new(vec![("1.2.3.0/24".parse().unwrap(), place)], Vec::new());
        Senses { users, places, issued_cookie: Some("gid".to_owned()) }
    }

    /// Classifies `METHOD TARGET from ADDRESS | header: value | …` by one condition.
    #[track_caller]
    fn check(condition: &str, request: &str, expected: bool) {
        let text = format!("[{{name: r, when: {condition}}}]");
        let (rules, problems) = read(&text);
        assert_eq!(problems, "", "{condition}");
        let mut parts = request.split(" | ");
        let words: Vec<&str> = parts.next().unwrap().split(' ').collect();
        let (path, query) =
            words[1].split_once('?').map_or((words[1], None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        for (name, value) in parts.filter_map(|part| part.split_once(": ")) {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let client: IpAddr = words.get(3).unwrap_or(&"9.9.9.9").parse().unwrap();
        let method: Method = words[0].parse().unwrap();
        let headers = &headers;
        let head = Head { method: &method, path, query, target_host: None, headers, client };
        let rules = RuleSet::new(rules, live(senses()).1);
        let hit = rules.classify(&head).rule.is_some();
        assert_eq!(hit, expected, "{condition} for {request}: {:#?}", rules.explain(&head));
    }

    #[test]
    fn headers_queries_and_cookies_are_looked_at_by_name() {
        check("{header: {name: X-Env, equal: test}}", "GET / | x-env: test", true);
        check("{header: {name: X-Env, equal: test}}", "GET / | x-env: Test", false);
        check("{header: {name: x, equal: test, ignoreCase: true}}", "GET / | x: TeSt", true);
        check("{header: {name: x, equal: a}}", "GET / | x: b | x: a", false);
        check("{header: {name: x, not_equal: a}}", "GET /", true);
        check("{header: {name: x, exists: false}}", "GET /", true);
        check("{query: {name: uid, in: [7, 8]}}", "GET /?a=1&uid=7", true);
        check("{query: {name: uid, in: [7, 8]}}", "GET /?uid=9", false);
        check("{cookie: {name: c, prefix: v2}}", "GET / | cookie: a=1; c=v2.1", true);
        check("{cookie: {name: c, regex: '^v[0-9]+$'}}", "GET / | cookie: c=v12", true);
        check("{header: {name: x, percentage: 100}}", "GET / | x: a", true);
    }

    #[test]
    fn the_request_line_is_looked_at_as_it_was_sent() {
        check("{path: {prefix: /order/}}", "GET /order/1", true);
        check("{path: {suffix: .json}}", "GET /order/1.json", true);
        check("{path: {contains: '%2e'}}", "GET /a/%2e/b", true);
        check("{method: {in: [POST, PUT]}}", "GET /", false);
        check("{host: {equal: gray.example.com}}", "GET / | host: gray.example.com", true);
    }

    #[test]
    fn addresses_and_places_are_known() {
        check("{clientIp: {in: [10.0.0.0/8, 127.0.0.1]}}", "GET / from 10.1.2.3", true);
        check("{clientIp: {notIn: [10.0.0.0/8]}}", "GET / from 10.1.2.3", false);
        check("{clientIp: {equal: 127.0.0.1}}", "GET / from ::ffff:127.0.0.1", true);
        check("{clientIp: {inList: nets}}", "GET / from 10.1.2.3", true);
        check("{clientIp: {percentage: 0}}", "GET / from 10.1.2.3", false);
        check("{city: {in: [Shenzhen]}}", "GET / from 1.2.3.4", true);
        check("{city: {equal: 深圳}}", "GET / from 1.2.3.4", true);
        check("{province: {equal: Guangdong}}", "GET / from 1.2.3.4", true);
        check("{country: {notIn: [中国]}}", "GET / from 1.2.3.4", false);
        check("{city: {exists: false}}", "GET / from 9.9.9.9", true);
        check("{city: {notIn: [深圳]}}", "GET / from 9.9.9.9", true);
    }

    #[test]
    fn users_are_known_by_header_cookie_or_query() {
        check("{user: {in: [1001]}}", "GET / | x-user-no: 1001", true);
        check("{user: {inList: vips}}", "GET / | cookie: userNo=1002", true);
        check("{user: {inList: vips}}", "GET /?userNo=1003", false);
        check("{user: {exists: true}}", "GET /", false);
    }

    #[test]
    fn conditions_nest() {
        let nested = "{all: [{not: {method: {equal: POST}}}, {any: [{path: {equal: /a}}, \
                      {path: {equal: /b}}]}]}";
        check(nested, "GET /b", true);
        check(nested, "POST /b", false);
        check(nested, "GET /c", false);
    }

    #[test]
    fn shares_are_taken_by_the_first_key_that_is_there() {
        check("{percentage: {share: 100}}", "GET /", true);
        check("{percentage: {share: 0}}", "GET /", false);
        check("{percentage: {share: 100, by: [user]}}", "GET /", false);
        check("{percentage: {share: 0, by: [user], noKey: hit}}", "GET /", true);
        check("{percentage: {share: 100, by: [{cookie: c}, issuedCookie]}}", "GET /", true);
    }

    #[test]
    fn time_passes() {
        check("{time: {from: 2000-01-01T00:00:00Z}}", "GET /", true);
        check("{time: {until: 2000-01-01T00:00:00+08:00}}", "GET /", false);
        check("{time: {daily: '00:00-23:59:59.999', zone: Asia/Shanghai}}", "GET /", true);
    }

    #[track_caller]
    fn check_wrong(rule: &str, expected: &str) {
        let (_, problems) = read(&format!("- {rule}"));
        assert!(problems.contains(expected), "{rule}: {problems}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        check_wrong("{name: a, when: {heade: {name: x, equal: 1}}}", "did you mean `header`?");
        check_wrong("{name: a, when: {header: {equal: 1}}}", "[0].when.header: the key `name` is");
        check_wrong("{name: a, when: {header: {name: x}}}", "an operator is missing");
        check_wrong("{name: a, when: {path: {equal: a, prefix: b}}}", "only one operator");
        check_wrong("{name: a, when: {path: {name: a, prefix: b}}}", "take a name");
        check_wrong("{name: a, when: {path: {regex: '('}}}", "[0].when.path.regex: ");
        check_wrong("{name: a, when: {path: {regex: '((a{100}){100}){100}'}}}", "too large");
        check_wrong("{name: a, when: {clientIp: {in: [1.1.1.1, x]}}}", "in[1]: \"x\" is neither");
        check_wrong("{name: a, when: {clientIp: {prefix: '10.'}}}", "`prefix` does not apply");
        check_wrong("{name: a, when: {clientIp: {inList: bad}}}", "list `bad`, line 1");
        check_wrong("{name: a, when: {user: {inList: vip}}}", "did you mean `vips`?");
        check_wrong("{name: a, when: {percentage: {share: 101}}}", "101 is no percentage");
        check_wrong("{name: a, when: {percentage: {share: 5, by: []}}}", "at least one key");
        check_wrong("{name: a, when: {time: {zone: Mars}}}", "no time zone `Mars`");
        check_wrong("{name: a, when: {all: []}}", "an empty list of conditions");
        check_wrong("{name: a, lane: blu}", "did you mean `blue`?");
        check_wrong("{name: a, expires: tomorrow}", "is no moment");
        check_wrong("{name: ''}", "a rule needs a name");
        check_wrong("{name: a}\n- {name: a, enabled: false}", "a second rule is named `a`");
    }

    #[test]
    fn rules_that_are_off_or_expired_never_hit() {
        for rule in [
            "{name: a, enabled: false}",
            "{name: a, lane: \"off\"}",
            "{name: a, expires: 2000-01-01T00:00:00Z}",
        ] {
            let (rules, _) = read(&format!("- {rule}"));
            let (method, headers) = (Method::GET, HeaderMap::new());
            let client = "9.9.9.9".parse().unwrap();
            let head = Head {
                method: &method,
                path: "/",
                query: None,
                target_host: None,
                headers: &headers,
                client,
            };
            let set = RuleSet::new(rules, live(Senses::default()).1);
            assert_eq!(set.classify(&head).status, GrayStatus::Prod, "{rule}");
            assert!(set.explain(&head).1.rules[0].off.is_some(), "{rule}");
        }
    }
}
