use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use gray_propagation::{GrayStatus, Lane};

use crate::{Algorithm, Instance, Lanes, Member, Picker, Unversioned, Version};

/// The instances of one service, sorted once by what may be asked for: a version, or the lane whose
/// own registry they were found in.
///
/// Which lane has which version is not known here, so that a request may go on with the lanes it
/// began with while instances change.
#[derive(Debug)]
pub struct Subsets {
    /// Everything that is registered, in the order of addresses.
    registered: Vec<Arc<Member>>,
    all: Subset,
    unversioned: Subset,
    by_version: foldhash::HashMap<Version, Versioned>,
    by_lane: BTreeMap<Lane, Subset>,
}

/// The instances of one version, without and with those that have none.
#[derive(Debug)]
struct Versioned {
    exact: Subset,
    /// `None` where there are no instances without a version.
    with_unversioned: Option<Subset>,
}

impl Subsets {
    /// Sorts the instances of a service; those that may not be called are kept aside.
    ///
    /// `before` is what they were sorted into last time: counters go on, and an instance that did
    /// not change keeps its requests.
    pub fn new(instances: Vec<Instance>, algorithm: Algorithm, before: Option<&Self>) -> Self {
        let registered = members(instances, before);
        let available = || registered.iter().filter(|member| member.instance().is_available());
        let pick = |keep: &dyn Fn(&Instance) -> bool, before: Option<&Subset>| {
            let kept = available().filter(|member| keep(member.instance())).cloned().collect();
            Subset::new(kept, algorithm, before)
        };
        let unversioned = pick(&Instance::is_unlabelled, before.map(|it| &it.unversioned));
        let mut by_version: foldhash::HashMap<Version, Versioned> = foldhash::HashMap::default();
        let mut by_lane: BTreeMap<Lane, Subset> = BTreeMap::new();
        for instance in available().map(|member| member.instance()) {
            match (&instance.lane, &instance.version) {
                (Some(lane), _) if !by_lane.contains_key(lane) => {
                    let before = before.and_then(|it| it.by_lane.get(lane));
                    by_lane.insert(*lane, pick(&|it| it.lane.as_ref() == Some(lane), before));
                }
                (None, Some(version)) if !by_version.contains_key(version) => {
                    let before = before.and_then(|it| it.by_version.get(version));
                    let is =
                        |it: &Instance| it.lane.is_none() && it.version.as_ref() == Some(version);
                    let or_none = |it: &Instance| is(it) || it.is_unlabelled();
                    let wider = before.and_then(|it| it.with_unversioned.as_ref());
                    let with_unversioned = (!unversioned.is_empty()).then(|| pick(&or_none, wider));
                    let exact = pick(&is, before.map(|it| &it.exact));
                    by_version.insert(version.clone(), Versioned { exact, with_unversioned });
                }
                _ => {}
            }
        }
        let all = pick(&|_| true, before.map(|it| &it.all));
        Self { registered, all, unversioned, by_version, by_lane }
    }

    /// Returns everything that is registered, callable or not.
    pub fn registered(&self) -> &[Arc<Member>] {
        &self.registered
    }

    /// Returns the members that a status asks for, before any fallback.
    pub fn of(&self, status: GrayStatus, lanes: &Lanes) -> &[Arc<Member>] {
        self.subset(status, lanes).map_or(&[], |subset| &subset.members)
    }

    /// Picks an instance that a status asks for, none of those that were tried.
    pub(crate) fn pick(
        &self,
        status: GrayStatus,
        lanes: &Lanes,
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Option<&Arc<Member>> {
        self.subset(status, lanes)?.pick(key, tried)
    }

    /// Returns the members that belong to no lane but this one.
    pub fn any_but_foreign(
        &self,
        lane: Option<&Lane>,
        lanes: &Lanes,
    ) -> impl Iterator<Item = &Arc<Member>> {
        self.all.members.iter().filter(move |member| {
            let instance = member.instance();
            match (&instance.lane, &instance.version) {
                (Some(pinned), _) => Some(pinned) == lane,
                (None, Some(version)) => !lanes.is_foreign(version, lane),
                (None, None) => true,
            }
        })
    }

    /// Picks any instance that belongs to no lane but this one.
    pub(crate) fn pick_any(
        &self,
        lane: Option<&Lane>,
        lanes: &Lanes,
        tried: &[SocketAddr],
    ) -> Option<&Arc<Member>> {
        let fits = || {
            let all = self.any_but_foreign(lane, lanes);
            all.filter(|member| !tried.contains(&member.instance().addr))
        };
        let turn = self.all.picker.pick(&self.all.members, None).checked_rem(fits().count())?;
        fits().nth(turn)
    }

    fn subset(&self, status: GrayStatus, lanes: &Lanes) -> Option<&Subset> {
        if !lanes.routed {
            return Some(&self.all);
        }
        match status {
            GrayStatus::All => Some(&self.all),
            GrayStatus::Prod => self.base(lanes),
            GrayStatus::Gray(lane) => self.by_lane.get(&lane).or_else(|| {
                let version = lanes.versions.get(&lane)?;
                self.by_version.get(version).map(|it| &it.exact)
            }),
        }
    }

    fn base(&self, lanes: &Lanes) -> Option<&Subset> {
        let versioned = lanes.base.as_ref().and_then(|version| self.by_version.get(version));
        match (lanes.unversioned, versioned) {
            (Unversioned::None, versioned) => versioned.map(|it| &it.exact),
            (Unversioned::Base, None) => Some(&self.unversioned),
            (Unversioned::Base, Some(it)) => {
                Some(it.with_unversioned.as_ref().unwrap_or(&it.exact))
            }
        }
    }
}

/// Makes members in the order of their addresses, keeping those that did not change.
fn members(mut instances: Vec<Instance>, before: Option<&Subsets>) -> Vec<Arc<Member>> {
    instances.sort_by_key(|instance| instance.addr);
    instances.dedup_by_key(|instance| instance.addr);
    let old: HashMap<SocketAddr, &Arc<Member>> = before
        .into_iter()
        .flat_map(|before| &before.registered)
        .map(|member| (member.instance().addr, member))
        .collect();
    let member = |instance: Instance| match old.get(&instance.addr) {
        Some(member) if *member.instance() == instance => Arc::clone(member),
        _ => Arc::new(Member::new(instance)),
    };
    instances.into_iter().map(member).collect()
}

#[derive(Debug)]
struct Subset {
    members: Vec<Arc<Member>>,
    picker: Box<dyn Picker>,
}

impl Subset {
    fn new(members: Vec<Arc<Member>>, algorithm: Algorithm, before: Option<&Self>) -> Self {
        let position = before.map_or(0, |before| before.picker.position());
        let picker = algorithm.picker(&members, position);
        Self { members, picker }
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn pick(&self, key: Option<u64>, tried: &[SocketAddr]) -> Option<&Arc<Member>> {
        let first = self.picker.pick(&self.members, key);
        let fresh = |member: &&Arc<Member>| !tried.contains(&member.instance().addr);
        let picked = self.members.get(first).filter(fresh);
        picked.or_else(|| {
            let after = self.members.get(first..).unwrap_or_default();
            after.iter().chain(&self.members).find(fresh)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(port: u16, version: &str) -> Instance {
        let version = (!version.is_empty()).then(|| Version::new(version));
        Instance { version, ..Instance::new(([127, 0, 0, 1], port).into()) }
    }

    fn lanes() -> Lanes {
        Lanes {
            base: Some(Version::new("V1")),
            versions: [(Lane::GRAY, Version::new("V2"))].into(),
            ..Lanes::default()
        }
    }

    #[track_caller]
    fn check(instances: &[Instance], lanes: &Lanes, status: GrayStatus, expected: &[u16]) {
        let subsets = Subsets::new(instances.to_vec(), Algorithm::RoundRobin, None);
        let pick = |_| subsets.pick(status, lanes, None, &[]);
        let mut picked: Vec<u16> =
            (0..4).filter_map(pick).map(|member| member.instance().addr.port()).collect();
        picked.truncate(expected.len().max(1));
        assert_eq!(picked, expected);
    }

    const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

    #[test]
    fn each_status_reaches_its_version_in_turn() {
        let all = [instance(1, "V1"), instance(2, "V2"), instance(3, "V1"), instance(4, "V3")];
        check(&all, &lanes(), GrayStatus::All, &[1, 2, 3, 4]);
        check(&all, &lanes(), GrayStatus::Prod, &[1, 3, 1, 3]);
        check(&all, &lanes(), GRAY, &[2, 2]);
        check(&all, &lanes(), GrayStatus::Gray("blue".parse().unwrap()), &[]);
        check(&all, &Lanes { routed: false, ..lanes() }, GRAY, &[1, 2, 3, 4]);
    }

    #[test]
    fn instances_without_a_version_are_base_or_nothing() {
        let all = [instance(1, "V1"), instance(2, ""), instance(3, "V2")];
        let none = Lanes { unversioned: Unversioned::None, ..lanes() };
        check(&all, &lanes(), GrayStatus::Prod, &[1, 2]);
        check(&all, &none, GrayStatus::Prod, &[1, 1]);
        check(&all[1..], &lanes(), GrayStatus::Prod, &[2, 2]);
        check(&all[1..], &none, GrayStatus::Prod, &[]);
        check(&all, &Lanes { base: None, ..lanes() }, GrayStatus::Prod, &[2, 2]);
    }

    #[test]
    fn what_is_down_or_off_or_weighs_nothing_is_not_called() {
        let down = Instance { healthy: false, ..instance(1, "V1") };
        let off = Instance { enabled: false, ..instance(2, "V1") };
        let weight = crate::Weight::new(0.0).unwrap();
        let light = Instance { weight, ..instance(3, "V1") };
        check(&[down, off, light, instance(4, "V1")], &lanes(), GrayStatus::Prod, &[4, 4]);
    }

    #[test]
    fn a_lane_with_a_registry_of_its_own_needs_no_version() {
        let blue: Lane = "blue".parse().unwrap();
        let pinned = Instance { lane: Some(blue), ..instance(1, "V1") };
        let all = [pinned, instance(2, "V1")];
        check(&all, &lanes(), GrayStatus::Gray(blue), &[1, 1]);
        check(&all, &lanes(), GrayStatus::Prod, &[2, 2]);
        check(&all, &lanes(), GrayStatus::All, &[1, 2]);
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        let all = vec![instance(1, "V1"), instance(2, "V1")];
        let subsets = Subsets::new(all, Algorithm::RoundRobin, None);
        let tried = [([127, 0, 0, 1], 1).into()];
        for _ in 0..4 {
            let picked = subsets.pick(GrayStatus::Prod, &lanes(), None, &tried).unwrap();
            assert_eq!(picked.instance().addr.port(), 2);
        }
        let both = [tried[0], ([127, 0, 0, 1], 2).into()];
        assert!(subsets.pick(GrayStatus::Prod, &lanes(), None, &both).is_none());
    }

    #[test]
    fn turns_go_on_when_instances_change() {
        let first = vec![instance(1, "V1"), instance(2, "V1")];
        let subsets = Subsets::new(first.clone(), Algorithm::RoundRobin, None);
        subsets.pick(GrayStatus::Prod, &lanes(), None, &[]);
        let again = Subsets::new(first, Algorithm::RoundRobin, Some(&subsets));
        let picked = again.pick(GrayStatus::Prod, &lanes(), None, &[]).unwrap();
        assert_eq!(picked.instance().addr.port(), 2);
        assert!(Arc::ptr_eq(&again.registered()[0], &subsets.registered()[0]));
    }

    #[test]
    fn any_means_any_but_another_lane() {
        let all = vec![instance(1, "V2"), instance(2, "V3"), instance(3, "V9")];
        let mut lanes = lanes();
        lanes.versions.insert("blue".parse().unwrap(), Version::new("V3"));
        let subsets = Subsets::new(all, Algorithm::RoundRobin, None);
        for _ in 0..6 {
            let port = |lane| subsets.pick_any(lane, &lanes, &[]).unwrap().instance().addr.port();
            assert_ne!(port(Some(&Lane::GRAY)), 2);
            assert_eq!(port(None), 3);
        }
    }
}
