//! Which lane this copy of the service belongs to, and how the lanes of others are served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gray_config::{ConfigSource, FileSource, Follow, Health, Live, Merged, Problems, follow, live};
use gray_lb::{Lanes, ServedLanes, ServiceName, Version};
use gray_propagation::{GrayStatus, Lane};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{StartError, StarterProperties};

/// The largest document that is read.
const MAX_FILE: u64 = 4 << 20;

/// Says to which lane this copy belongs, at any time.
#[derive(Clone, Debug)]
pub(crate) struct OwnLane {
    service: ServiceName,
    version: Option<Version>,
    /// The lane that the configuration names, if it names one.
    named: Option<GrayStatus>,
    pub(crate) lanes: Live<ServedLanes>,
    /// The lanes whose instances are known by their group, not by their version.
    pub(crate) apart: BTreeSet<Lane>,
    /// How the documents are doing that say it, where there are any.
    health: Option<Live<Health>>,
    /// Whether there need be none: nobody named them, and they are the design's own.
    optional: bool,
    /// Whether one was ever in force.
    known: Arc<AtomicBool>,
    /// Until when calls wait for that.
    patience: Instant,
}

/// How long the documents may take before calls fail without them, and that is warned of.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is warned of again.
const AGAIN: Duration = Duration::from_secs(30);

impl OwnLane {
    pub(crate) fn new(
        properties: &StarterProperties,
        lanes: Live<ServedLanes>,
        health: Option<Live<Health>>,
    ) -> Result<Self, StartError> {
        let named = properties.lane.as_deref().map(named).transpose()?;
        let service = ServiceName::new(properties.service.as_str());
        let version = properties.version.as_deref().map(Version::new);
        let apart = properties.apart()?.into_keys().collect();
        let (known, patience) = (Arc::default(), Instant::now() + PATIENCE);
        let optional = properties.data_ids.is_empty() && properties.rules.is_empty();
        Ok(Self { service, version, named, lanes, apart, health, optional, known, patience })
    }

    /// Returns the status of what this copy does of its own accord.
    ///
    /// The lane that has this copy's version, as in the Spring Cloud design; base where none has.
    pub(crate) fn status(&self) -> GrayStatus {
        self.status_in(&self.lanes.peek())
    }

    /// The same where lanes are served like this.
    pub(crate) fn status_in(&self, served: &ServedLanes) -> GrayStatus {
        if !served.on {
            return GrayStatus::All;
        }
        self.named.unwrap_or_else(|| self.by_version(served))
    }

    /// Tells whether this copy has the version of a lane: two lanes may share one, or one that of base.
    pub(crate) fn has_version_of(&self, status: GrayStatus) -> bool {
        let served = self.lanes.peek();
        let lanes = served.table.of(&self.service);
        let version = match status {
            GrayStatus::All => return true,
            GrayStatus::Prod => lanes.base.as_ref(),
            GrayStatus::Gray(lane) => lanes.versions.get(&lane),
        };
        version.is_some() && version == self.version.as_ref()
    }

    /// Returns the lane that has this copy's version.
    fn by_version(&self, served: &ServedLanes) -> GrayStatus {
        let lanes = served.table.of(&self.service);
        let mut versions = lanes.versions.iter();
        let own = versions.find(|(_, version)| Some(*version) == self.version.as_ref());
        match own {
            Some((lane, version)) if Some(version) != lanes.base.as_ref() => {
                GrayStatus::Gray(*lane)
            }
            _ => GrayStatus::Prod,
        }
    }

    /// Says what is odd about this copy's lane: it is asked for by its version, and works of its own
    /// accord in another lane.
    pub(crate) fn oddity(&self) -> Option<String> {
        let (named, own) = (self.named?, self.by_version(&self.lanes.peek()));
        if matches!(named, GrayStatus::Gray(lane) if self.apart.contains(&lane)) {
            return None;
        }
        let odd = self.is_routed() && named != own && self.lanes.peek().on;
        odd.then(|| {
            let version = self.version().unwrap_or("none");
            format!(
                "it is configured to be of {named}, but its version {version} is that of {own}: \
                 requests reach it by its version"
            )
        })
    }

    /// Returns the lanes that there are: those with a version, and those with a group of their own.
    pub(crate) fn all(&self) -> BTreeSet<Lane> {
        &self.lanes.peek().lanes() | &self.apart
    }

    /// Tells whether lanes matter to this service; if not, every copy serves every request.
    pub(crate) fn is_routed(&self) -> bool {
        self.lanes.peek().table.of(&self.service).routed
    }

    /// Tells whether it is known how lanes are served. Until then nobody knows which version a lane has, and
    /// whoever was called could be of any. Where nobody has named a document, and there is none, nobody says
    /// anything about lanes, and every version serves.
    pub(crate) fn is_known(&self) -> bool {
        if self.known.load(Ordering::Acquire) {
            return true;
        }
        let known = self.health.as_ref().is_none_or(|health| {
            let health = health.peek();
            let is_missing = health.unavailable.as_ref().is_some_and(|error| error.is_missing);
            health.accepted > 0 || (self.optional && is_missing)
        });
        if known {
            self.known.store(true, Ordering::Release);
        }
        known
    }

    /// Waits until it is, however long that takes, and says why it waits.
    pub(crate) async fn known(&self) {
        let mut patience = PATIENCE;
        while tokio::time::timeout(patience, self.wait()).await.is_err() {
            patience = AGAIN;
            let why = self.health.as_ref().and_then(|health| why(&health.peek()));
            let why = why.unwrap_or_else(|| "nothing has come yet".to_owned());
            tracing::warn!(
                service = %self.service,
                why,
                "it is not known which version each lane has, so this copy is not registered and calls nobody"
            );
        }
    }

    /// Waits until it is, for as long as a call may wait.
    pub(crate) async fn known_soon(&self) {
        let _ = tokio::time::timeout_at(self.patience, self.wait()).await;
    }

    async fn wait(&self) {
        const LONGEST: Duration = Duration::from_millis(200);
        let mut step = Duration::from_millis(2);
        while !self.is_known() {
            tokio::time::sleep(step).await;
            step = LONGEST.min(step * 2);
        }
    }

    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_ref().map(Version::as_str)
    }
}

/// Why no document is in force.
fn why(health: &Health) -> Option<String> {
    let problems = health.problems.as_ref().map(ToString::to_string);
    problems.or_else(|| health.unavailable.as_ref().map(ToString::to_string))
}

/// Reads a lane as an operator names it: `gray`, `prod`, or another lane's name.
pub(crate) fn named(text: &str) -> Result<GrayStatus, StartError> {
    if ["prod", "base"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Ok(GrayStatus::Prod);
    }
    if text.eq_ignore_ascii_case("gray") {
        return Ok(GrayStatus::Gray(Lane::GRAY));
    }
    let lane = text.parse::<Lane>();
    lane.map(GrayStatus::Gray).map_err(|error| StartError::Lane(text.to_owned(), error))
}

/// Follows the documents that say how lanes are served.
pub(crate) fn follow_lanes(
    properties: &StarterProperties,
    tasks: &mut JoinSet<()>,
) -> Result<(Live<ServedLanes>, Option<Live<Health>>), StartError> {
    let fixed = fixed(properties)?;
    let sources = sources(properties);
    let (publisher, lanes) = live(fixed);
    if sources.is_empty() {
        return Ok((lanes, None));
    }
    let how = properties.lane_documents();
    let parse =
        move |documents: &_| -> Result<(ServedLanes, Problems), Problems> { how.parse(documents) };
    let updates = Box::new(Merged::new(sources)).updates();
    let following = Follow::new(parse, None);
    let health = following.health();
    tasks.spawn(follow(updates, following, publisher));
    Ok((lanes, Some(health)))
}

/// The documents that say how lanes are served, and more, wherever they are.
pub(crate) fn sources(properties: &StarterProperties) -> Vec<Box<dyn ConfigSource>> {
    let mut sources: Vec<Box<dyn ConfigSource>> = Vec::new();
    if !properties.rules.is_empty() {
        sources.push(Box::new(FileSource::new(properties.rules.clone(), MAX_FILE)));
    }
    #[cfg(feature = "nacos")]
    sources.extend(on_nacos(properties));
    sources
}

#[cfg(feature = "nacos")]
fn on_nacos(properties: &StarterProperties) -> Option<Box<dyn ConfigSource>> {
    use gray_config::nacos::{ConfigKey, Link, Module};

    let (nacos, documents) = (properties.nacos.clone()?, properties.documents());
    let key = |data_id| ConfigKey { data_id, group: properties.group().to_owned() };
    let keys: Vec<_> = documents.into_iter().map(key).collect();
    if keys.is_empty() {
        return None;
    }
    Some(Box::new(gray_config::NacosSource::new(Link::new(nacos, Module::Config), keys)))
}

/// How lanes are served as long as no document says it.
fn fixed(properties: &StarterProperties) -> Result<ServedLanes, StartError> {
    let mut lanes =
        Lanes { base: properties.base.as_deref().map(Version::new), ..Lanes::default() };
    for (name, version) in &properties.lanes {
        let GrayStatus::Gray(lane) = named(name)? else {
            return Err(StartError::BaseVersion(name.clone()));
        };
        lanes.versions.insert(lane, Version::new(version.as_str()));
    }
    // Where nobody says anything about lanes every instance serves; this copy may have one all the same.
    lanes.routed = lanes.base.is_some() || !lanes.versions.is_empty();
    let on = lanes.routed || properties.lane.is_some();
    let mut served = ServedLanes { on, ..ServedLanes::default() };
    served.table.default = lanes;
    Ok(served)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: Option<&str>, lane: Option<&str>, on: bool, expected: GrayStatus) {
        let properties = StarterProperties {
            service: "a".to_owned(),
            version: version.map(str::to_owned),
            lane: lane.map(str::to_owned),
            base: Some("V1".to_owned()),
            lanes: [("gray".to_owned(), "V2".to_owned())].into(),
            ..StarterProperties::default()
        };
        let served = ServedLanes { on, ..fixed(&properties).unwrap() };
        let own = OwnLane::new(&properties, live(served).1, None).unwrap();
        assert_eq!(own.status(), expected, "{version:?} {lane:?} {on}");
    }

    #[test]
    fn the_version_says_the_lane_unless_it_is_named() {
        let gray = GrayStatus::Gray(Lane::GRAY);
        check(Some("V1"), None, true, GrayStatus::Prod);
        check(Some("V2"), None, true, gray);
        check(Some("V9"), None, true, GrayStatus::Prod);
        check(None, None, true, GrayStatus::Prod);
        check(Some("V1"), Some("gray"), true, gray);
        check(Some("V2"), Some("PROD"), true, GrayStatus::Prod);
        check(Some("V1"), Some("blue"), true, GrayStatus::Gray("blue".parse().unwrap()));
        check(Some("V2"), None, false, GrayStatus::All);
    }

    #[test]
    fn a_lane_that_is_named_counts_without_any_document() {
        let properties = StarterProperties {
            service: "a".to_owned(),
            lane: Some("gray".to_owned()),
            ..StarterProperties::default()
        };
        let of = |properties: &StarterProperties| {
            OwnLane::new(properties, live(fixed(properties).unwrap()).1, None).unwrap()
        };
        let own = of(&properties);
        assert_eq!((own.status(), own.is_routed()), (GrayStatus::Gray(Lane::GRAY), false));
        assert_eq!(own.oddity(), None);
        assert_eq!(of(&StarterProperties::default()).status(), GrayStatus::All);
        let odd = StarterProperties {
            version: Some("V1".to_owned()),
            base: Some("V1".to_owned()),
            lanes: [("gray".to_owned(), "V2".to_owned())].into(),
            ..properties
        };
        assert!(of(&odd).oddity().unwrap().contains("its version V1 is that of PROD"));
    }
}
