use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses, written as single ones and as networks.
///
/// Kept as sorted, merged ranges. IPv4 has an index by the upper 16 bits in front, and IPv6, whose
/// addresses are crowded in a few places, a [`Ladder`], so that a look-up among a million networks
/// touches a handful of cache lines. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Clone, Default)]
pub struct CidrSet {
    v4: Vec<(u32, u32)>,
    /// For each value of the upper half, the first range that ends at or after its start.
    index: Vec<u32>,
    v6: Ladder,
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
        let v4 = merge(v4, |end| end.checked_add(1));
        let index = index(&v4);
        Self { v4, index, v6: Ladder::new(merge(v6, |end| end.checked_add(1))) }
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
            IpAddr::V4(address) => self.contains_v4(address),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => self.contains_v4(address),
                None => self.v6.contains(u128::from(address)),
            },
        }
    }

    /// Returns how many separate ranges there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.ranges.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn contains_v4(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let upper = (address >> 16) as usize;
        let (Some(from), Some(to)) = (self.index.get(upper), self.index.get(upper + 1)) else {
            return false;
        };
        // The range that reaches into the next block is the last candidate.
        let to = (*to as usize + 1).min(self.v4.len());
        let ranges = self.v4.get(*from as usize..to).unwrap_or_default();
        let position = ranges.partition_point(|(_, end)| *end < address);
        ranges.get(position).is_some_and(|(start, _)| *start <= address)
    }
}

/// Sorted ranges with steps that lead to one: of each block of a step, the step above has the last end.
/// It is a search tree whose nodes are as wide as the processor fetches at a time.
#[derive(Clone, Default)]
struct Ladder {
    ranges: Vec<(u128, u128)>,
    /// The topmost first.
    steps: Vec<Vec<u128>>,
}

impl Ladder {
    /// How many ends or ranges a block has.
    const BLOCK: usize = 8;

    fn new(ranges: Vec<(u128, u128)>) -> Self {
        let lasts = |ends: &[u128]| -> Vec<u128> {
            ends.chunks(Self::BLOCK).filter_map(|block| block.last().copied()).collect()
        };
        let ends: Vec<u128> = ranges.iter().map(|(_, end)| *end).collect();
        let mut steps = Vec::new();
        let mut step = lasts(&ends);
        while step.len() > 1 {
            let above = lasts(&step);
            steps.push(step);
            step = above;
        }
        steps.reverse();
        Self { ranges, steps }
    }

    fn contains(&self, address: u128) -> bool {
        let mut block = 0;
        for step in &self.steps {
            let ends = Self::block(step, block).iter();
            // All of them are compared: nothing has to be guessed, and all are fetched at once.
            block = block * Self::BLOCK + ends.filter(|end| **end < address).count();
        }
        let ranges = Self::block(&self.ranges, block);
        let before = ranges.iter().filter(|(_, end)| *end < address).count();
        ranges.get(before).is_some_and(|(start, _)| *start <= address)
    }

    fn block<T>(all: &[T], number: usize) -> &[T] {
        let from = number * Self::BLOCK;
        all.get(from..all.len().min(from + Self::BLOCK)).unwrap_or_default()
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
fn merge<T: Copy + Ord>(
    mut ranges: Vec<(T, T)>,
    successor: impl Fn(T) -> Option<T>,
) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if successor(*last).is_none_or(|next| start <= next) => {
                *last = end.max(*last);
            }
            _ => merged.push((start, end)),
        }
    }
    merged.shrink_to_fit();
    merged
}

fn index(ranges: &[(u32, u32)]) -> Vec<u32> {
    if ranges.is_empty() {
        return Vec::new();
    }
    let mut first = 0;
    let mut index = Vec::with_capacity((1 << 16) + 1);
    for upper in 0..=u32::from(u16::MAX) {
        while ranges.get(first).is_some_and(|(_, end)| *end < upper << 16) {
            first += 1;
        }
        index.push(u32::try_from(first).unwrap_or(u32::MAX));
    }
    index.push(u32::try_from(ranges.len()).unwrap_or(u32::MAX));
    index
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
