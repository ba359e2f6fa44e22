use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::names::{SHOWN, write_members};
use crate::ranges::{Ranges, merge};

/// A set of addresses, written as single ones and as networks.
///
/// Kept as sorted, merged ranges, with an index in front, so that a look-up among a million networks
/// touches a handful of cache lines. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Clone, Default)]
pub struct CidrSet {
    v4: Ranges<u32>,
    v6: V6,
    /// The list document that they stand in.
    list: Option<Box<str>>,
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
        Self { v4: Ranges::new(v4), v6: V6::new(v6), list: None }
    }

    /// Notes the list document that the networks stand in.
    pub(crate) fn of_list(self, list: &str) -> Self {
        Self { list: Some(list.into()), ..self }
    }

    /// Reads networks and single addresses.
    ///
    /// # Errors
    ///
    /// Every text that is neither, with its position.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Vec<(usize, InvalidCidr)>> {
        let (mut networks, mut wrong) = (Vec::new(), Vec::new());
        for (position, text) in texts.into_iter().enumerate() {
            match parse_network(text) {
                Some(network) => networks.push(network),
                None => wrong.push((position, InvalidCidr(text.to_owned()))),
            }
        }
        if wrong.is_empty() { Ok(Self::new(networks)) } else { Err(wrong) }
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
        self.v4.len() + self.v6.len()
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

/// Ranges of IPv6 addresses.
///
/// What is given out are networks, told by the first 64 bits; ranges of whole ones are kept by these
/// alone, so that a look-up waits for half as much memory.
#[derive(Clone, Default)]
struct V6 {
    networks: Ranges<u64>,
    others: Ranges<u128>,
}

impl V6 {
    fn new(ranges: Vec<(u128, u128)>) -> Self {
        let (mut networks, mut others) = (Vec::new(), Vec::new());
        for (first, last) in merge(ranges) {
            if first == first_of(network(first)) && last == last_of(network(last)) {
                networks.push((network(first), network(last)));
            } else {
                others.push((first, last));
            }
        }
        Self { networks: Ranges::new(networks), others: Ranges::new(others) }
    }

    fn len(&self) -> usize {
        self.networks.len() + self.others.len()
    }

    fn contains(&self, address: u128) -> bool {
        self.networks.contains(network(address)) || self.others.contains(address)
    }

    fn is_within(&self, other: &Self) -> bool {
        let covered = |first: u128, last: u128| {
            other.networks.covers(network(first), network(last)) || other.others.covers(first, last)
        };
        self.networks.iter().all(|(first, last)| covered(first_of(first), last_of(last)))
            && self.others.iter().all(|(first, last)| covered(first, last))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "64 bits are left")]
fn network(address: u128) -> u64 {
    (address >> 64) as u64
}

fn first_of(network: u64) -> u128 {
    u128::from(network) << 64
}

fn last_of(network: u64) -> u128 {
    first_of(network) | u128::from(u64::MAX)
}

/// The first networks, or the list that they stand in.
impl fmt::Display for CidrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(list) = &self.list {
            return write!(f, "list {list:?} of {} ranges", self.len());
        }
        let v4 = self.v4.iter().map(|(first, last)| {
            written(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into())
        });
        let v6 = self.v6.networks.iter().map(|(first, last)| (first_of(first), last_of(last)));
        let v6 = v6.chain(self.v6.others.iter());
        let v6 = v6.map(|(first, last)| {
            written(Ipv6Addr::from(first).into(), Ipv6Addr::from(last).into())
        });
        let shown: Vec<String> = v4.chain(v6).take(SHOWN).collect();
        write_members(f, &shown, self.len())
    }
}

/// A range as an operator would write it: an address, a network, or its two ends.
fn written(first: IpAddr, last: IpAddr) -> String {
    let whole = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Ipv4Subnets::new(first, last, 0).map(IpNet::from).collect::<Vec<_>>()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Ipv6Subnets::new(first, last, 0).map(IpNet::from).collect()
        }
        _ => Vec::new(),
    };
    match whole.as_slice() {
        [_] if first == last => first.to_string(),
        [network] => network.to_string(),
        _ => format!("{first}-{last}"),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// No two of them touch, so that nothing is merged.
    #[test]
    fn a_million_networks_take_less_than_eight_mebibytes() {
        let network = |number: u32| IpNet::new(Ipv4Addr::from(number << 12).into(), 24).unwrap();
        let set = CidrSet::new((0..1_000_000).map(network));
        assert_eq!(set.len(), 1_000_000);
        let bytes = set.v4.bytes();
        assert!((7 << 20..8 << 20).contains(&bytes), "{bytes} bytes");
    }

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
    fn names_each_text_that_is_wrong() {
        let errors = CidrSet::parse(["10.0.0.1", "10.0.0.0/33", "::/8", "x"]).unwrap_err();
        let wrong = |position, text: &str| (position, InvalidCidr(text.to_owned()));
        assert_eq!(errors, [wrong(1, "10.0.0.0/33"), wrong(3, "x")]);
    }

    #[test]
    fn is_shown_as_it_is_written() {
        let texts =
            ["10.0.0.0/8", "1.2.3.4", "192.168.0.0/24", "192.168.1.0/25", "::1", "fd00::/8"];
        let shown =
            "[\"1.2.3.4\", \"10.0.0.0/8\", \"192.168.0.0-192.168.1.127\", \"fd00::/8\", \"::1\"]";
        assert_eq!(CidrSet::parse(texts).unwrap().to_string(), shown);
        let more = CidrSet::parse(texts.into_iter().chain(["9.9.9.9"])).unwrap();
        assert!(more.to_string().ends_with(" and 1 more"), "{more}");
        assert_eq!(more.of_list("nets").to_string(), "list \"nets\" of 6 ranges");
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
            networks in prop::collection::vec((any::<u128>(), 116_u8..=128), 0..1_200),
            asked in any::<u128>(),
        ) {
            check_ipv6(&networks, asked, |bits| bits & 0xf_ffff)?;
        }

        /// Some are kept by half of their addresses, some not, and some only after they are joined.
        #[test]
        fn agrees_with_a_linear_scan_around_64_bits(
            networks in prop::collection::vec((any::<u128>(), 56_u8..=72), 0..600),
            asked in any::<u128>(),
        ) {
            check_ipv6(&networks, asked, |bits| (bits & 0xf_ffff) << 56)?;
        }

        #[test]
        fn is_within_what_has_more(
            networks in prop::collection::vec((any::<u128>(), 56_u8..=72), 1..40),
            left_out in any::<prop::sample::Index>(),
        ) {
            let networks = crowded(&networks, |bits| (bits & 0xfff) << 56);
            let all = CidrSet::new(networks.iter().copied().map(IpNet::V6));
            let left_out = networks[left_out.index(networks.len())];
            let less = networks.iter().copied().filter(|it| *it != left_out).map(IpNet::V6);
            let less = CidrSet::new(less);
            prop_assert!(less.is_within(&all));
            let one = CidrSet::new([IpNet::V6(left_out)]);
            prop_assert!(one.is_within(&all));
            let still_in = [left_out.network(), left_out.broadcast()]
                .iter()
                .all(|end| less.contains(IpAddr::V6(*end)));
            prop_assert!(still_in || !one.is_within(&less));
        }
    }

    /// Networks in a few places, as they are given out.
    fn crowded(networks: &[(u128, u8)], place: fn(u128) -> u128) -> Vec<Ipv6Net> {
        let network = |(bits, prefix): &(u128, u8)| {
            Some(Ipv6Net::new((START | place(*bits)).into(), *prefix).ok()?.trunc())
        };
        networks.iter().filter_map(network).collect()
    }

    const START: u128 = 0x2001_0db8 << 96;

    fn check_ipv6(
        networks: &[(u128, u8)],
        asked: u128,
        place: fn(u128) -> u128,
    ) -> Result<(), TestCaseError> {
        let networks = crowded(networks, place);
        let mut all = vec![START | place(asked), asked, 0, u128::MAX];
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
        Ok(())
    }
}
