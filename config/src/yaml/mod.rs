//! YAML as a tree that knows where each value stands and keeps scalars as they were written.
//!
//! serde-saphyr stops at the first error and turns `1.10` into a number; an operator wants all
//! errors at once, and a version named `1.10` to stay that. So the tree is built here from the
//! events of serde-saphyr's own parser, and read by a serde deserializer that can go on after an
//! error.

mod access;
mod error;
mod interpolate;
mod nest;
mod node;
mod parse;
mod read;
mod repair;

pub(crate) use self::interpolate::{interpolate, mark};
pub(crate) use self::nest::nest;
pub(crate) use self::node::{Entry, Kind, Node, Origin};
pub(crate) use self::parse::{Syntax, parse, parse_noting};
pub(crate) use self::read::read;
pub(crate) use self::repair::{needs_repair, repair};
