//! Algorithms that choose among instances which may all serve the request.

mod consistent_hash;
mod least_request;
mod random;
mod round_robin;
mod schedule;

use std::fmt::Debug;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Member;

use self::consistent_hash::ConsistentHash;
use self::least_request::LeastRequest;
use self::random::Random;
use self::round_robin::RoundRobin;

/// Chooses among the members it was made for.
pub trait Picker: Debug + Send + Sync {
    /// Returns the position of a member; any number if there are none.
    ///
    /// `key` is what an algorithm that is sticky keeps to.
    fn pick(&self, members: &[Arc<Member>], key: Option<u64>) -> usize;

    /// Returns where the next one of the same kind should go on.
    fn position(&self) -> usize {
        0
    }
}

/// An algorithm by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// In turn; smoothly by weight where weights differ.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The one of two random members with fewer requests for its weight.
    LeastRequest,
    /// The same member for the same key, most of which keep theirs when members change.
    ConsistentHash,
}

impl Algorithm {
    /// Makes a picker for these members that goes on where another one stopped.
    pub(crate) fn picker(self, members: &[Arc<Member>], position: usize) -> Box<dyn Picker> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::new(members, position)),
            Self::Random => Box::new(Random::new(members)),
            Self::LeastRequest => Box::new(LeastRequest),
            Self::ConsistentHash => Box::new(ConsistentHash::new(members)),
        }
    }
}

#[cfg(test)]
pub(crate) fn members(weights: &[f64]) -> Vec<Arc<Member>> {
    use crate::{Instance, Weight};

    let member = |(port, weight): (u16, &f64)| {
        let instance = Instance::new(([127, 0, 0, 1], port).into());
        Arc::new(Member::new(Instance { weight: Weight::new(*weight).unwrap(), ..instance }))
    };
    (1..).zip(weights).map(member).collect()
}
