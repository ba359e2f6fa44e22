//! The decision against a model of its own, and `explain` against the decision.
//!
//! The model is written from semantics alone: it imports nothing of filters or lb. Requests go
//! through the gateway's own chain, [`ClassifyLayer`] and [`Proxy::call`], to an upstream that only
//! notes what it was sent.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gray_config::{Documents, Faults, KeyPath, live};
use gray_filters::{ClassifyLayer, ClientAddr, Senses};
use gray_gateway::explain::{Asked, Explainer};
use gray_gateway::properties::{RouteProperties, TimeoutProperties};
use gray_gateway::{
    Calling, Failed, Failure, Proxy, Revision, Routes, RuleDocuments, Target, Upstream,
};
use gray_lb::{Algorithm, Balancer, Directory, Format, Instance, ServiceName, Subsets, Version};
use gray_propagation::Carriers;
use http::{Request, Response};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};

/// A condition of the model.
#[derive(Clone, Debug)]
enum Cond {
    HeaderIs(u8, u8),
    HeaderIsNot(u8, u8),
    HeaderIn(u8, Vec<u8>),
    HeaderExists(u8, bool),
    PathPrefix(u8),
    Client(u8),
    Share(bool),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

/// Where a rule sends requests.
const TARGETS: [&str; 4] = ["gray", "blue", "base", "all"];

#[derive(Clone, Debug)]
struct World {
    rules: Vec<(usize, Option<Cond>)>,
    blue_on: bool,
    fallback: &'static str,
    unversioned: &'static str,
    /// The version of each instance, by its port, and whether it is healthy.
    instances: Vec<(Option<&'static str>, bool)>,
}

#[derive(Clone, Debug)]
struct Asks {
    headers: [Option<u8>; 2],
    path: u8,
    client: u8,
}

impl Cond {
    fn yaml(&self) -> String {
        let list = |parts: &[Self]| parts.iter().map(Self::yaml).collect::<Vec<_>>().join(", ");
        match self {
            Self::HeaderIs(name, value) => {
                format!("{{header: {{name: h{name}, equal: v{value}}}}}")
            }
            Self::HeaderIsNot(name, value) => {
                format!("{{header: {{name: h{name}, notEqual: v{value}}}}}")
            }
            Self::HeaderIn(name, values) => {
                let values: Vec<String> = values.iter().map(|value| format!("v{value}")).collect();
                format!("{{header: {{name: h{name}, in: [{}]}}}}", values.join(", "))
            }
            Self::HeaderExists(name, exists) => {
                format!("{{header: {{name: h{name}, exists: {exists}}}}}")
            }
            Self::PathPrefix(path) => format!("{{path: {{prefix: /p{path}}}}}"),
            Self::Client(net) => format!("{{clientIp: {{in: [10.{net}.0.0/16]}}}}"),
            Self::Share(all) => {
                format!("{{percentage: {{share: {}}}}}", if *all { 100 } else { 0 })
            }
            Self::All(parts) => format!("{{all: [{}]}}", list(parts)),
            Self::Any(parts) => format!("{{any: [{}]}}", list(parts)),
            Self::Not(part) => format!("{{not: {}}}", part.yaml()),
        }
    }

    fn holds(&self, asks: &Asks) -> bool {
        let header = |name: &u8| asks.headers[usize::from(*name)];
        match self {
            Self::HeaderIs(name, value) => header(name) == Some(*value),
            Self::HeaderIsNot(name, value) => header(name) != Some(*value),
            Self::HeaderIn(name, values) => header(name).is_some_and(|it| values.contains(&it)),
            Self::HeaderExists(name, exists) => header(name).is_some() == *exists,
            Self::PathPrefix(path) => asks.path == *path,
            Self::Client(net) => asks.client == *net,
            Self::Share(all) => *all,
            Self::All(parts) => parts.iter().all(|part| part.holds(asks)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(asks)),
            Self::Not(part) => !part.holds(asks),
        }
    }
}

impl World {
    fn yaml(&self) -> String {
        let rule = |(number, (target, when)): (usize, &(usize, Option<Cond>))| {
            let when = when.as_ref().map(|when| format!(", when: {}", when.yaml()));
            format!(
                "- {{name: r{number}, lane: {}{}}}\n",
                TARGETS[*target],
                when.unwrap_or_default()
            )
        };
        let rules: String = self.rules.iter().enumerate().map(rule).collect();
        format!(
            "base: {{version: V1, unversioned: {}}}\nfallback: {}\n\
             lanes: [{{name: gray, version: V2}}, {{name: blue, version: V3, enabled: {}}}]\n\
             rules:\n{rules}",
            self.unversioned, self.fallback, self.blue_on
        )
    }

    /// The lane's word, by semantics: the first rule that hits, else base.
    fn lane(&self, asks: &Asks) -> &'static str {
        let hits = |(target, when): &&(usize, Option<Cond>)| {
            (TARGETS[*target] != "blue" || self.blue_on)
                && when.as_ref().is_none_or(|when| when.holds(asks))
        };
        match self.rules.iter().find(hits).map(|(target, _)| TARGETS[*target]) {
            Some("gray") => "GRAY",
            Some("blue") => "blue",
            Some("all") => "ALL",
            _ => "PROD",
        }
    }

    /// The ports that may serve a lane, by semantics: its version, or the fallback's.
    fn ports(&self, lane: &str) -> Vec<u16> {
        let of = |fits: &dyn Fn(Option<&str>) -> bool| -> Vec<u16> {
            let numbered = (1_u16..).zip(&self.instances);
            let fitting = numbered.filter(|(_, (version, healthy))| *healthy && fits(*version));
            fitting.map(|(port, _)| port).collect()
        };
        let base = |version: Option<&str>| {
            version == Some("V1") || (version.is_none() && self.unversioned == "base")
        };
        let (own, foreign) = match lane {
            "ALL" => return of(&|_| true),
            "GRAY" => (of(&|version| version == Some("V2")), vec!["V3"]),
            "blue" => (of(&|version| version == Some("V3")), vec!["V2"]),
            _ => (of(&base), vec!["V2", "V3"]),
        };
        match self.fallback {
            _ if !own.is_empty() => own,
            "base" => of(&base),
            "all" => of(&|version| version.is_none_or(|version| !foreign.contains(&version))),
            _ => Vec::new(),
        }
    }

    fn directory(&self) -> Directory {
        let instances = (1_u16..).zip(&self.instances).map(|(port, (version, healthy))| Instance {
            version: version.map(Version::new),
            healthy: *healthy,
            ..Instance::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        });
        let subsets = Subsets::new(instances.collect(), Algorithm::RoundRobin, None);
        [(ServiceName::new("app"), Arc::new(subsets))].into_iter().collect()
    }
}

/// Answers with the port that a request was sent to and the lane it was told.
#[derive(Debug)]
struct Noting;

impl Upstream<()> for Noting {
    type Body = (u16, String);

    async fn send(
        &self,
        request: Request<()>,
        to: &Target,
    ) -> Result<Response<(u16, String)>, Failed<()>> {
        let lane = request.headers()["gray"].to_str().unwrap_or_default().to_owned();
        Ok(Response::new((to.addr.port(), lane)))
    }
}

fn routes() -> Routes {
    let route = RouteProperties { service: "app".to_owned(), ..RouteProperties::default() };
    let mut faults = Faults::default();
    Routes::new(&[route], TimeoutProperties::default(), &KeyPath::ROOT, &mut faults)
}

fn revision(world: &World) -> Revision {
    let how = RuleDocuments {
        format: Format::Native,
        prefix: String::new(),
        lists: std::collections::BTreeMap::default(),
        senses: live(Senses::default()).1,
        routed: [].into(),
    };
    let documents = Documents::one("rules", world.yaml());
    gray_gateway::parse_documents(&documents, &how).map(|(revision, _)| revision).unwrap()
}

fn request(asks: &Asks) -> Request<()> {
    let mut request = Request::get(format!("/p{}/x", asks.path));
    for (number, value) in asks.headers.iter().enumerate() {
        if let Some(value) = value {
            request = request.header(format!("h{number}"), format!("v{value}"));
        }
    }
    let mut request = request.body(()).unwrap();
    let address = Ipv4Addr::new(10, asks.client, 0, 1).into();
    request.extensions_mut().insert(ClientAddr { address, through_proxy: false });
    request
}

/// Sends a request through the gateway's own chain.
async fn decided(world: &World, asks: &Asks) -> Result<(u16, String), Failure> {
    let proxy = Arc::new(Proxy {
        routes: routes(),
        callings: HashMap::new(),
        default_calling: Calling::default(),
        balancer: Balancer::new(live(world.directory()).1),
        carriers: Carriers::default().into(),
        attempts: 3,
        upstream: Noting,
    });
    let chain = ClassifyLayer::new(live(revision(world)).1).layer(service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.call(request).await }
    }));
    chain.oneshot(request(asks)).await.map(Response::into_body)
}

fn explained(world: &World, asks: &Asks) -> gray_gateway::explain::Answer {
    let (revision, directory) = (revision(world), world.directory());
    let (routes, carriers) = (routes(), Carriers::default());
    let explainer = Explainer {
        routes: &routes,
        revision: &revision,
        directory: &directory,
        carriers: &carriers,
    };
    let request = request(asks);
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
    let asked = Asked {
        method: "GET".to_owned(),
        url: request.uri().to_string(),
        headers: headers.collect(),
        ip: Ipv4Addr::new(10, asks.client, 0, 1).into(),
    };
    explainer.explain(&asked).unwrap()
}

fn cond() -> impl Strategy<Value = Cond> {
    let leaf = prop_oneof![
        (0_u8..2, 0_u8..3).prop_map(|(name, value)| Cond::HeaderIs(name, value)),
        (0_u8..2, 0_u8..3).prop_map(|(name, value)| Cond::HeaderIsNot(name, value)),
        (0_u8..2, prop::collection::vec(0_u8..3, 0..3))
            .prop_map(|(name, values)| Cond::HeaderIn(name, values)),
        (0_u8..2, any::<bool>()).prop_map(|(name, exists)| Cond::HeaderExists(name, exists)),
        (0_u8..3).prop_map(Cond::PathPrefix),
        (0_u8..3).prop_map(Cond::Client),
        any::<bool>().prop_map(Cond::Share),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            list.clone().prop_map(Cond::All),
            list.prop_map(Cond::Any),
            inner.prop_map(|part| Cond::Not(Box::new(part))),
        ]
    })
}

fn world() -> impl Strategy<Value = World> {
    let rule = (0_usize..4, prop::option::weighted(0.9, cond()));
    let version = prop::sample::select(vec![None, Some("V1"), Some("V2"), Some("V3"), Some("V9")]);
    (
        prop::collection::vec(rule, 0..5),
        any::<bool>(),
        prop::sample::select(vec!["fail", "base", "all"]),
        prop::sample::select(vec!["base", "none"]),
        prop::collection::vec((version, prop::bool::weighted(0.8)), 0..6),
    )
        .prop_map(|(rules, blue_on, fallback, unversioned, instances)| World {
            rules,
            blue_on,
            fallback,
            unversioned,
            instances,
        })
}

fn asks() -> impl Strategy<Value = Asks> {
    let header = || prop::option::of(0_u8..3);
    ([header(), header()], 0_u8..3, 0_u8..3).prop_map(|(headers, path, client)| Asks {
        headers,
        path,
        client,
    })
}

/// How many worlds are tried: more by `GRAYLANE_CASES`.
fn cases() -> u32 {
    std::env::var("GRAYLANE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_gateway_decides_as_the_model_does(world in world(), asks in asks()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let served = runtime.block_on(decided(&world, &asks));
        let lane = world.lane(&asks);
        let ports = world.ports(lane);
        let answer = explained(&world, &asks);
        prop_assert_eq!(&answer.decision.status, lane);
        match served {
            Ok((port, told)) => {
                prop_assert_eq!(told, lane);
                prop_assert!(ports.contains(&port), "{} not in {:?}\n{}", port, ports, world.yaml());
                let named = format!("127.0.0.1:{port}");
                prop_assert!(answer.instances.contains(&named), "{answer:#?}");
                prop_assert_eq!(answer.error, None);
            }
            Err(failure) => {
                prop_assert!(ports.is_empty(), "{:?}: {ports:?}\n{}", failure.error, world.yaml());
                prop_assert_eq!(answer.error, Some(failure.error.to_string()));
            }
        }
    }
}
