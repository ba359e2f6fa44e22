use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::{Member, Picker};

/// Points on the ring for a member of weight one.
const POINTS: u32 = 160;

/// Picks by a key's place on a ring (Karger et al., 1997): when members come or go, only the keys
/// nearest to them move. Without a key it picks at random.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    /// Sorted by the first number.
    ring: Vec<(u64, u32)>,
}

impl ConsistentHash {
    pub(super) fn new(members: &[Arc<Member>]) -> Self {
        let mut ring = Vec::new();
        for (number, member) in (0..).zip(members) {
            let instance = member.instance();
            let weight = instance.weight.thousandths().clamp(10, 10_000);
            for point in 0..POINTS * weight / 1000 {
                ring.push((xxh3_64(format!("{}#{point}", instance.addr).as_bytes()), number));
            }
        }
        ring.sort_unstable();
        Self { ring }
    }
}

impl Picker for ConsistentHash {
    fn pick(&self, members: &[Arc<Member>], key: Option<u64>) -> usize {
        let Some(key) = key else { return fastrand::usize(..members.len().max(1)) };
        let position = self.ring.partition_point(|(point, _)| *point < key);
        let point = self.ring.get(position).or_else(|| self.ring.first());
        point.map_or(0, |(_, number)| *number as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::members;
    use super::*;

    #[test]
    fn keeps_a_key_where_it_is() {
        let members = members(&[1.0, 1.0, 1.0]);
        let picker = ConsistentHash::new(&members);
        for key in 0..100 {
            let key = Some(xxh3_64(&[key]));
            assert_eq!(picker.pick(&members, key), picker.pick(&members, key));
        }
    }

    #[test]
    fn moves_few_keys_when_a_member_goes() {
        let all = members(&[1.0; 10]);
        let (before, after) = (ConsistentHash::new(&all), ConsistentHash::new(&all[..9]));
        let keys = (0..10_000_u32).map(|key| xxh3_64(&key.to_le_bytes()));
        let moved =
            keys.filter(|key| before.pick(&all, Some(*key)) != after.pick(&all, Some(*key)));
        let moved = moved.count();
        assert!(moved < 1_500, "{moved}");
    }
}
