use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use gray_propagation::Lane;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Announced, Instance, Version, Weight};

/// Which instances may be called, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GuardProperties {
    /// Networks that instances may be in; where given, no other address is called. Loopback and
    /// link-local addresses, and those of clouds' metadata services, are called only if they are named here.
    pub allow: Vec<String>,
    /// The ports that instances may listen on, such as `80` or `1024-65535`.
    pub ports: Vec<String>,
}

impl Default for GuardProperties {
    fn default() -> Self {
        let ports = ["80", "443", "1024-65535"].map(str::to_owned).into();
        Self { allow: Vec::new(), ports }
    }
}

/// Refuses instances that must not be called, whoever registered them.
///
/// A registry is not to be trusted: whoever may write to it could otherwise make the gateway call
/// its own admin page or a cloud's metadata service.
#[derive(Clone, Debug)]
pub struct Guard {
    allow: Vec<IpNet>,
    ports: Vec<(u16, u16)>,
    own: Vec<SocketAddr>,
    loopback: bool,
}

/// Why an instance is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A host name, or no address at all.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// A port that is none, or that instances may not listen on.
    #[error("port {0} is not among discovery.guard.ports")]
    Port(i64),
    /// An address outside the networks that instances may be in.
    #[error("{0} is not among discovery.guard.allow")]
    Network(IpAddr),
    /// The gateway itself.
    #[error("{0} is an address of this gateway")]
    Own(SocketAddr),
    /// A weight that is no number from 0 to 10,000.
    #[error("the weight is no number from 0 to 10000")]
    Weight,
    /// Control characters in what it says about itself.
    #[error("metadata {0:?} has control characters")]
    Metadata(String),
}

impl Guard {
    /// Reads the properties.
    ///
    /// `own` are the addresses that the gateway itself listens on.
    ///
    /// # Errors
    ///
    /// The key and text of each entry that cannot be read.
    pub fn new(
        properties: &GuardProperties,
        own: Vec<SocketAddr>,
    ) -> Result<Self, Vec<(&'static str, usize, String)>> {
        let mut errors = Vec::new();
        let mut allow = Vec::new();
        for (index, text) in properties.allow.iter().enumerate() {
            match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => allow.push(network),
                Err(_) => errors.push(("allow", index, format!("`{text}` is no network"))),
            }
        }
        let mut ports = Vec::new();
        for (index, text) in properties.ports.iter().enumerate() {
            match port_range(text) {
                Some(range) => ports.push(range),
                None => errors.push(("ports", index, format!("`{text}` is no port or range"))),
            }
        }
        if errors.is_empty() {
            Ok(Self { allow, ports, own, loopback: false })
        } else {
            Err(errors)
        }
    }

    /// A guard that refuses everything.
    pub const fn closed() -> Self {
        Self { allow: Vec::new(), ports: Vec::new(), own: Vec::new(), loopback: false }
    }

    /// Admits loopback where no networks are named, for a gateway that is only being tried out.
    #[must_use]
    pub const fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Checks an instance, and takes its version from the metadata of that key.
    ///
    /// # Errors
    ///
    /// Why it must not be called.
    pub fn admit(
        &self,
        announced: &Announced,
        version_key: &str,
        lane: Option<Lane>,
    ) -> Result<Instance, Refusal> {
        let address = announced.ip.parse::<IpAddr>();
        let address = address.map_err(|_| Refusal::Address(announced.ip.clone()))?.to_canonical();
        let port = u16::try_from(announced.port).map_err(|_| Refusal::Port(announced.port))?;
        if port == 0 || !self.ports.iter().any(|(from, to)| (*from..=*to).contains(&port)) {
            return Err(Refusal::Port(announced.port));
        }
        if !self.allows(address) {
            return Err(Refusal::Network(address));
        }
        let addr = SocketAddr::new(address, port);
        if self.own.iter().any(|own| is_own(*own, addr)) {
            return Err(Refusal::Own(addr));
        }
        let mut texts = announced.metadata.iter().flat_map(|(key, value)| [key, value]);
        if let Some(text) = texts.find(|text| text.contains(char::is_control)) {
            return Err(Refusal::Metadata(text.clone()));
        }
        let version = announced.metadata.get(version_key).filter(|version| !version.is_empty());
        Ok(Instance {
            version: version.map(|version| Version::new(version.as_str())),
            lane,
            weight: Weight::new(announced.weight).ok_or(Refusal::Weight)?,
            healthy: announced.healthy,
            enabled: announced.enabled,
            cluster: announced.cluster.as_deref().map(Into::into),
            metadata: announced.metadata.clone(),
            ..Instance::new(addr)
        })
    }

    fn allows(&self, address: IpAddr) -> bool {
        if address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
            return false;
        }
        let named = self.allow.iter().any(|network| network.contains(&address));
        let refused = is_link_local(address)
            || METADATA.contains(&address)
            || (address.is_loopback() && !self.loopback);
        named || (self.allow.is_empty() && !refused)
    }
}

/// Where clouds tell a machine its secrets, beside the link-local 169.254.169.254: Alibaba Cloud, AWS, Azure.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (from <= to && from > 0).then_some((from, to))
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A listener on every address is reached by every address of this machine.
fn is_own(own: SocketAddr, addr: SocketAddr) -> bool {
    own.port() == addr.port()
        && (own.ip().to_canonical() == addr.ip()
            || (own.ip().is_unspecified() && (addr.ip().is_loopback() || is_here(addr.ip()))))
}

/// Tells whether an address is one of this machine's: only of those can anybody send anything.
fn is_here(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn announced(ip: &str, port: i64) -> Announced {
        Announced {
            ip: ip.to_owned(),
            port,
            weight: 1.0,
            healthy: true,
            enabled: true,
            cluster: None,
            metadata: BTreeMap::from([("version".to_owned(), "V1".to_owned())]),
        }
    }

    fn guard(allow: &[&str]) -> Guard {
        let allow = allow.iter().map(|network| (*network).to_owned()).collect();
        let properties = GuardProperties { allow, ..GuardProperties::default() };
        Guard::new(&properties, vec!["0.0.0.0:8080".parse().unwrap()]).unwrap()
    }

    #[track_caller]
    fn check(guard: &Guard, announced: &Announced, admitted: bool) {
        let result = guard.admit(announced, "version", None);
        assert_eq!(result.is_ok(), admitted, "{announced:?}: {result:?}");
    }

    #[test]
    fn refuses_whatever_a_hostile_registration_may_name() {
        for (ip, port) in [
            ("127.0.0.1", 9000),
            ("::1", 9000),
            ("169.254.169.254", 80),
            ("100.100.100.200", 80),
            ("fd00:ec2::254", 80),
            ("168.63.129.16", 80),
            ("fe80::1", 8000),
            ("0.0.0.0", 8000),
            ("255.255.255.255", 8000),
            ("224.0.0.1", 8000),
            ("::ffff:127.0.0.1", 8000),
            ("evil.example.com", 8000),
            ("1.2.3.4@evil", 8000),
            ("1.2.3.4\r\n", 8000),
            ("10.0.0.1", 0),
            ("10.0.0.1", 22),
            ("10.0.0.1", 65_536),
            ("10.0.0.1", -1),
        ] {
            check(&guard(&[]), &announced(ip, port), false);
        }
        for weight in [f64::NAN, -1.0, 1e308] {
            check(&guard(&[]), &Announced { weight, ..announced("10.0.0.1", 8000) }, false);
        }
        let metadata = BTreeMap::from([("version".to_owned(), "V1\r\nx: y".to_owned())]);
        check(&guard(&[]), &Announced { metadata, ..announced("10.0.0.1", 8000) }, false);
    }

    /// A gateway that listens on all addresses is reached by each of this machine's.
    #[test]
    fn every_address_of_this_machine_is_a_listeners_own() {
        let any: SocketAddr = ([0, 0, 0, 0], 8080).into();
        let way = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nothing is sent: the system only chooses the address that it would send from.
        way.connect("192.0.2.1:9").unwrap();
        let here = way.local_addr().unwrap().ip();
        assert!(is_own(any, SocketAddr::new(here, 8080)), "{here}");
        assert!(!is_own(any, SocketAddr::new(here, 8081)), "{here}");
        assert!(!is_own(any, ([192, 0, 2, 1], 8080).into()));
    }

    #[test]
    fn admits_what_is_allowed() {
        check(&guard(&[]), &announced("10.0.0.1", 8000), true);
        check(&guard(&["127.0.0.0/8"]), &announced("127.0.0.1", 8000), true);
        check(&guard(&["127.0.0.0/8"]), &announced("127.0.0.1", 8080), false);
        check(&guard(&[]).with_loopback(), &announced("127.0.0.1", 8000), true);
        check(&guard(&[]).with_loopback(), &announced("169.254.169.254", 80), false);
        check(&guard(&["127.0.0.0/8"]), &announced("10.0.0.1", 8000), false);
        let instance = guard(&[]).admit(&announced("10.0.0.1", 80), "version", None).unwrap();
        assert_eq!(instance.version, Some(Version::new("V1")));
    }

    #[test]
    fn names_every_entry_that_cannot_be_read() {
        let properties = GuardProperties {
            allow: vec!["10.0.0.0/8".into(), "x".into()],
            ports: vec!["0".into(), "9-1".into(), "80".into()],
        };
        assert_eq!(Guard::new(&properties, Vec::new()).unwrap_err().len(), 3);
    }
}
