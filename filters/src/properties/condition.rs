use std::sync::Arc;

use gray_config::{Faults, KeyPath};
use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spelling;
use super::test::TestProperties;
use super::window::WindowProperties;
use crate::cidr::CidrSet;
use crate::condition::{Condition, Key, Level, Percentage, Source};
use crate::lists::Lists;
use crate::names::NameSet;
use crate::operator::{Operator, Test};
use crate::place;
use crate::share::Share;

/// A condition as an operator writes it: one key that says what is looked at.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ConditionProperties {
    /// All of these hold.
    All(Vec<Self>),
    /// One of these holds.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// The first line of a header.
    Header(TestProperties),
    /// The first query parameter of a name, decoded.
    Query(TestProperties),
    /// A cookie.
    Cookie(TestProperties),
    /// The path as it was sent, not decoded.
    Path(TestProperties),
    /// The method.
    Method(TestProperties),
    /// The host that was asked for, without its port.
    Host(TestProperties),
    /// The client's address.
    ClientIp(TestProperties),
    /// The client's country.
    Country(TestProperties),
    /// The client's province.
    Province(TestProperties),
    /// The client's city.
    City(TestProperties),
    /// The user's number.
    User(TestProperties),
    /// A share of the clients, always the same ones.
    Percentage(PercentageProperties),
    /// A stretch of time.
    Time(WindowProperties),
}

/// A share of the clients as an operator writes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PercentageProperties {
    /// From 0 to 100, in steps of 0.01.
    pub share: f64,
    /// What a client is known by; the first that it has counts.
    #[serde(default = "user_then_address")]
    pub by: Vec<KeyProperties>,
    /// Rules with the same salt choose the same clients; the rule's name where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// What becomes of a client that has none of the keys.
    #[serde(default)]
    pub no_key: NoKey,
}

fn user_then_address() -> Vec<KeyProperties> {
    vec![KeyProperties::User, KeyProperties::ClientIp]
}

/// What a client is known by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KeyProperties {
    /// The user's number.
    User,
    /// The client's address.
    ClientIp,
    /// The cookie that the gateway gives to clients without any other key.
    IssuedCookie,
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// What becomes of a client without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NoKey {
    /// It is not in the share.
    #[default]
    Miss,
    /// It is in the share.
    Hit,
}

/// Turns conditions as they are written into conditions that are valid.
pub(super) struct Compiler<'a> {
    pub(super) salt: &'a str,
    pub(super) lists: &'a Lists,
    pub(super) faults: &'a mut Faults,
}

impl Compiler<'_> {
    pub(super) fn condition(
        &mut self,
        properties: &ConditionProperties,
        at: &KeyPath,
    ) -> Option<Condition> {
        use ConditionProperties as P;
        match properties {
            P::All(parts) => self.parts(parts, &at.key("all")).map(Condition::All),
            P::Any(parts) => self.parts(parts, &at.key("any")).map(Condition::Any),
            P::Not(part) => {
                self.condition(part, &at.key("not")).map(|part| Condition::Not(Box::new(part)))
            }
            P::Header(test) => {
                let at = at.key("header");
                let name = self.name(test, &at)?;
                let name = name.parse::<HeaderName>();
                let name = name.map_err(|_| "this is no header name".to_owned());
                let name = self.faults.check(&at.key("name"), name);
                let test = self.text(test, &at);
                Some(Condition::Text(Source::Header(name?.into()), test?))
            }
            P::Query(test) => self.named(test, &at.key("query"), Source::Query),
            P::Cookie(test) => self.named(test, &at.key("cookie"), Source::Cookie),
            P::Path(test) => self.unnamed(test, &at.key("path"), Source::Path),
            P::Method(test) => {
                spelling::warn_of_method(test, &at.key("method"), self.faults);
                self.unnamed(test, &at.key("method"), Source::Method)
            }
            P::Host(test) => {
                spelling::warn_of_host(test, &at.key("host"), self.faults);
                // A host's name does not mind case (RFC 9110, section 4.2.3).
                let test = TestProperties { ignore_case: true, ..test.clone() };
                self.unnamed(&test, &at.key("host"), Source::Host)
            }
            P::User(test) => self.unnamed(test, &at.key("user"), Source::User),
            P::ClientIp(test) => self.client(test, &at.key("clientIp")),
            P::Country(test) => self.place(test, &at.key("country"), Level::Country),
            P::Province(test) => self.place(test, &at.key("province"), Level::Province),
            P::City(test) => self.place(test, &at.key("city"), Level::City),
            P::Percentage(share) => self.percentage(share, &at.key("percentage")),
            P::Time(window) => window.compile(&at.key("time"), self.faults).map(Condition::Time),
        }
    }

    fn parts(&mut self, parts: &[ConditionProperties], at: &KeyPath) -> Option<Vec<Condition>> {
        if parts.is_empty() {
            self.faults
                .error(at, "an empty list of conditions; leave `when` out for every request");
        }
        let compiled: Vec<Option<Condition>> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| self.condition(part, &at.index(index)))
            .collect();
        compiled.into_iter().collect()
    }

    fn name<'a>(&mut self, test: &'a TestProperties, at: &KeyPath) -> Option<&'a str> {
        let name = test.name.as_deref().filter(|name| !name.is_empty());
        if name.is_none() {
            self.faults.error(at, "the key `name` is missing");
        }
        name
    }

    fn named(
        &mut self,
        test: &TestProperties,
        at: &KeyPath,
        source: impl Fn(String) -> Source,
    ) -> Option<Condition> {
        let name = self.name(test, at).map(str::to_owned);
        let test = self.text(test, at);
        Some(Condition::Text(source(name?), test?))
    }

    fn unnamed(
        &mut self,
        test: &TestProperties,
        at: &KeyPath,
        source: Source,
    ) -> Option<Condition> {
        self.no_name(test, at);
        Some(Condition::Text(source, self.text(test, at)?))
    }

    fn no_name(&mut self, test: &TestProperties, at: &KeyPath) {
        if test.name.is_some() {
            self.faults.error(&at.key("name"), "only header, query and cookie take a name");
        }
    }

    fn text(&mut self, test: &TestProperties, at: &KeyPath) -> Option<Test> {
        test.compile(self.salt, self.lists, at, self.faults)
    }

    fn client(&mut self, test: &TestProperties, at: &KeyPath) -> Option<Condition> {
        self.no_name(test, at);
        if let Some(percent) = test.percentage {
            test.only_operator(at, self.faults)?;
            return share(percent, self.salt, &at.key("percentage"), self.faults)
                .map(Condition::ClientShare);
        }
        let (word, entries, inside) = test.members(at, self.faults)?;
        let at = at.key(word);
        let set = match &test.list_name() {
            Some(name) => {
                let list = self.lists.find(name, &at, self.faults)?;
                let networks = list.networks();
                for error in networks.as_ref().err().into_iter().flatten() {
                    self.faults.error(&at, format!("list `{name}`, {error}"));
                }
                networks.ok()?.of_list(name)
            }
            None => match CidrSet::parse(entries.iter().map(String::as_str)) {
                Ok(set) => set,
                Err(errors) => {
                    let single = test.equal.is_some() || test.not_equal.is_some();
                    for (position, error) in errors {
                        let at = if single { at.clone() } else { at.index(position) };
                        self.faults.error(&at, error);
                    }
                    return None;
                }
            },
        };
        Some(Condition::Client { set: Arc::new(set), inside })
    }

    fn place(&mut self, test: &TestProperties, at: &KeyPath, level: Level) -> Option<Condition> {
        self.no_name(test, at);
        if let Some(known) = test.exists {
            test.only_operator(at, self.faults)?;
            return Some(Condition::PlaceKnown { level, known });
        }
        let (word, entries, inside) = test.members(at, self.faults)?;
        let fold = |name: &str| place::fold(name);
        let names: NameSet = match test.list_name() {
            Some(name) => {
                let list = self.lists.find(&name, &at.key(word), self.faults)?;
                list.entries().map(|(_, entry)| fold(entry)).collect::<NameSet>().of_list(&name)
            }
            None => entries.iter().map(|name| fold(name)).collect(),
        };
        Some(Condition::Place { level, names: Arc::new(names), inside })
    }

    fn percentage(&mut self, properties: &PercentageProperties, at: &KeyPath) -> Option<Condition> {
        let salt = properties.salt.clone().unwrap_or_else(|| self.salt.to_owned());
        let share = share(properties.share, &salt, &at.key("share"), self.faults);
        if properties.by.is_empty() {
            self.faults.error(&at.key("by"), "name at least one key, such as user or clientIp");
            return None;
        }
        let by: Vec<Option<Key>> = properties
            .by
            .iter()
            .enumerate()
            .map(|(index, key)| self.key(key, &at.key("by").index(index)))
            .collect();
        let by = by.into_iter().collect::<Option<Vec<Key>>>();
        let without_key = properties.no_key == NoKey::Hit;
        Some(Condition::Percentage(Percentage { share: share?, by: by?, without_key }))
    }

    fn key(&mut self, key: &KeyProperties, at: &KeyPath) -> Option<Key> {
        Some(match key {
            KeyProperties::User => Key::Text(Source::User),
            KeyProperties::ClientIp => Key::ClientIp,
            KeyProperties::IssuedCookie => Key::IssuedCookie,
            KeyProperties::Cookie(name) => Key::Text(Source::Cookie(name.clone())),
            KeyProperties::Query(name) => Key::Text(Source::Query(name.clone())),
            KeyProperties::Header(name) => {
                let parsed = name.parse::<HeaderName>();
                let parsed = parsed.map_err(|_| format!("{name:?} is no header name"));
                Key::Text(Source::Header(self.faults.check(at, parsed)?.into()))
            }
        })
    }
}

pub(super) fn share(percent: f64, salt: &str, at: &KeyPath, faults: &mut Faults) -> Option<Share> {
    let share = Share::new(percent, salt);
    if share.is_none() {
        faults.error(at, format!("{percent} is no percentage from 0 to 100 in steps of 0.01"));
    }
    share
}

impl Test {
    pub(super) const fn new(operator: Operator, ignore_case: bool) -> Self {
        Self { operator, ignore_case }
    }
}
