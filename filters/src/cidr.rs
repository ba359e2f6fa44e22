use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses, written as single ones and as networks.
///
/// Kept as sorted, merged ranges, with an index in front, so that a look-up among a million networks
/// touches a handful of cache lines. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Clone, Default)]
pub struct CidrSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl CidrSet {
    /// Makes a set of networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push(v4_range(network)),
                IpNet::V6(network) => match mapped(network) {
                    Some(network) => v4.push(v4_range(network)),
                    None => {
                        v6.push((u128::from(network.network()), u128::from(network.broadcast())));
                    }
                },
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// Reads networks and single addresses.
    ///
    /// # Errors
    ///
    /// The first text that is neither, with its position.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, (usize, InvalidCidr)> {
        let networks = texts.into_iter().enumerate().map(|(position, text)| {
            parse_network(text).ok_or_else(|| (position, InvalidCidr(text.to_owned())))
        });
        networks.collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    /// Tells whether an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(u32::from(address)),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => self.v4.contains(u32::from(address)),
                None => self.v6.contains(u128::from(address)),
            },
        }
    }

    /// Returns how many separate ranges there are.
    pub fn len(&self) -> usize {
        self.v4.sorted.len() + self.v6.sorted.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether every address of this set is in the other one.
    pub fn is_within(&self, other: &Self) -> bool {
        self.v4.is_within(&other.v4) && self.v6.is_within(&other.v6)
    }
}

/// Sorted ranges that neither overlap nor touch, with an index by the bits that tell them apart: those
/// behind what all have in common, and so many that a value of them leaves a few ranges.
#[derive(Clone, Default)]
struct Ranges<T> {
    sorted: Vec<(T, T)>,
    /// For each value of those bits, the first range that ends there or later; one more for the end.
    index: Vec<u32>,
    /// How many of those bits there are, and how many stand behind them.
    bits: u32,
    shift: u32,
}

/// An address as a number.
trait Number: Copy + Ord {
    fn successor(self) -> Option<Self>;

    /// How many bits are left behind those that two numbers begin with in common.
    fn differing(self, other: Self) -> u32;

    /// So many bits, behind which there are so many.
    fn slot(self, bits: u32, shift: u32) -> usize;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn differing(self, other: Self) -> u32 {
                Self::BITS - (self ^ other).leading_zeros()
            }

            #[allow(clippy::cast_possible_truncation, reason = "what is cut off is masked")]
            fn slot(self, bits: u32, shift: u32) -> usize {
                (self >> shift) as usize & ((1 << bits) - 1)
            }
        }
    };
}

number!(u32);
number!(u128);

impl<T: Number> Ranges<T> {
    /// What fits in a megabyte.
    const MAX_BITS: u32 = 18;

    fn new(ranges: Vec<(T, T)>) -> Self {
        let sorted = merge(ranges);
        let (Some((first, _)), Some((_, last))) = (sorted.first(), sorted.last()) else {
            return Self { sorted, index: Vec::new(), bits: 0, shift: 0 };
        };
        let differing = first.differing(*last);
        let few = sorted.len().ilog2().saturating_sub(1);
        let bits = few.clamp(1, Self::MAX_BITS).min(differing);
        let shift = differing - bits;
        let mut index = Vec::with_capacity((1 << bits) + 1);
        for (position, (_, end)) in sorted.iter().enumerate() {
            // Every slot up to the one that it ends in begins with it, unless with an earlier one.
            let slots = end.slot(bits, shift) + 1;
            index.resize(slots.max(index.len()), u32::try_from(position).unwrap_or(u32::MAX));
        }
        index.resize((1 << bits) + 1, u32::try_from(sorted.len()).unwrap_or(u32::MAX));
        Self { sorted, index, bits, shift }
    }

    /// Ranges of a set never touch, so that what is within it is within one of them.
    fn is_within(&self, other: &Self) -> bool {
        self.sorted.iter().all(|(start, end)| {
            let position = other.sorted.partition_point(|(_, last)| last < end);
            other.sorted.get(position).is_some_and(|(first, _)| first <= start)
        })
    }

    fn contains(&self, address: T) -> bool {
        let (Some((first, _)), Some((_, last))) = (self.sorted.first(), self.sorted.last()) else {
            return false;
        };
        if address < *first || address > *last {
            return false;
        }
        let slot = address.slot(self.bits, self.shift);
        let (Some(from), Some(to)) = (self.index.get(slot), self.index.get(slot + 1)) else {
            return false;
        };
        // The range that reaches into the next slot is the last candidate.
        let to = (*to as usize + 1).min(self.sorted.len());
        let ranges = self.sorted.get(*from as usize..to).unwrap_or_default();
        let position = ranges.partition_point(|(_, end)| *end < address);
        ranges.get(position).is_some_and(|(start, _)| *start <= address)
    }
}

impl fmt::Debug for CidrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CidrSet({} ranges)", self.len())
    }
}

/// A text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network; write 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32")]
pub struct InvalidCidr(pub String);

/// Reads `10.0.0.0/8`, `10.0.0.1`, `::1`; host bits of a network are ignored.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn v4_range(network: Ipv4Net) -> (u32, u32) {
    (u32::from(network.network()), u32::from(network.broadcast()))
}

fn mapped(network: Ipv6Net) -> Option<Ipv4Net> {
    let prefix = network.prefix_len().checked_sub(96)?;
    Ipv4Net::new(network.network().to_ipv4_mapped()?, prefix).ok()
}

/// Sorts ranges and joins those that overlap or touch.
fn merge<T: Number>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if last.successor().is_none_or(|next| start <= next) => {
                *last = end.max(*last);
            }
            _ => merged.push((start, end)),
        }
    }
    merged.shrink_to_fit();
    merged
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(networks: &[&str], address: &str, expected: bool) {
        let set = CidrSet::parse(networks.iter().copied()).unwrap();
        assert_eq!(set.contains(address.parse().unwrap()), expected, "{address} in {networks:?}");
    }

    #[test]
    fn knows_single_addresses_and_networks() {
        check(&["127.0.0.1"], "127.0.0.1", true);
        check(&["127.0.0.1"], "127.0.0.2", false);
        check(&["10.0.0.0/8"], "10.255.255.255", true);
        check(&["10.0.0.0/8"], "11.0.0.0", false);
        check(&["0.0.0.0/0"], "255.255.255.255", true);
        check(&["2001:db8::/32"], "2001:db8:ffff::1", true);
        check(&["2001:db8::/32"], "2001:db9::", false);
        check(&["::/0"], "10.0.0.1", false);
        check(&["::/0"], "ffff::", true);
        check(&[], "10.0.0.1", false);
        check(&["10.0.0.7/8"], "10.1.2.3", true);
    }

    #[test]
    fn takes_a_mapped_address_for_what_it_is() {
        check(&["10.0.0.0/8"], "::ffff:10.1.2.3", true);
        check(&["::ffff:10.0.0.0/104"], "10.1.2.3", true);
    }

    #[test]
    fn names_the_text_that_is_wrong() {
        let error = CidrSet::parse(["10.0.0.1", "10.0.0.0/33"]).unwrap_err();
        assert_eq!(error, (1, InvalidCidr("10.0.0.0/33".to_owned())));
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            networks in prop::collection::vec((any::<u32>(), 8_u8..=32), 0..60),
            asked in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .filter_map(|(address, prefix)| {
                    Some(IpNet::V4(Ipv4Net::new(address.into(), prefix).ok()?))
                })
                .collect();
            let mut asked = vec![IpAddr::V4(asked.into())];
            if !networks.is_empty() {
                let network = networks[near.index(networks.len())];
                asked.extend([network.network(), network.broadcast()]);
            }
            let set = CidrSet::new(networks.clone());
            for address in asked {
                let reference = networks.iter().any(|network| network.contains(&address));
                prop_assert_eq!(set.contains(address), reference);
            }
        }

        #[test]
        fn agrees_with_a_linear_scan_of_ipv6(
            networks in prop::collection::vec((any::<u128>(), 100_u8..=128), 0..1_200),
            asked in any::<u128>(),
        ) {
            // In a few places, as they are given out.
            let crowded = |address: u128| 0x2001_0db8_u128 << 96 | (address & 0xf_ffff);
            let networks: Vec<Ipv6Net> = networks
                .into_iter()
                .filter_map(|(address, prefix)| {
                    Some(Ipv6Net::new(crowded(address).into(), prefix.max(116)).ok()?.trunc())
                })
                .collect();
            let mut all = vec![crowded(asked), asked, 0, u128::MAX];
            for network in networks.iter().take(40) {
                let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
                all.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
            }
            let set = CidrSet::new(networks.iter().copied().map(IpNet::V6));
            for address in all {
                let address = Ipv6Addr::from_bits(address);
                let mapped = address.to_ipv4_mapped().is_some();
                let reference = networks.iter().any(|network| network.contains(&address));
                prop_assert_eq!(set.contains(address.into()), reference && !mapped, "{}", address);
            }
        }
    }
}
