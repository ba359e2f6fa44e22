//! The Spring Cloud design's documents, as they are (seed S1).

use gray_config::{Document, Faults, KeyPath};
use gray_filters::{GrayGatewayProperties, Senses, warn_of_places};
use gray_lb::SpringLanes;
use gray_mq::MessagesProperties;
use gray_propagation::Lane;

use super::documents::Meaning;
use super::native::check_messages;

/// What several documents together say, later ones over earlier ones.
#[derive(Debug, Default)]
pub(super) struct Spring {
    lanes: SpringLanes,
    gateway: Option<GrayGatewayProperties>,
}

impl Spring {
    /// Takes what a document says; keys outside the prefix are other people's.
    pub(super) fn take(
        &mut self,
        document: &Document,
        prefix: &str,
        senses: &Senses,
        faults: &mut Faults,
    ) {
        self.lanes.take(document, prefix, faults);
        let at = KeyPath::ROOT.dotted(prefix).key("gateway");
        if document.contains(&at) {
            let read: Option<GrayGatewayProperties> = document.read(&at, faults);
            let read = read.unwrap_or_default();
            // What is wrong is said where it stands.
            let rules = read.rules(&at, faults);
            warn_of_places(&rules, senses, &at.key("grayCityList"), faults);
            let keys: Vec<&str> = document.keys(&at).collect();
            let earlier = self.gateway.take().unwrap_or_default();
            self.gateway = Some(read.over(earlier, |key| keys.contains(&key)));
        }
        let root = KeyPath::ROOT.dotted(prefix);
        if document.contains(&root.key("messages")) {
            let read: Option<MessagesProperties> = document.read(&root.key("messages"), faults);
            check_messages(&read.unwrap_or_default(), [Lane::GRAY].into(), &root, faults);
        }
    }

    /// Returns what the documents together mean, without rules where they are off, and why they are where
    /// nobody has said so.
    pub(super) fn finish(self, prefix: &str) -> (Meaning, Option<String>) {
        let lanes = self.lanes.table();
        let odd = self.lanes.why_off(prefix).or_else(|| {
            let missing = self.lanes.is_loaded() && self.gateway.is_none();
            missing.then(|| {
                format!("`{prefix}.gateway` is not there, so the gateway classifies no request")
            })
        });
        let gateway = self.gateway.filter(|gateway| gateway.enabled && self.lanes.is_loaded());
        let mut known = Faults::default();
        let rules = gateway.map(|gateway| gateway.rules(&KeyPath::ROOT, &mut known));
        (Meaning { rules, lanes, open: [Lane::GRAY].into() }, odd)
    }
}
