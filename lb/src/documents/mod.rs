//! What rule documents of either format say about lanes; what they say about rules is for others.

mod flat;
mod format;
mod native;
mod spring;

use std::collections::BTreeSet;

use gray_config::{Document, Documents, Faults, KeyPath, Problem, Problems};

use gray_propagation::Lane;

use crate::LaneTable;

pub use self::format::Format;
pub use self::native::LanesProperties;
pub use self::spring::SpringLanes;

/// How the lanes of all services are served, and whether gray release is switched on at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedLanes {
    /// Whether it is on; while it is off, every instance serves every request.
    pub on: bool,
    /// How lanes are served while it is on.
    pub table: LaneTable,
}

impl ServedLanes {
    /// Returns the lanes that any service has a version in.
    pub fn lanes(&self) -> BTreeSet<Lane> {
        let services = self.table.services.values().chain([&self.table.default]);
        services.flat_map(|lanes| lanes.versions.keys().copied()).collect()
    }
}

/// How rule documents are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneDocuments {
    /// Which format they are in.
    pub format: Format,
    /// The prefix of the Spring Cloud design's keys.
    pub prefix: String,
    /// The names of the documents: what later ones say is over what earlier ones do.
    pub order: Vec<String>,
}

impl Default for LaneDocuments {
    fn default() -> Self {
        Self { format: Format::Auto, prefix: "kerwin.tool.gray".to_owned(), order: Vec::new() }
    }
}

impl LaneDocuments {
    /// Reads the lanes of documents in either format, and leaves their rules alone.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with what they say about lanes.
    pub fn parse(&self, documents: &Documents) -> Result<(ServedLanes, Problems), Problems> {
        let mut problems = Problems::default();
        let mut spring = None;
        let mut native: Option<ServedLanes> = None;
        for (name, text) in documents.in_order(&self.order) {
            let (document, is_spring) = match self.format.parse(name, text, &self.prefix) {
                Ok(parsed) => parsed,
                Err(more) => {
                    problems.extend(more.0);
                    continue;
                }
            };
            let mut faults = Faults::default();
            if is_spring {
                let spring = spring.get_or_insert_with(SpringLanes::default);
                spring.take(&document, &self.prefix, &mut faults);
            } else if native.is_some() {
                let message = "lanes are said by one document, and there is another one already";
                problems.extend([Problem::whole(name, message)]);
            } else if is_native(&document) {
                native = Some(read_native(&document, &mut faults));
            }
            problems.extend(document.problems(&faults).0);
        }
        if problems.has_errors() {
            return Err(problems);
        }
        match (native, spring) {
            (Some(_), Some(_)) => {
                let message = "lanes are said in both formats; leave one of the documents out";
                Err(Problem::whole(names(documents), message).into())
            }
            (Some(native), None) => Ok((native, problems)),
            (None, Some(spring)) => {
                let odd =
                    spring.why_off(&self.prefix).map(|why| Problem::odd(names(documents), why));
                problems.extend(odd);
                Ok((ServedLanes { on: spring.is_loaded(), table: spring.table() }, problems))
            }
            (None, None) => Ok((ServedLanes::default(), problems)),
        }
    }
}

fn names(documents: &Documents) -> String {
    documents.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Tells whether a document says anything in Graylane's own format; others are other people's.
fn is_native(document: &Document) -> bool {
    const KEYS: [&str; 7] =
        ["enabled", "base", "lanes", "fallback", "services", "rules", "messages"];
    document.keys(&KeyPath::ROOT).any(|key| KEYS.contains(&key))
}

fn read_native(document: &Document, faults: &mut Faults) -> ServedLanes {
    let root = KeyPath::ROOT;
    let at = root.key("enabled");
    let on = !document.contains(&at) || document.read(&at, faults).unwrap_or(true);
    let lanes = LanesProperties::read(document, faults);
    ServedLanes { on, table: lanes.table(&root, faults).0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fallback, ServiceName, Version};

    fn parse(text: &str) -> Result<(ServedLanes, Problems), Problems> {
        LaneDocuments::default().parse(&Documents([("one".to_owned(), text.into())].into()))
    }

    #[test]
    fn both_formats_say_the_same_about_lanes() {
        let native = "enabled: true\nbase: {version: V1, unversioned: none}\nfallback: fail\n\
                      lanes: [{name: gray, version: V2}]\nrules: [{name: whatever}]\n";
        let spring = "kerwin: {tool: {gray: {load: true, version: {prodVersion: V1, \
                      grayVersion: V2}, gateway: {enabled: false}}}}";
        let (native, _) = parse(native).unwrap();
        let (spring, _) = parse(spring).unwrap();
        assert_eq!(native, spring);
        let lanes = native.table.of(&ServiceName::new("a"));
        assert_eq!(lanes.versions[&Lane::GRAY], Version::new("V2"));
        assert_eq!(lanes.fallback, Fallback::Fail);
    }

    #[test]
    fn both_can_be_off() {
        assert!(!parse("enabled: false").unwrap().0.on);
        assert!(!parse("kerwin.tool.gray.load: false").unwrap().0.on);
    }

    #[test]
    fn what_says_nothing_about_lanes_leaves_them_off() {
        assert_eq!(parse("management: {port: 1}").unwrap().0, ServedLanes::default());
        assert!(parse("enabled: ture").unwrap_err().to_string().contains("enabled"));
        let both = [("a", "base: {version: V1}"), ("b", "kerwin.tool.gray.load: true")];
        let both = both.map(|(name, text)| (name.to_owned(), text.into()));
        let error = LaneDocuments::default().parse(&Documents(both.into())).unwrap_err();
        assert!(error.to_string().contains("a, b: lanes are said in both formats"), "{error}");
    }

    #[test]
    fn what_is_wrong_about_lanes_is_told() {
        let text = parse("lanes: [{name: gray}, {name: gray}]").unwrap_err().to_string();
        assert!(text.contains("a second lane is named `gray`"), "{text}");
    }
}
