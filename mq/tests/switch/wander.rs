//! Long random walks through worlds that are too large to be explored.

use crate::world::{Step, World};

/// How many steps a walk has at most.
const STEPS: usize = 600;

/// Takes steps at random through more than can be explored, and lets those that work go on at the end;
/// returns what is wrong then, or was on the way, with the way.
pub(crate) fn wander(start: World, seed: u64) -> Option<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut world, mut way) = (start, Vec::<Step>::new());
    for _ in 0..STEPS {
        let mut steps = world.steps();
        random.shuffle(&mut steps);
        let taken = steps.into_iter().find_map(|step| Some((step, world.after(step)?)));
        let Some((step, next)) = taken else { break };
        way.push(step);
        world = next;
        if let Some(wrong) = world.wrong() {
            return Some(format!("seed {seed}: {wrong}, after {way:?}"));
        }
    }
    world.settle().map(|wrong| format!("seed {seed}: {wrong} in the end, after {way:?}"))
}
