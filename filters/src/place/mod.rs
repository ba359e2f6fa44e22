//! Where in the world an address is: country, province and city.

mod alias;
mod database;
mod fold;
mod properties;
mod xdb;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::condition::Level;
use crate::names::NameSet;

pub use self::database::{Database, DatabaseError};
pub(crate) use self::fold::fold;
pub use self::properties::{OverrideProperties, PlaceProperties};
pub use self::xdb::InvalidXdb;

/// What is known about where an address is, each under all the names it goes by.
///
/// Names are folded: without suffixes such as 市 and 省, in lower case, with aliases added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Names of the country, its code among them.
    pub country: Vec<String>,
    /// Names of the province or state.
    pub province: Vec<String>,
    /// Names of the city.
    pub city: Vec<String>,
}

impl Place {
    /// A place with these names; an empty name is none.
    pub fn new(country: &[&str], province: &[&str], city: &[&str]) -> Self {
        let names = |names: &[&str]| {
            let mut all: Vec<String> = names.iter().copied().flat_map(alias::names_of).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        Self { country: names(country), province: names(province), city: names(city) }
    }

    pub(crate) fn names(&self, level: Level) -> &[String] {
        match level {
            Level::Country => &self.country,
            Level::Province => &self.province,
            Level::City => &self.city,
        }
    }

    fn is_empty(&self) -> bool {
        self.country.is_empty() && self.province.is_empty() && self.city.is_empty()
    }
}

/// Finds places: by the operator's own networks first, then by each database in turn.
#[derive(Debug, Default)]
pub struct Places {
    /// The longest prefix first.
    overrides: Vec<(IpNet, Place)>,
    databases: Vec<Database>,
}

impl Places {
    /// Knows these networks and databases.
    pub fn new(mut overrides: Vec<(IpNet, Place)>, databases: Vec<Database>) -> Self {
        overrides.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Self { overrides, databases }
    }

    /// Tells whether any address could be in a place of one of these names: what the operator's own
    /// networks say is known, what databases may say is not.
    pub(crate) fn may_name(&self, level: Level, names: &NameSet) -> bool {
        let mut own = self.overrides.iter().flat_map(|(_, place)| place.names(level));
        !self.databases.is_empty() || own.any(|name| names.contains(name.as_bytes()))
    }

    /// Returns where an address is; `None` where nobody knows.
    pub fn find(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let own = self.overrides.iter().find(|(network, _)| network.contains(&address));
        if let Some((_, place)) = own {
            return Some(place.clone());
        }
        let mut found = self.databases.iter().filter_map(|database| database.find(address));
        found.find(|place| !place.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_of_the_operator_wins() {
        let place = |city| Place::new(&[], &[], &[city]);
        let places = Places::new(
            vec![
                ("127.0.0.0/8".parse().unwrap(), place("本地")),
                ("127.0.0.9/32".parse().unwrap(), place("深圳")),
            ],
            Vec::new(),
        );
        let city = |address: &str| places.find(address.parse().unwrap()).map(|place| place.city);
        assert_eq!(
            city("127.0.0.1"),
            Some(vec!["local", "内网ip", "本地", "本机"].into_iter().map(str::to_owned).collect())
        );
        assert!(city("::ffff:127.0.0.9").unwrap().contains(&"shenzhen".to_owned()));
        assert_eq!(city("8.8.8.8"), None);
    }
}
