//! Every world that can be reached is visited once, and how it was reached is kept for the report.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::world::{Step, World};

/// The hash of a world, wide enough for two never to share one.
type Key = (u64, u64);

/// How each world was reached that has been seen.
struct Seen {
    hasher: BuildHasherDefault<DefaultHasher>,
    reached: HashMap<Key, Option<(Key, Step)>>,
}

impl Seen {
    fn key(&self, world: &World) -> Key {
        (self.hasher.hash_one(world), self.hasher.hash_one((world, 1)))
    }

    /// The steps from the first world to this one.
    fn way(&self, to: Key) -> String {
        let before = |(from, _): &(Key, Step)| self.reached[from];
        let steps = std::iter::successors(self.reached[&to], before);
        let mut way: Vec<String> = steps.map(|(_, step)| format!("{step:?}")).collect();
        way.reverse();
        way.join(", ")
    }
}

/// Explores everything that can happen, and returns how many worlds there are, and the shortest way
/// to a wrong one. One in so many worlds is settled, to see whether anything is lost: that takes long, and worlds
/// are alike.
pub(crate) fn explore(start: World, settled: u64) -> (usize, Option<String>) {
    let mut seen = Seen { hasher: BuildHasherDefault::new(), reached: HashMap::new() };
    seen.reached.insert(seen.key(&start), None);
    let mut queue = VecDeque::from([start]);
    while let Some(world) = queue.pop_front() {
        let at = seen.key(&world);
        let settled = || at.0.is_multiple_of(settled).then(|| world.clone().settle()).flatten();
        if let Some(wrong) = world.wrong().or_else(settled) {
            return (seen.reached.len(), Some(format!("{wrong}, after {}", seen.way(at))));
        }
        for (step, next) in world.successors() {
            let key = seen.key(&next);
            if let Entry::Vacant(entry) = seen.reached.entry(key) {
                entry.insert(Some((at, step)));
                queue.push_back(next);
            }
        }
    }
    (seen.reached.len(), None)
}
