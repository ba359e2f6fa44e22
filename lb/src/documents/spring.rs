use gray_config::{Document, Faults, KeyPath, did_you_mean};

use crate::{GrayVersionProperties, LaneTable};

/// What the Spring Cloud design's documents (seed S1) together say about lanes, later ones over
/// earlier ones.
#[derive(Debug, Default)]
pub struct SpringLanes {
    /// Whether the design's starter is loaded at all, where that is said.
    load: Option<bool>,
    /// Whether anything stands under the prefix.
    said: bool,
    versions: GrayVersionProperties,
    routed: Vec<String>,
}

/// Tells whether this is Ribbon's key for a load balancer, as Spring reads keys: case, hyphens and
/// blanks do not matter. Copies of the design's documents spell it `NFLoadBalancerRule className`.
fn is_rule_class(key: &str) -> bool {
    let letters = key.bytes().filter(u8::is_ascii_alphanumeric);
    letters.map(|it| it.to_ascii_lowercase()).eq(*b"nfloadbalancerruleclassname")
}

/// Copies of the design's documents circulate whose lines all begin at the left: nothing of them would be in
/// force, and nobody would know.
fn warn_of_lost_indentation(document: &Document, prefix: &str, faults: &mut Faults) {
    let mut at = KeyPath::ROOT;
    for key in prefix.split('.') {
        at = at.key(key);
        if document.contains(&at) && document.keys(&at).next().is_none() {
            let message =
                format!("nothing is below `{key}`, so nothing of `{prefix}` is said here");
            let help = "indent what belongs below it".to_owned();
            faults.error_with_help(&at, message, Some(help));
        }
    }
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
            let words = ["true", "yes", "on"];
            self.load = Some(words.iter().any(|word| load.eq_ignore_ascii_case(word)));
        }
        self.said |= document.keys(&root).next().is_some();
        warn_of_lost_indentation(document, prefix, faults);
        let at = root.key("version");
        if document.contains(&at) {
            let read: Option<GrayVersionProperties> = document.read(&at, faults);
            let read = read.unwrap_or_default();
            self.versions.prod_version = read.prod_version.or(self.versions.prod_version.take());
            self.versions.gray_version = read.gray_version.or(self.versions.gray_version.take());
        }
        self.take_routed(document, faults);
    }

    /// Tells whether the design's starter is loaded at all.
    pub fn is_loaded(&self) -> bool {
        self.load.unwrap_or_default()
    }

    /// Says why gray release is off where nobody has switched it off.
    pub fn why_off(&self, prefix: &str) -> Option<String> {
        match self.load {
            _ if !self.said => Some(format!(
                "no document says anything under `{prefix}`, so gray release is off; is the prefix another?"
            )),
            None => Some(format!("`{prefix}.load` is not set, so gray release is off")),
            Some(_) => None,
        }
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
