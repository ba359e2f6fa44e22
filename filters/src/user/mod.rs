//! Who the user of a request is.

mod jwt;

use gray_config::{Faults, KeyPath};
use gray_propagation::FieldName;
use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Head;
use crate::cookie::cookie;
use crate::query::parameter;

pub use self::jwt::{JwtError, JwtProperties, Jwts};

/// Where the user's number stands in a request, as an operator writes it; the first that is there
/// counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserProperties {
    /// The places to look at, in this order.
    pub from: Vec<UserSource>,
}

/// One place where the user's number may stand.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UserSource {
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// A claim of a signed token; an invalid token names nobody.
    Jwt(JwtProperties),
}

impl Default for UserProperties {
    fn default() -> Self {
        let name = || "userNo".to_owned();
        let header = UserSource::Header("x-user-no".to_owned());
        Self { from: vec![header, UserSource::Cookie(name()), UserSource::Query(name())] }
    }
}

/// Finds the user of a request.
#[derive(Debug, Default)]
pub struct Users(Vec<Finder>);

#[derive(Debug)]
enum Finder {
    Header(FieldName),
    Cookie(String),
    Query(String),
    Jwt(Box<Jwts>),
}

impl Users {
    /// Reads the properties, and the key files they name, noting what is wrong.
    pub fn open(properties: &UserProperties, at: &KeyPath, faults: &mut Faults) -> Self {
        let mut finders = Vec::new();
        for (index, source) in properties.from.iter().enumerate() {
            let at = at.key("from").index(index);
            finders.extend(match source {
                UserSource::Header(name) => {
                    let name = name
                        .parse::<HeaderName>()
                        .map_err(|_| format!("{name:?} is no header name"));
                    let name = faults.check(&at.key("header"), name);
                    name.map(|name| Finder::Header(name.into()))
                }
                UserSource::Cookie(name) => Some(Finder::Cookie(name.clone())),
                UserSource::Query(name) => Some(Finder::Query(name.clone())),
                UserSource::Jwt(jwt) => {
                    let jwts = Jwts::open(jwt);
                    let jwts = jwts.map_err(|error| error.in_full());
                    faults.check(&at.key("jwt"), jwts).map(|jwts| Finder::Jwt(Box::new(jwts)))
                }
            });
        }
        Self(finders)
    }

    /// Returns the user's number, as it was sent.
    pub(crate) fn find(&self, head: &Head<'_>) -> Option<Vec<u8>> {
        let found = self.0.iter().find_map(|finder| match finder {
            Finder::Header(name) => head.header(name).map(<[u8]>::to_vec),
            Finder::Cookie(name) => cookie(head.headers, name).map(<[u8]>::to_vec),
            Finder::Query(name) => head
                .query
                .and_then(|query| parameter(query, name))
                .map(std::borrow::Cow::into_owned),
            Finder::Jwt(jwts) => jwts.user(head.headers).map(String::into_bytes),
        });
        found.filter(|user| !user.is_empty())
    }
}
