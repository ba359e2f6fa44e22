use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::schedule::Schedule;
use super::{Member, Picker};

/// Picks the members in turn, each as often as its weight says.
#[derive(Debug)]
pub(super) struct RoundRobin {
    next: AtomicUsize,
    schedule: Option<Schedule>,
}

impl RoundRobin {
    pub(super) fn new(members: &[Arc<Member>], position: usize) -> Self {
        Self { next: AtomicUsize::new(position), schedule: Schedule::new(members) }
    }
}

impl Picker for RoundRobin {
    fn pick(&self, members: &[Arc<Member>], _: Option<u64>) -> usize {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        match &self.schedule {
            Some(schedule) => schedule.turn(turn),
            None => turn.checked_rem(members.len()).unwrap_or_default(),
        }
    }

    fn position(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::members;
    use super::*;

    #[track_caller]
    fn check(weights: &[f64], expected: &[usize]) {
        let members = members(weights);
        let picker = RoundRobin::new(&members, 0);
        let picks: Vec<usize> = expected.iter().map(|_| picker.pick(&members, None)).collect();
        assert_eq!(picks, expected, "{weights:?}");
    }

    #[test]
    fn goes_round() {
        check(&[1.0, 1.0, 1.0], &[0, 1, 2, 0, 1, 2]);
        check(&[2.5], &[0, 0]);
        check(&[], &[0]);
    }

    #[test]
    fn is_smooth_where_weights_differ() {
        check(&[5.0, 1.0, 1.0], &[0, 0, 1, 0, 2, 0, 0, 0]);
        check(&[1.0, 3.0], &[1, 0, 1, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn extreme_weights_still_give_everyone_a_turn() {
        let members = members(&[10_000.0, 0.001]);
        let picker = RoundRobin::new(&members, 0);
        assert!((0..5000).any(|_| picker.pick(&members, None) == 1));
    }
}
