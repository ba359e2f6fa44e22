//! Worlds that are written as the Spring Cloud design's documents (seed S1).

use proptest::prelude::*;

use super::condition::Asks;
use super::{Instances, World, instances};

#[derive(Clone, Debug)]
pub(super) struct Spring {
    load: bool,
    enabled: bool,
    /// The header and its value, where they are not the design's own.
    head: Option<&'static str>,
    networks: Vec<u8>,
    cities: Vec<&'static str>,
    users: Vec<&'static str>,
    /// The services that name the design's load balancer.
    routed: Vec<&'static str>,
    instances: Instances,
}

impl World for Spring {
    fn yaml(&self) -> String {
        let networks: Vec<String> =
            self.networks.iter().map(|net| format!("10.{net}.0.0/16")).collect();
        let head = self
            .head
            .map(|value| format!("        grayHeadKey: h0\n        grayHeadValue: {value}\n"));
        let routed = self.routed.iter().map(|service| {
            format!(
                "{service}: {{ribbon: {{NFLoadBalancerRuleClassName: a.GrayRoundRobinRule}}}}\n"
            )
        });
        format!(
            "kerwin:\n  tool:\n    gray:\n      load: {}\n      version: {{prodVersion: V1, \
             grayVersion: V2}}\n      gateway:\n        enabled: {}\n{}        grayIPList: [{}]\n        \
             grayCityList: [{}]\n        grayUserNoList: [{}]\n{}",
            self.load,
            self.enabled,
            head.unwrap_or_default(),
            networks.join(", "),
            self.cities.join(", "),
            self.users.join(", "),
            routed.collect::<String>()
        )
    }

    fn lane(&self, asks: &Asks) -> &'static str {
        match self.rule(asks) {
            _ if !(self.load && self.enabled) => "ALL",
            Some(_) => "GRAY",
            None => "PROD",
        }
    }

    fn rule(&self, asks: &Asks) -> Option<String> {
        let city = match asks.net4() {
            Some(0) => Some("深圳"),
            Some(1) => Some("广州"),
            _ => None,
        };
        let rules = [
            // The requests of this model carry no header of the design's own name.
            ("grayHead", self.head.is_some() && asks.headers[0] == self.head),
            ("grayIPList", asks.net4().is_some_and(|net| self.networks.contains(&net))),
            (
                "grayCityList",
                city.is_some_and(|city| self.cities.iter().any(|it| it.starts_with(city))),
            ),
            ("grayUserNoList", asks.user.is_some_and(|(_, user)| self.users.contains(&user))),
        ];
        let hit = rules.into_iter().find(|(_, hit)| *hit && self.load && self.enabled);
        hit.map(|(rule, _)| rule.to_owned())
    }

    fn ports(&self, lane: &str) -> (Vec<u16>, Option<&'static str>) {
        let everyone = !self.routed.is_empty() && !self.routed.contains(&"app");
        let ports = match self.version(lane) {
            Some(own) if !everyone => self.instances.ports(&|version| version == Some(own)),
            _ => self.instances.ports(&|_| true),
        };
        (ports, None)
    }

    fn version(&self, lane: &str) -> Option<&'static str> {
        match lane {
            _ if !self.routed.is_empty() && !self.routed.contains(&"app") => None,
            "GRAY" => Some("V2"),
            "PROD" => Some("V1"),
            _ => None,
        }
    }

    fn instances(&self) -> &Instances {
        &self.instances
    }
}

pub(super) fn world() -> impl Strategy<Value = Spring> {
    let some =
        |words: &'static [&'static str]| prop::collection::vec(prop::sample::select(words), 0..2);
    (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.9),
        prop::option::of(prop::sample::select(vec!["v0", "v1"])),
        prop::collection::vec(0_u8..3, 0..2),
        some(&["深圳", "深圳市", "广州"]),
        some(&["1001", "2001"]),
        some(&["app", "other"]),
        instances(),
    )
        .prop_map(|(load, enabled, head, networks, cities, users, routed, instances)| Spring {
            load,
            enabled,
            head,
            networks,
            cities,
            users,
            routed,
            instances,
        })
}
