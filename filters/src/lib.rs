//! Decides, once per request, which lane it travels in.
//!
//! A [`RuleSet`] is what an operator's document means; [`RuleSet::classify`] is a pure function from
//! a request's [`Head`] to a [`Verdict`], and [`Classify`] the tower layer around it. This crate
//! does not know that services have instances.

mod cidr;
mod classify;
mod client_addr;
mod condition;
mod cookie;
mod explain;
mod head;
mod implies;
mod lists;
mod names;
mod operator;
mod place;
mod properties;
mod query;
mod ranges;
mod rule_set;
mod senses;
mod share;
mod user;
mod window;

pub use self::cidr::{CidrSet, InvalidCidr};
pub use self::classify::{Classified, Classify, ClassifyLayer, Subject};
pub use self::client_addr::{ClientAddr, TrustedProxies};
pub use self::explain::{ConditionReport, Explanation, RuleReport};
pub use self::head::Head;
pub use self::lists::{List, Lists};
pub use self::names::NameSet;
pub use self::place::{
    Database, DatabaseError, InvalidXdb, OverrideProperties, Place, PlaceProperties, Places,
};
pub use self::properties::{
    ConditionProperties, GrayGatewayProperties, KeyProperties, NoKey, PercentageProperties,
    RuleProperties, TestProperties, Timestamp, WeekdayWord, WindowProperties, rules_of,
    warn_of_missing, warn_of_places,
};
pub use self::rule_set::{Rule, RuleSet, Unknown, Verdict};
pub use self::senses::Senses;
pub use self::share::IssuedId;
pub use self::user::{JwtError, JwtProperties, Jwts, UserProperties, UserSource, Users};
