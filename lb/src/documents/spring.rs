use gray_config::{Document, Faults, KeyPath, did_you_mean};

use crate::{GrayVersionProperties, LaneTable};

/// What the Spring Cloud design's documents (seed S1) together say about lanes, later ones over
/// earlier ones.
#[derive(Debug, Default)]
pub struct SpringLanes {
    /// Whether the design's starter is loaded at all.
    pub load: bool,
    versions: GrayVersionProperties,
    routed: Vec<String>,
}

/// Tells whether this is Ribbon's key for a load balancer, as Spring reads keys: case, hyphens and
/// blanks do not matter. Copies of the design's documents spell it `NFLoadBalancerRule className`.
fn is_rule_class(key: &str) -> bool {
    let letters = key.bytes().filter(u8::is_ascii_alphanumeric);
    letters.map(|it| it.to_ascii_lowercase()).eq(*b"nfloadbalancerruleclassname")
}

/// What stands under the design's prefix: its own keys, and what consumers of messages read.
const KEYS: [&str; 4] = ["load", "version", "gateway", "messages"];

impl SpringLanes {
    /// Takes what a document says; keys outside the prefix are other people's.
    pub fn take(&mut self, document: &Document, prefix: &str, faults: &mut Faults) {
        let root = KeyPath::ROOT.dotted(prefix);
        for key in document.keys(&root) {
            if !KEYS.contains(&key) {
                let help = did_you_mean(key, KEYS);
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
        self.take_routed(document, faults);
    }

    /// Returns how lanes are served.
    pub fn table(&self) -> LaneTable {
        self.versions.lanes(&self.routed)
    }

    /// Takes the services that name the design's load balancer.
    fn take_routed(&mut self, document: &Document, faults: &mut Faults) {
        for service in document.keys(&KeyPath::ROOT) {
            let ribbon = KeyPath::ROOT.key(service).key("ribbon");
            let keys = document.keys(&ribbon);
            let Some(key) = keys.into_iter().find(|key| is_rule_class(key)) else { continue };
            let at = ribbon.key(key);
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
}
