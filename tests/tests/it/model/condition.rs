//! Conditions of the model: how they are written, and when they hold, by semantics alone.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a request says.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub(super) headers: [Option<&'static str>; 2],
    pub(super) cookie: Option<&'static str>,
    /// The cookie that the gateway has given it.
    pub(super) issued: &'static str,
    pub(super) query: Option<&'static str>,
    /// The user's number, and where it stands: header, cookie or query.
    pub(super) user: Option<(usize, &'static str)>,
    pub(super) path: &'static str,
    pub(super) host: &'static str,
    pub(super) method: &'static str,
    /// The second part of the client's address, which says where it is, and the last.
    pub(super) client: (u8, u8),
    pub(super) family: Family,
}

/// How a client's address is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    /// `10.x.0.y`.
    V4,
    /// The same as an IPv6 address (RFC 4291, 2.5.5.2), which means nothing else.
    Mapped,
    /// `2001:db8:x::y`, which is nowhere.
    V6,
}

impl Asks {
    pub(super) fn address(&self) -> IpAddr {
        let (net, last) = self.client;
        let v4 = Ipv4Addr::new(10, net, 0, last);
        match self.family {
            Family::V4 => v4.into(),
            Family::Mapped => v4.to_ipv6_mapped().into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, last.into()).into(),
        }
    }

    /// The net of an IPv4 address.
    pub(super) fn net4(&self) -> Option<u8> {
        (!matches!(self.family, Family::V6)).then_some(self.client.0)
    }
}

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Header(usize),
    Cookie,
    Query,
    User,
    Path,
    Host,
    Method,
}

/// What stands in the list `words`.
pub(super) const LISTED: [&str; 5] = ["v1", "1001", "/p1/x", "a.example", "POST"];

/// What stands in the list `nets`: the first net of either family.
pub(super) const NETS: &str = "10.0.0.0/16\n2001:db8::/48\n";

const WORDS: [&str; 4] = ["v0", "v1", "v2", "V1"];
const USERS: [&str; 3] = ["1001", "1002", "2001"];
const PATHS: [&str; 3] = ["/p0/x", "/p1/x", "/P1/x"];
const HOSTS: [&str; 2] = ["a.example", "b.example"];
const METHODS: [&str; 2] = ["GET", "POST"];

const ISSUED: [&str; 3] = ["k1", "k2", "k3"];

/// Names of the two cities that are known, by the second part of an address.
const CITIES: [[&str; 3]; 2] = [["深圳", "深圳市", "Shenzhen"], ["广州", "广州市", "Guangzhou"]];

/// Names of their provinces, and of their countries.
const PROVINCES: [[&str; 3]; 2] = [["广东", "广东省", "guangdong"], ["海南", "海南省", "Hainan"]];
const COUNTRIES: [[&str; 2]; 2] = [["CN", "cn"], ["SG", "sg"]];

impl Place {
    const fn pool(self) -> &'static [&'static str] {
        match self {
            Self::Header(_) | Self::Cookie | Self::Query => &WORDS,
            Self::User => &USERS,
            Self::Path => &PATHS,
            Self::Host => &HOSTS,
            Self::Method => &METHODS,
        }
    }

    fn of(self, asks: &Asks) -> Option<&'static str> {
        match self {
            Self::Header(number) => asks.headers[number],
            Self::Cookie => asks.cookie,
            Self::Query => asks.query,
            Self::User => asks.user.map(|(_, user)| user),
            Self::Path => Some(asks.path),
            Self::Host => Some(asks.host),
            Self::Method => Some(asks.method),
        }
    }

    fn yaml(self, test: &str) -> String {
        match self {
            Self::Header(number) => format!("{{header: {{name: h{number}, {test}}}}}"),
            Self::Cookie => format!("{{cookie: {{name: c, {test}}}}}"),
            Self::Query => format!("{{query: {{name: q, {test}}}}}"),
            Self::User => format!("{{user: {{{test}}}}}"),
            Self::Path => format!("{{path: {{{test}}}}}"),
            Self::Host => format!("{{host: {{{test}}}}}"),
            Self::Method => format!("{{method: {{{test}}}}}"),
        }
    }
}

/// What is asked of a text.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Equal(String),
    NotEqual(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    In(Vec<&'static str>),
    NotIn(Vec<&'static str>),
    /// In the list `words`, or not.
    Listed(bool),
    /// A pattern, and whether it matches.
    Regex(&'static str, fn(&str) -> bool),
    Exists(bool),
    /// In steps of 0.01 %.
    Share(u16),
}

impl Op {
    fn yaml(&self) -> String {
        let list = |words: &[&str]| {
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Equal(text) => format!("equal: '{text}'"),
            Self::NotEqual(text) => format!("notEqual: '{text}'"),
            Self::Prefix(text) => format!("prefix: '{text}'"),
            Self::Suffix(text) => format!("suffix: '{text}'"),
            Self::Contains(text) => format!("contains: '{text}'"),
            Self::In(words) => format!("in: [{}]", list(words)),
            Self::NotIn(words) => format!("notIn: [{}]", list(words)),
            Self::Listed(true) => "inList: words".to_owned(),
            Self::Listed(false) => "notInList: words".to_owned(),
            Self::Regex(pattern, _) => format!("regex: '{pattern}'"),
            Self::Exists(exists) => format!("exists: {exists}"),
            Self::Share(steps) => format!("percentage: {}", f64::from(*steps) / 100.0),
        }
    }

    /// Tells whether it holds, in the rule of this name.
    fn holds(&self, value: Option<&str>, ignore_case: bool, rule: &str) -> bool {
        let fold = |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.into() };
        let value = value.map(fold);
        let is = |test: &dyn Fn(&str) -> bool| value.as_deref().is_some_and(test);
        match self {
            Self::Equal(text) => is(&|it| it == fold(text)),
            Self::NotEqual(text) => !is(&|it| it == fold(text)),
            Self::Prefix(text) => is(&|it| it.starts_with(&fold(text))),
            Self::Suffix(text) => is(&|it| it.ends_with(&fold(text))),
            Self::Contains(text) => is(&|it| it.contains(&fold(text))),
            Self::In(words) => is(&|it| words.iter().any(|word| fold(word) == it)),
            Self::NotIn(words) => !is(&|it| words.iter().any(|word| fold(word) == it)),
            Self::Listed(inside) => is(&|it| LISTED.iter().any(|word| fold(word) == it)) == *inside,
            Self::Regex(_, matches) => is(matches),
            Self::Exists(exists) => value.is_some() == *exists,
            Self::Share(steps) => is(&|it| bucket(rule, it.as_bytes()) < *steps),
        }
    }
}

/// What a share goes by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    Text(Place),
    Address,
    Issued,
}

/// A condition of the model.
#[derive(Clone, Debug)]
pub(super) enum Cond {
    Text(Place, Op, bool),
    Network(u8, bool),
    Network6(u8, bool),
    /// In the list `nets`, or not.
    ListedNetwork(bool),
    City(usize, usize, bool),
    Province(usize, usize, bool),
    Country(usize, usize, bool),
    /// Steps of 0.01 %, keys, a salt of its own, and whether a request without a key is in.
    Share(u16, Vec<Key>, Option<u8>, bool),
    /// When, and whether that is so today.
    Time(&'static str, bool),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl Cond {
    pub(super) fn yaml(&self) -> String {
        let list = |parts: &[Self]| parts.iter().map(Self::yaml).collect::<Vec<_>>().join(", ");
        let inside = |inside: &bool| if *inside { "in" } else { "notIn" };
        match self {
            Self::Text(place, op, true) => place.yaml(&format!("{}, ignoreCase: true", op.yaml())),
            Self::Text(place, op, false) => place.yaml(&op.yaml()),
            Self::Network(net, is) => {
                format!("{{clientIp: {{{}: [10.{net}.0.0/16]}}}}", inside(is))
            }
            Self::Network6(net, is) => {
                format!("{{clientIp: {{{}: ['2001:db8:{net}::/48']}}}}", inside(is))
            }
            Self::ListedNetwork(true) => "{clientIp: {inList: nets}}".to_owned(),
            Self::ListedNetwork(false) => "{clientIp: {notInList: nets}}".to_owned(),
            Self::City(city, name, is) => {
                format!("{{city: {{{}: [{}]}}}}", inside(is), CITIES[*city][*name])
            }
            Self::Province(place, name, is) => {
                format!("{{province: {{{}: [{}]}}}}", inside(is), PROVINCES[*place][*name])
            }
            Self::Country(place, name, is) => {
                format!("{{country: {{{}: [{}]}}}}", inside(is), COUNTRIES[*place][*name])
            }
            Self::Share(steps, keys, salt, no_key) => {
                let keys: Vec<String> = keys.iter().map(|key| key.yaml()).collect();
                let mut text =
                    format!("share: {}, by: [{}]", f64::from(*steps) / 100.0, keys.join(", "));
                if let Some(salt) = salt {
                    let _ = write!(text, ", salt: s{salt}");
                }
                let no_key = if *no_key { "hit" } else { "miss" };
                format!("{{percentage: {{{text}, noKey: {no_key}}}}}")
            }
            Self::Time(text, _) => format!("{{time: {{{text}}}}}"),
            Self::All(parts) => format!("{{all: [{}]}}", list(parts)),
            Self::Any(parts) => format!("{{any: [{}]}}", list(parts)),
            Self::Not(part) => format!("{{not: {}}}", part.yaml()),
        }
    }

    /// Tells whether it holds, in the rule of this name.
    pub(super) fn holds(&self, asks: &Asks, rule: &str) -> bool {
        match self {
            Self::Text(place, op, ignore_case) => op.holds(place.of(asks), *ignore_case, rule),
            Self::Network(net, inside) => (asks.net4() == Some(*net)) == *inside,
            Self::Network6(net, inside) => {
                (asks.net4().is_none() && asks.client.0 == *net) == *inside
            }
            Self::ListedNetwork(inside) => (asks.client.0 == 0) == *inside,
            // Each net is a city of its own, in a province and a country of its own.
            Self::City(place, _, inside)
            | Self::Province(place, _, inside)
            | Self::Country(place, _, inside) => {
                (asks.net4().map(usize::from) == Some(*place)) == *inside
            }
            Self::Share(steps, keys, salt, no_key) => {
                let salt = salt.map_or_else(|| rule.to_owned(), |salt| format!("s{salt}"));
                match keys.iter().find_map(|key| key.of(asks)) {
                    Some(key) => bucket(&salt, &key) < *steps,
                    None => *no_key,
                }
            }
            Self::Time(_, now) => *now,
            Self::All(parts) => parts.iter().all(|part| part.holds(asks, rule)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(asks, rule)),
            Self::Not(part) => !part.holds(asks, rule),
        }
    }
}

impl Key {
    fn yaml(self) -> String {
        match self {
            Self::Text(Place::Header(number)) => format!("{{header: h{number}}}"),
            Self::Text(Place::Cookie) => "{cookie: c}".to_owned(),
            Self::Text(Place::Query) => "{query: q}".to_owned(),
            Self::Text(_) => "user".to_owned(),
            Self::Address => "clientIp".to_owned(),
            Self::Issued => "issuedCookie".to_owned(),
        }
    }

    fn of(self, asks: &Asks) -> Option<Vec<u8>> {
        match self {
            Self::Text(place) => place.of(asks).map(|text| text.as_bytes().to_vec()),
            Self::Issued => Some(asks.issued.as_bytes().to_vec()),
            Self::Address => Some(match asks.address().to_canonical() {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            }),
        }
    }
}

/// A key's place among ten thousand.
fn bucket(salt: &str, key: &[u8]) -> u16 {
    let hash = xxh3_64_with_seed(key, xxh3_64(salt.as_bytes()));
    u16::try_from((u128::from(hash) * 10_000) >> 64).unwrap()
}

/// A pattern, and whether it matches.
type Pattern = (&'static str, fn(&str) -> bool);

const REGEXES: [Pattern; 4] = [
    ("^v[01]$", |it| it == "v0" || it == "v1"),
    ("1", |it| it.contains('1')),
    ("^(v|/p)", |it| it.starts_with('v') || it.starts_with("/p")),
    ("[0-9]{4}", |it| it.len() == 4 && it.bytes().all(|byte| byte.is_ascii_digit())),
];

fn op(place: Place) -> impl Strategy<Value = Op> {
    let word = || prop::sample::select(place.pool());
    let words = move || prop::collection::vec(word(), 0..3);
    let part =
        move || (word(), 0_usize..3).prop_map(|(word, cut)| word.chars().skip(cut).collect());
    prop_oneof![
        word().prop_map(|word| Op::Equal(word.to_owned())),
        word().prop_map(|word| Op::NotEqual(word.to_owned())),
        (word(), 1_usize..3)
            .prop_map(|(word, length)| Op::Prefix(word.chars().take(length).collect())),
        part().prop_map(Op::Suffix),
        part().prop_map(Op::Contains),
        words().prop_map(Op::In),
        words().prop_map(Op::NotIn),
        any::<bool>().prop_map(Op::Listed),
        prop::sample::select(&REGEXES[..]).prop_map(|(text, matches)| Op::Regex(text, matches)),
        any::<bool>().prop_map(Op::Exists),
        (0_u16..=10_000).prop_map(Op::Share),
    ]
}

fn text() -> impl Strategy<Value = Cond> {
    let place = prop::sample::select(vec![
        Place::Header(0),
        Place::Header(1),
        Place::Cookie,
        Place::Query,
        Place::User,
        Place::Path,
        Place::Host,
        Place::Method,
    ]);
    place.prop_flat_map(|place| {
        (op(place), any::<bool>()).prop_map(move |(op, ignore_case)| {
            // A pattern says itself what it ignores.
            let ignore_case =
                ignore_case && !matches!(op, Op::Regex(..) | Op::Exists(_) | Op::Share(_));
            Cond::Text(place, op, ignore_case)
        })
    })
}

fn share() -> impl Strategy<Value = Cond> {
    let key = prop::sample::select(vec![
        Key::Text(Place::User),
        Key::Text(Place::Header(0)),
        Key::Text(Place::Cookie),
        Key::Text(Place::Query),
        Key::Address,
        Key::Issued,
    ]);
    let steps = prop_oneof![Just(0), Just(10_000), 0_u16..=10_000];
    (steps, prop::collection::vec(key, 1..3), prop::option::of(0_u8..2), any::<bool>())
        .prop_map(|(steps, keys, salt, no_key)| Cond::Share(steps, keys, salt, no_key))
}

const TIMES: [(&str, bool); 4] = [
    ("from: '2000-01-01T00:00:00Z'", true),
    ("from: '2900-01-01T00:00:00Z'", false),
    ("until: '2000-01-01T00:00:00+08:00'", false),
    ("from: '2000-01-01T00:00:00Z', until: '2900-01-01T00:00:00Z'", true),
];

pub(super) fn cond() -> impl Strategy<Value = Cond> {
    let leaf = prop_oneof![
        4 => text(),
        1 => (0_u8..3, any::<bool>()).prop_map(|(net, inside)| Cond::Network(net, inside)),
        1 => (0_u8..3, any::<bool>()).prop_map(|(net, inside)| Cond::Network6(net, inside)),
        1 => any::<bool>().prop_map(Cond::ListedNetwork),
        1 => (0_usize..2, 0_usize..3, any::<bool>())
            .prop_map(|(city, name, inside)| Cond::City(city, name, inside)),
        1 => (0_usize..2, 0_usize..3, any::<bool>())
            .prop_map(|(place, name, inside)| Cond::Province(place, name, inside)),
        1 => (0_usize..2, 0_usize..2, any::<bool>())
            .prop_map(|(place, name, inside)| Cond::Country(place, name, inside)),
        2 => share(),
        1 => prop::sample::select(&TIMES[..]).prop_map(|(text, now)| Cond::Time(text, now)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            list.clone().prop_map(Cond::All),
            list.prop_map(Cond::Any),
            inner.prop_map(|part| Cond::Not(Box::new(part))),
        ]
    })
}

pub(super) fn asks() -> impl Strategy<Value = Asks> {
    let word = || prop::option::of(prop::sample::select(&WORDS[..]));
    let user = prop::option::of((0_usize..3, prop::sample::select(&USERS[..])));
    let path = prop::sample::select(&PATHS[..]);
    let host = prop::sample::select(&HOSTS[..]);
    let method = prop::sample::select(&METHODS[..]);
    let family =
        prop_oneof![3 => Just(Family::V4), 1 => Just(Family::Mapped), 1 => Just(Family::V6)];
    let client = ((0_u8..3, any::<u8>()), family);
    let cookies = (word(), prop::sample::select(&ISSUED[..]));
    ([word(), word()], cookies, word(), user, path, host, method, client).prop_map(
        |(headers, (cookie, issued), query, user, path, host, method, (client, family))| Asks {
            headers,
            cookie,
            issued,
            query,
            user,
            path,
            host,
            method,
            client,
            family,
        },
    )
}
