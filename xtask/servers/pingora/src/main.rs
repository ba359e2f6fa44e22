//! A gray gateway on Pingora, as its examples are written: `pingora-peer PORT UPSTREAM NETWORKS`.

use std::error::Error as Failure;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::{Opt, ServerConf};

/// Networks as ranges, sorted and apart.
struct Networks(Vec<(u32, u32)>);

impl Networks {
    fn parse(text: &str) -> std::result::Result<Self, Box<dyn Failure>> {
        let mut ranges = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (address, length) = line.split_once('/').ok_or("no network")?;
            let (address, length): (Ipv4Addr, u32) = (address.parse()?, length.parse()?);
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let first = u32::from(address) & mask;
            ranges.push((first, first | !mask));
        }
        ranges.sort_unstable();
        let mut apart: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match apart.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => apart.push((first, last)),
            }
        }
        Ok(Self(apart))
    }

    fn contain(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let address = u32::from(address);
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind > 0 && self.0[behind - 1].1 >= address
    }
}

struct Gateway {
    networks: Networks,
    versions: [Arc<LoadBalancer<RoundRobin>>; 2],
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = bool;

    fn new_ctx(&self) -> bool {
        false
    }

    async fn upstream_peer(&self, session: &mut Session, gray: &mut bool) -> Result<Box<HttpPeer>> {
        let header = session.req_header().headers.get("x-lane").map(|value| value.as_bytes());
        let client = session.client_addr().and_then(|it| it.as_inet()).map(|it| it.ip());
        *gray = header == Some(b"gray") || client.is_some_and(|it| self.networks.contain(it));
        let instance = self.versions[usize::from(*gray)].select(b"", 256);
        let instance = instance.ok_or_else(|| Error::new_str("no instance"))?;
        Ok(Box::new(HttpPeer::new(instance, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        gray: &mut bool,
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|it| it.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Lane", if *gray { "GRAY" } else { "PROD" })?;
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn Failure>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, upstream, networks] = &arguments[..] else { return Err("three arguments".into()) };
    let upstream: u16 = upstream.parse()?;
    let networks = Networks::parse(&std::fs::read_to_string(networks)?)?;
    let mut conf = ServerConf::default();
    conf.threads = 1;
    conf.work_stealing = false;
    conf.upstream_keepalive_pool_size = 256;
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let version = |first: u16| -> std::result::Result<_, Box<dyn Failure>> {
        let instances = [first, first + 1].map(|port| format!("127.0.0.1:{port}"));
        Ok(Arc::new(LoadBalancer::<RoundRobin>::try_from_iter(instances)?))
    };
    let gateway = Gateway { networks, versions: [version(upstream)?, version(upstream + 2)?] };
    let mut service = pingora::proxy::http_proxy_service(&server.configuration, gateway);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever();
}
