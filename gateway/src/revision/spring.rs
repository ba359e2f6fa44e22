//! The Spring Cloud design's documents, as they are (seed S1).

use gray_config::{Document, Faults, KeyPath};
use gray_filters::{GrayGatewayProperties, Rule};
use gray_lb::SpringLanes;
use gray_mq::MessagesProperties;
use gray_propagation::Lane;

use super::documents::Meaning;
use super::native::check_messages;

/// What several documents together say, later ones over earlier ones.
#[derive(Debug, Default)]
pub(super) struct Spring {
    lanes: SpringLanes,
    gateway: Option<Vec<Rule>>,
}

impl Spring {
    /// Takes what a document says; keys outside the prefix are other people's.
    pub(super) fn take(&mut self, document: &Document, prefix: &str, faults: &mut Faults) {
        self.lanes.take(document, prefix, faults);
        let at = KeyPath::ROOT.dotted(prefix).key("gateway");
        if document.contains(&at) {
            let read: Option<GrayGatewayProperties> = document.read(&at, faults);
            let read = read.unwrap_or_default();
            let rules = read.rules(&at, faults);
            self.gateway = read.enabled.then_some(rules);
        }
        let root = KeyPath::ROOT.dotted(prefix);
        if document.contains(&root.key("messages")) {
            let read: Option<MessagesProperties> = document.read(&root.key("messages"), faults);
            check_messages(&read.unwrap_or_default(), [Lane::GRAY].into(), &root, faults);
        }
    }

    /// Returns what the documents together mean; `None` instead of rules where they are off.
    pub(super) fn finish(self) -> Meaning {
        let lanes = self.lanes.table();
        let rules = self.gateway.filter(|_| self.lanes.load);
        Meaning { rules, lanes, open: [Lane::GRAY].into() }
    }
}
