use std::sync::Arc;

use super::schedule::Schedule;
use super::{Member, Picker};

/// Picks at random, each member as often as its weight says.
#[derive(Debug)]
pub(super) struct Random(Option<Schedule>);

impl Random {
    pub(super) fn new(members: &[Arc<Member>]) -> Self {
        Self(Schedule::new(members))
    }
}

impl Picker for Random {
    fn pick(&self, members: &[Arc<Member>], _: Option<u64>) -> usize {
        match &self.0 {
            Some(schedule) => schedule.turn(fastrand::usize(..schedule.len().max(1))),
            None => fastrand::usize(..members.len().max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::members;
    use super::*;

    #[test]
    fn follows_the_weights() {
        let members = members(&[1.0, 9.0]);
        let picker = Random::new(&members);
        let heavy = (0..10_000).filter(|_| picker.pick(&members, None) == 1).count();
        assert!((8_700..9_300).contains(&heavy), "{heavy}");
    }
}
