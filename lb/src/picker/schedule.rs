use std::sync::Arc;

use crate::Member;

/// How many turns a schedule has at most.
const MAX_TURNS: u64 = 4096;

/// Turns in which members come up as often as their weights say, as evenly as can be.
///
/// Computed once, so that a pick needs no lock. The order is that of nginx's smooth weighted round
/// robin: in each turn everyone gains its weight, the highest is chosen and pays the total.
#[derive(Debug)]
pub(super) struct Schedule(Vec<u16>);

impl Schedule {
    /// Makes a schedule; `None` where all weights are equal and turns go round.
    pub(super) fn new(members: &[Arc<Member>]) -> Option<Self> {
        let weights: Vec<u64> =
            members.iter().map(|it| u64::from(it.instance().weight.thousandths())).collect();
        let first = weights.first()?;
        if weights.iter().all(|weight| weight == first) {
            return None;
        }
        let weights = scaled(&weights);
        let total: i64 = weights.iter().sum();
        let mut credit = vec![0_i64; weights.len()];
        let turns = (0..total).filter_map(|_| {
            credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
            let best = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit)?.0;
            if let Some(credit) = credit.get_mut(best) {
                *credit -= total;
            }
            u16::try_from(best).ok()
        });
        Some(Self(turns.collect()))
    }

    /// Returns the member of a turn.
    pub(super) fn turn(&self, turn: usize) -> usize {
        let turn = turn.checked_rem(self.0.len()).unwrap_or_default();
        self.0.get(turn).copied().unwrap_or_default().into()
    }

    /// Returns how many turns there are.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

/// Divides by the common divisor, and makes the sum fit.
fn scaled(weights: &[u64]) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|weight| weight / divisor).sum();
    let scale = |weight: &u64| match weight / divisor {
        weight if sum <= MAX_TURNS => weight,
        weight => (weight * MAX_TURNS / sum).max(1),
    };
    weights.iter().map(scale).filter_map(|weight| i64::try_from(weight).ok()).collect()
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
