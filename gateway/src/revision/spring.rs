//! The Spring Cloud design's documents, as they are (seed S1).

use gray_config::{Document, Faults, KeyPath, did_you_mean};
use gray_filters::{GrayGatewayProperties, Rule};
use gray_lb::GrayVersionProperties;
use gray_propagation::Lane;

use super::documents::Meaning;

/// What several documents together say, later ones over earlier ones.
#[derive(Debug, Default)]
pub(super) struct Spring {
    load: bool,
    versions: GrayVersionProperties,
    gateway: Option<Vec<Rule>>,
    routed: Vec<String>,
}

impl Spring {
    /// Takes what a document says; keys outside the prefix are other people's.
    pub(super) fn take(&mut self, document: &Document, prefix: &str, faults: &mut Faults) {
        let root = KeyPath::ROOT.dotted(prefix);
        for key in document.keys(&root) {
            if !["load", "version", "gateway"].contains(&key) {
                let help = did_you_mean(key, ["load", "version", "gateway"]);
                let help = help.map(|it| format!("did you mean `{it}`?"));
                faults.error_with_help(&root.key(key), format!("unknown key `{key}`"), help);
            }
        }
        if let Some(load) = document.scalar(&root.key("load")) {
            self.load = ["true", "yes", "on"].iter().any(|word| load.eq_ignore_ascii_case(word));
        }
        let at = root.key("version");
        if document.contains(&at) {
            let read: Option<GrayVersionProperties> = document.read(&at, faults);
            let read = read.unwrap_or_default();
            self.versions.prod_version = read.prod_version.or(self.versions.prod_version.take());
            self.versions.gray_version = read.gray_version.or(self.versions.gray_version.take());
        }
        let at = root.key("gateway");
        if document.contains(&at) {
            let read: Option<GrayGatewayProperties> = document.read(&at, faults);
            let read = read.unwrap_or_default();
            let rules = read.rules(&at, faults);
            self.gateway = read.enabled.then_some(rules);
        }
        self.take_routed(document, faults);
    }

    /// Takes the services that name the design's load balancer.
    fn take_routed(&mut self, document: &Document, faults: &mut Faults) {
        for service in document.keys(&KeyPath::ROOT) {
            let at = KeyPath::ROOT.key(service).dotted("ribbon.NFLoadBalancerRuleClassName");
            match document.scalar(&at) {
                Some(class) if class.rsplit('.').next().is_some_and(|it| it.contains("Gray")) => {
                    self.routed.push(service.to_owned());
                }
                Some(class) => {
                    let message = format!(
                        "`{class}` is not the gray load balancer, so this service gets every version"
                    );
                    faults.warning(&at, message);
                }
                None => {}
            }
        }
    }

    /// Returns what the documents together mean; `None` instead of rules where they are off.
    pub(super) fn finish(self) -> Meaning {
        let lanes = self.versions.lanes(&self.routed);
        let rules = self.gateway.filter(|_| self.load);
        Meaning { rules, lanes, open: [Lane::GRAY].into() }
    }
}
