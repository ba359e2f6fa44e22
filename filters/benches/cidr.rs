//! Time of a look-up in a set of networks, and of building it.

#![allow(clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use gray_filters::{CidrSet, TrustedProxies};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks of 1 to 16 addresses, the same in every run, no two of which touch: so many ranges.
fn networks(count: u32) -> Vec<IpNet> {
    let mut random = Random(7);
    let network = |number: u32| {
        let step = u32::MAX / count;
        let prefix = 28 + u8::try_from(random.next() % 5).unwrap_or(0);
        let address = number * step + random.next() % (step - 32);
        Ipv4Net::new(Ipv4Addr::from(address), prefix).map(|it| IpNet::V4(it.trunc()))
    };
    (0..count).map(network).filter_map(Result::ok).collect()
}

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }
}

fn cidr(criterion: &mut Criterion) {
    for count in [1_000, 100_000, 1_000_000] {
        let networks = networks(count);
        let set = CidrSet::new(networks.iter().copied());
        let mut random = Random(11);
        let asked: Vec<IpAddr> =
            (0..65_536).map(|_| IpAddr::V4(Ipv4Addr::from(random.next()))).collect();
        let mut turn = 0_usize;
        criterion.bench_function(&format!("contains {count}"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % asked.len();
                set.contains(black_box(asked[turn]))
            });
        });
        let mut group = criterion.benchmark_group("build");
        group.sample_size(10).bench_function(count.to_string(), |bencher| {
            bencher.iter(|| CidrSet::new(networks.iter().copied()));
        });
        group.finish();
    }
}

/// Random networks of IPv6, of those that are given out, the same in every run.
fn networks6(count: u64) -> Vec<IpNet> {
    let mut random = Random(7);
    let network = |_| {
        let prefix = 32 + u8::try_from(random.next() % 33).unwrap_or(0);
        Ipv6Net::new(global(&mut random), prefix).map(|it| IpNet::V6(it.trunc()))
    };
    (0..count).map(network).filter_map(Result::ok).collect()
}

fn global(random: &mut Random) -> Ipv6Addr {
    let bits = (0..4).fold(0_u128, |bits, _| bits << 32 | u128::from(random.next()));
    Ipv6Addr::from_bits(1 << 125 | bits >> 3)
}

fn cidr6(criterion: &mut Criterion) {
    let count = 1_000_000;
    let set = CidrSet::new(networks6(count));
    let mut random = Random(11);
    let asked: Vec<IpAddr> = (0..65_536).map(|_| IpAddr::V6(global(&mut random))).collect();
    let mut turn = 0_usize;
    criterion.bench_function(&format!("contains {count} of IPv6"), |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % asked.len();
            set.contains(black_box(asked[turn]))
        });
    });
}

/// The longest way to a client: 64 KiB of `X-Forwarded-For`, all trusted but the first.
fn client(criterion: &mut Criterion) {
    let line = format!("203.0.113.7{}", ", 10.111.111.11".repeat(4_369));
    let value = HeaderValue::try_from(line).unwrap_or_else(|error| panic!("{error}"));
    let headers: HeaderMap =
        [(HeaderName::from_static("x-forwarded-for"), value)].into_iter().collect();
    let proxies = TrustedProxies::new(CidrSet::new([]));
    let near = CidrSet::parse(["10.0.0.0/8"]).map_or(proxies, TrustedProxies::new);
    criterion.bench_function("client behind 64 KiB of proxies", |bencher| {
        bencher.iter(|| near.client(black_box(IpAddr::from([10, 0, 0, 1])), &headers));
    });
}

criterion_group!(benches, cidr, cidr6, client);
criterion_main!(benches);
