use std::net::SocketAddr;
use std::sync::Arc;

use gray_config::Live;
use gray_propagation::GrayStatus;

use crate::{Directory, Fallback, Lanes, Member, ServiceName};

/// Picks instances from the latest directory.
#[derive(Clone, Debug)]
pub struct Balancer {
    directory: Live<Directory>,
}

/// What a request wants from a service.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// The lane it travels in.
    pub status: GrayStatus,
    /// How that service's lanes are served, by the revision of the request.
    pub lanes: &'a Lanes,
    /// What a sticky algorithm keeps to.
    pub key: Option<u64>,
    /// Instances that were tried in vain.
    pub tried: &'a [SocketAddr],
}

/// The instance that serves a request.
#[derive(Clone, Debug)]
pub struct Picked {
    /// The instance.
    pub member: Arc<Member>,
    /// The fallback that was needed, if one was.
    pub fallback: Option<Fallback>,
}

/// Why no instance serves a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoInstance {
    /// Nobody ever registered under that name.
    #[error("no instance of {0} is known")]
    UnknownService(ServiceName),
    /// Nobody has said yet which version each lane has, so that any instance could be of another.
    #[error("it is not known which version each lane has, so no instance of {0} is called")]
    UnknownLanes(ServiceName),
    /// The lane has no instance, and no fallback is allowed.
    #[error("no instance of {service} for {status} requests")]
    EmptyLane {
        /// The service.
        service: ServiceName,
        /// The lane.
        status: GrayStatus,
    },
    /// Every instance that may serve the request was tried in vain.
    #[error("every instance of {service} for {status} requests failed")]
    Exhausted {
        /// The service.
        service: ServiceName,
        /// The lane.
        status: GrayStatus,
    },
}

impl Balancer {
    /// Balances over the directory that is live when a request arrives.
    pub const fn new(directory: Live<Directory>) -> Self {
        Self { directory }
    }

    /// Returns the directory that it picks from.
    pub const fn directory(&self) -> &Live<Directory> {
        &self.directory
    }

    /// Picks the instance that serves a request.
    ///
    /// A lane without an instance falls back as its service says, and never into another gray lane.
    /// The base environment has nothing to fall back to but, where that is allowed, instances that
    /// belong to no lane.
    ///
    /// # Errors
    ///
    /// See [`NoInstance`].
    pub fn pick(&self, want: &Want<'_>) -> Result<Picked, NoInstance> {
        let directory = self.directory.peek();
        let Want { service, status, lanes, key, tried } = *want;
        let subsets = directory.get(service);
        let subsets = subsets.ok_or_else(|| NoInstance::UnknownService(service.clone()))?;
        if let Some(member) = subsets.pick(status, lanes, key, tried) {
            return Ok(Picked { member: Arc::clone(member), fallback: None });
        }
        if !tried.is_empty() && !subsets.of(status, lanes).is_empty() {
            return Err(NoInstance::Exhausted { service: service.clone(), status });
        }
        let member = match lanes.fallback {
            Fallback::Fail => None,
            Fallback::Base => subsets.pick(GrayStatus::Prod, lanes, key, tried),
            Fallback::All => subsets.pick_any(status.lane(), lanes, tried),
        };
        let picked = member
            .map(|member| Picked { member: Arc::clone(member), fallback: Some(lanes.fallback) });
        picked.ok_or_else(|| NoInstance::EmptyLane { service: service.clone(), status })
    }
}

#[cfg(test)]
mod tests {
    use gray_propagation::Lane;

    use super::*;
    use crate::{Algorithm, Instance, Subsets, Version};

    fn balancer(versions: &[&str]) -> Balancer {
        let instances = (1..).zip(versions).map(|(port, version)| Instance {
            version: Some(Version::new(*version)),
            ..Instance::new(([127, 0, 0, 1], port).into())
        });
        let subsets = Subsets::new(instances.collect(), Algorithm::RoundRobin, None);
        let directory = Directory::from_iter([(ServiceName::new("user-app"), subsets.into())]);
        Balancer::new(gray_config::live(directory).1)
    }

    #[track_caller]
    fn check(versions: &[&str], fallback: Fallback, status: GrayStatus, expected: Option<&str>) {
        let lanes = Lanes {
            base: Some(Version::new("V1")),
            versions: [(Lane::GRAY, Version::new("V2"))].into(),
            fallback,
            ..Lanes::default()
        };
        let service = ServiceName::new("user-app");
        let want = Want { service: &service, status, lanes: &lanes, key: None, tried: &[] };
        let picked = balancer(versions).pick(&want);
        let version = picked.as_ref().ok().and_then(|it| it.member.instance().version.as_ref());
        assert_eq!(version.map(Version::as_str), expected, "{picked:?}");
    }

    const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

    #[test]
    fn a_lane_falls_back_as_it_is_told() {
        check(&["V1", "V2"], Fallback::Fail, GRAY, Some("V2"));
        check(&["V1"], Fallback::Fail, GRAY, None);
        check(&["V1"], Fallback::Base, GRAY, Some("V1"));
        check(&["V9"], Fallback::Base, GRAY, None);
        check(&["V9"], Fallback::All, GRAY, Some("V9"));
    }

    /// A lane whose instances are there, and cannot be reached, has not become empty.
    #[test]
    fn who_has_tried_all_of_a_lane_is_not_sent_elsewhere() {
        let service = ServiceName::new("user-app");
        let balancer = balancer(&["V1", "V2", "V2"]);
        for fallback in [Fallback::Fail, Fallback::Base, Fallback::All] {
            let lanes = Lanes {
                base: Some(Version::new("V1")),
                versions: [(Lane::GRAY, Version::new("V2"))].into(),
                fallback,
                ..Lanes::default()
            };
            let mut tried = Vec::new();
            for _ in 0..2 {
                let want = Want {
                    service: &service,
                    status: GRAY,
                    lanes: &lanes,
                    key: None,
                    tried: &tried,
                };
                let picked = balancer.pick(&want).unwrap();
                assert_eq!(picked.member.instance().version, Some(Version::new("V2")));
                tried.push(picked.member.instance().addr);
            }
            let want =
                Want { service: &service, status: GRAY, lanes: &lanes, key: None, tried: &tried };
            let error = balancer.pick(&want).unwrap_err();
            let exhausted = NoInstance::Exhausted { service: service.clone(), status: GRAY };
            assert_eq!(error, exhausted);
        }
    }

    #[test]
    fn production_never_falls_into_a_gray_lane() {
        for fallback in [Fallback::Fail, Fallback::Base, Fallback::All] {
            check(&["V2"], fallback, GrayStatus::Prod, None);
        }
        check(&["V2", "V9"], Fallback::All, GrayStatus::Prod, Some("V9"));
    }

    #[test]
    fn an_unknown_service_is_told_apart() {
        let service = ServiceName::new("nobody");
        let lanes = Lanes::default();
        let status = GrayStatus::All;
        let want = Want { service: &service, status, lanes: &lanes, key: None, tried: &[] };
        let error = balancer(&[]).pick(&want).unwrap_err();
        assert_eq!(error, NoInstance::UnknownService(service));
    }
}
