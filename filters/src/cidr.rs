use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses, written as single ones and as networks.
///
/// Kept as sorted, merged ranges. IPv4 has an index by the upper 16 bits in front, so that a look-up
/// among a million networks touches a handful of cache lines. An IPv4-mapped IPv6 address is the
/// IPv4 address.
#[derive(Clone, Default)]
pub struct CidrSet {
    v4: Vec<(u32, u32)>,
    /// For each value of the upper half, the first range that ends at or after its start.
    index: Vec<u32>,
    v6: Vec<(u128, u128)>,
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
        Self { v4, index, v6: merge(v6, |end| end.checked_add(1)) }
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
                None => self.contains_v6(address),
            },
        }
    }

    /// Returns how many separate ranges there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
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

    fn contains_v6(&self, address: Ipv6Addr) -> bool {
        let address = u128::from(address);
        let position = self.v6.partition_point(|(_, end)| *end < address);
        self.v6.get(position).is_some_and(|(start, _)| *start <= address)
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
    }
}
