use std::sync::Arc;

use gray_propagation::FieldName;

use crate::cidr::CidrSet;
use crate::cookie::cookie;
use crate::names::NameSet;
use crate::operator::Test;
use crate::query::parameter;
use crate::senses::Subject;
use crate::share::{Share, address_key};
use crate::window::Window;

/// What must be so for a rule to hit: valid by construction.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Text(Source, Test),
    /// The client's address is in the set, or is not.
    Client {
        set: Arc<CidrSet>,
        inside: bool,
    },
    /// The client's address falls into the share.
    ClientShare(Share),
    /// One of the names of the client's place is in the set, or none is.
    Place {
        level: Level,
        names: Arc<NameSet>,
        inside: bool,
    },
    /// The client's place is known, or is not.
    PlaceKnown {
        level: Level,
        known: bool,
    },
    Percentage(Percentage),
    Time(Window),
}

/// Where a text of the request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Header(FieldName),
    Query(String),
    Cookie(String),
    Path,
    Method,
    Host,
    User,
}

/// How large a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Country,
    Province,
    City,
}

/// A share of the clients, known by the first key that they have.
#[derive(Clone, Debug)]
pub(crate) struct Percentage {
    pub(crate) share: Share,
    pub(crate) by: Vec<Key>,
    /// What is so for a client without any of the keys.
    pub(crate) without_key: bool,
}

/// What a client is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Text(Source),
    ClientIp,
    IssuedCookie,
}

impl Condition {
    /// Tells whether the condition holds for a request.
    pub(crate) fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(subject)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(subject)),
            Self::Not(part) => !part.holds(subject),
            Self::Text(source, test) => source.with(subject, |text| test.holds(text)),
            Self::Client { set, inside } => set.contains(subject.client()) == *inside,
            Self::ClientShare(share) => {
                let (key, length) = address_key(subject.client());
                share.holds(key.get(..length).unwrap_or_default())
            }
            Self::Place { level, names, inside } => {
                let known = level.names(subject);
                known.iter().any(|name| names.contains(name.as_bytes())) == *inside
            }
            Self::PlaceKnown { level, known } => level.names(subject).is_empty() != *known,
            Self::Percentage(percentage) => percentage.holds(subject),
            Self::Time(window) => window.holds(subject.now()),
        }
    }
}

impl Source {
    /// Passes the text to a function, or `None` where the request has none.
    pub(crate) fn with<T>(&self, subject: &Subject<'_>, f: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let head = subject.head;
        match self {
            Self::Header(name) => f(head.header(name)),
            Self::Query(name) => f(head.query.and_then(|query| parameter(query, name)).as_deref()),
            Self::Cookie(name) => f(cookie(head.headers, name)),
            Self::Path => f(Some(head.path.as_bytes())),
            Self::Method => f(Some(head.method.as_str().as_bytes())),
            Self::Host => f(head.host().map(str::as_bytes)),
            Self::User => f(subject.user()),
        }
    }
}

impl Level {
    pub(crate) fn names<'a>(self, subject: &'a Subject<'_>) -> &'a [String] {
        subject.place().map_or(&[], |place| place.names(self))
    }
}

impl Percentage {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        self.bucket(subject).map_or(self.without_key, |(_, hit)| hit)
    }

    /// Returns the bucket of the client's key and whether it is in; `None` without a key.
    pub(crate) fn bucket(&self, subject: &Subject<'_>) -> Option<(u16, bool)> {
        let of = |key: &[u8]| (self.share.bucket(key), self.share.holds(key));
        self.by.iter().find_map(|key| match key {
            Key::Text(source) => {
                source.with(subject, |text| text.filter(|text| !text.is_empty()).map(of))
            }
            Key::ClientIp => {
                let (key, length) = address_key(subject.client());
                key.get(..length).map(of)
            }
            Key::IssuedCookie => subject.issued_key().as_deref().map(of),
        })
    }
}
