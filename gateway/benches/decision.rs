//! Instructions per decision: classify a request, and pick its instance.
//!
//! Counted under valgrind, so the figures do not depend on the machine; `cargo xtask bench` runs it.

#![allow(unused_qualifications, missing_docs, reason = "gungraun's macros")]

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gray_config::{Documents, Faults, KeyPath, live};
use gray_filters::{CidrSet, Head, Senses, TrustedProxies, UserProperties, Users};
use gray_gateway::{Revision, RuleDocuments, parse_documents};
use gray_lb::{
    Algorithm, Balancer, Directory, Format, Instance, ServiceName, Subsets, Version, Want,
};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Everything that a decision reads.
struct World {
    revision: Revision,
    balancer: Balancer,
    service: ServiceName,
    headers: HeaderMap,
    client: IpAddr,
}

const LANES: &str = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n";

/// So many header rules, none of which hits but the last.
fn header_rules(count: usize) -> World {
    let mut text = format!("{LANES}rules:\n");
    for number in 0..count {
        let value = if number + 1 == count { "1".to_owned() } else { format!("no-{number}") };
        let when = format!("{{header: {{name: x-canary, equal: '{value}'}}}}");
        let _ = writeln!(text, "- {{name: r{number}, when: {when}}}");
    }
    world(&[("rules", text)])
}

/// One rule with so many networks in a list of its own, evenly spread, no two of which touch: so many
/// ranges. The client is in the one in the middle, or just behind it.
fn networks(count: u32, hit: bool) -> World {
    let address = |number: u32| (number * (u32::MAX / count)) & 0xffff_fff0;
    let lines = (0..count).map(|number| format!("{}/28\n", Ipv4Addr::from(address(number))));
    let list = lines.collect::<String>();
    let rules = format!("{LANES}rules: [{{name: r, when: {{clientIp: {{inList: nets}}}}}}]\n");
    let world = world(&[("rules", rules), ("nets", list)]);
    let client = address(count / 2) + if hit { 7 } else { 23 };
    World { client: Ipv4Addr::from(client).into(), ..world }
}

/// One rule with so many user numbers in a list of its own, the client's not among them.
fn users(count: u32) -> World {
    let mut list = String::new();
    for number in 0..count {
        let _ = writeln!(list, "{}", 1_000_000_000 + number);
    }
    let rules = format!("{LANES}rules: [{{name: r, when: {{user: {{inList: nets}}}}}}]\n");
    world(&[("rules", rules), ("nets", list)])
}

fn world(documents: &[(&str, String)]) -> World {
    let texts = documents.iter().map(|(name, text)| ((*name).to_owned(), text.as_str().into()));
    let mut faults = Faults::default();
    let users = Users::open(&UserProperties::default(), &KeyPath::ROOT, &mut faults);
    let senses = Senses { users, ..Senses::default() };
    let how = RuleDocuments {
        format: Format::Native,
        prefix: String::new(),
        order: Vec::new(),
        lists: [("nets".to_owned(), "nets".to_owned())].into(),
        senses: live(senses).1,
        routed: [].into(),
    };
    let parsed = parse_documents(&Documents(texts.collect()), &how);
    let (revision, _) = parsed.unwrap_or_else(|problems| panic!("{problems}"));
    let service = ServiceName::new("app");
    let instances = [(1, "V1"), (2, "V1"), (3, "V2"), (4, "V2")].map(|(port, version)| Instance {
        version: Some(Version::new(version)),
        ..Instance::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    });
    let subsets = Arc::new(Subsets::new(instances.into(), Algorithm::RoundRobin, None));
    let directory: Directory = [(service.clone(), subsets)].into_iter().collect();
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("host", "a.example"), ("user-agent", "wrk"), ("x-canary", "1"), ("x-user-no", "7")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let balancer = Balancer::new(live(directory).1);
    let world = World { revision, balancer, service, headers, client: [10, 1, 2, 3].into() };
    // The first decision of a thread sets up what later ones find.
    decide(&world);
    world
}

fn decide(world: &World) {
    let head = Head {
        method: &Method::GET,
        path: "/order/1",
        query: None,
        target_host: Some("a.example"),
        headers: &world.headers,
        client: world.client,
    };
    let verdict = world.revision.rules.classify(&head);
    let want = Want {
        service: &world.service,
        status: verdict.status,
        lanes: world.revision.lanes.of(&world.service),
        key: None,
        tried: &[],
    };
    let _ = black_box(world.balancer.pick(&want));
}

#[library_benchmark]
#[bench::rules_1(header_rules(1))]
#[bench::rules_10(header_rules(10))]
#[bench::cidrs_1_000(networks(1_000, false))]
#[bench::cidrs_100_000(networks(100_000, false))]
#[bench::cidrs_1_000_000(networks(1_000_000, false))]
#[bench::cidrs_1_000_000_hit(networks(1_000_000, true))]
#[bench::users_1_000(users(1_000))]
#[bench::users_1_000_000(users(1_000_000))]
fn decision(world: World) -> World {
    decide(black_box(&world));
    world
}

/// A request whose `X-Forwarded-For` names so many proxies, all trusted: the longest way to a client.
fn hops(count: usize) -> (TrustedProxies, HeaderMap) {
    let line = vec!["203.0.113.7"].into_iter().chain(std::iter::repeat_n("10.111.111.11", count));
    let line = line.collect::<Vec<_>>().join(", ");
    let headers = [("x-forwarded-for", line)];
    let headers = headers.map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::try_from(value).unwrap_or_else(|_| panic!()))
    });
    let networks = CidrSet::parse(["10.0.0.0/8"]).unwrap_or_else(|error| panic!("{error:?}"));
    (TrustedProxies::new(networks), headers.into_iter().collect())
}

// Finds the client; 4,369 hops are 64 KiB.
#[library_benchmark]
#[bench::hops_1(hops(1))]
#[bench::hops_4_369(hops(4_369))]
fn client((proxies, headers): (TrustedProxies, HeaderMap)) -> HeaderMap {
    let peer = IpAddr::from([10, 1, 2, 3]);
    let found = proxies.client(black_box(peer), black_box(&headers));
    assert_eq!(black_box(found).address, IpAddr::from([203, 0, 113, 7]));
    headers
}

library_benchmark_group!(name = decisions; benchmarks = decision, client);
main!(library_benchmark_groups = decisions);
