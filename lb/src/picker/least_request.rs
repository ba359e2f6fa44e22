use std::sync::Arc;

use super::{Member, Picker};

/// Picks the one of two random members that serves fewer requests for its weight.
///
/// Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
#[derive(Debug)]
pub(super) struct LeastRequest;

impl Picker for LeastRequest {
    fn pick(&self, members: &[Arc<Member>], _: Option<u64>) -> usize {
        let Some(others) = members.len().checked_sub(1) else { return 0 };
        let one = fastrand::usize(..=others);
        let Some(step) = others.checked_sub(1) else { return one };
        let other = (one + 1 + fastrand::usize(..=step)) % members.len();
        match (members.get(one).map(load), members.get(other).map(load)) {
            (Some(first), Some(second)) if second < first => other,
            _ => one,
        }
    }
}

/// Requests per weight, in a form that compares as a whole number.
fn load(member: &Arc<Member>) -> u64 {
    let requests = u64::try_from(member.in_flight()).unwrap_or(u64::MAX).saturating_add(1);
    let weight = u64::from(member.instance().weight.thousandths()).max(1);
    requests.saturating_mul(1_000_000) / weight
}

#[cfg(test)]
mod tests {
    use super::super::members;
    use super::*;

    #[test]
    fn never_picks_the_busier_of_two() {
        let members = members(&[1.0, 1.0]);
        let _busy = members[0].begin();
        assert!((0..100).all(|_| LeastRequest.pick(&members, None) == 1));
    }

    #[test]
    fn weighs_requests() {
        let members = members(&[10.0, 1.0]);
        let _busy = members[0].begin();
        assert!((0..100).all(|_| LeastRequest.pick(&members, None) == 0));
    }

    #[test]
    fn copes_with_one_and_with_none() {
        assert_eq!(LeastRequest.pick(&members(&[1.0]), None), 0);
        assert_eq!(LeastRequest.pick(&[], None), 0);
    }
}
