use std::collections::{BTreeMap, BTreeSet};

use gray_config::{Document, Documents, Faults, KeyPath, Problems};
use gray_lb::{Format, LaneDocuments, ServedLanes};
use gray_propagation::Lane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GroupName, InvalidGroup, Side};

/// How the messages of lanes are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConsumeMode {
    /// Not at all: nothing is tagged, and everything is consumed by everybody.
    #[serde(alias = "off")]
    Off,
    /// A lane's messages are its consumers', while it has any; else base's.
    #[default]
    #[serde(alias = "auto")]
    Auto,
    /// Base consumes everything, and the consumers of a lane its messages too: these are handled
    /// twice, as in seed S2 by default.
    #[serde(alias = "base")]
    Base,
    /// Messages are tagged, and handled in their lane, by whichever consumer gets them (the first
    /// scenario of seed S2).
    #[serde(alias = "tag")]
    Tag,
}

impl ConsumeMode {
    /// Tells whether lanes have consumer groups of their own.
    pub const fn isolates(self) -> bool {
        matches!(self, Self::Auto | Self::Base)
    }
}

/// `messages` in a rule document, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MessagesProperties {
    /// How messages are told apart, where nothing below says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_mode: Option<ConsumeMode>,
    /// The lanes whose messages base leaves alone even while nobody else consumes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored_lanes: Option<Vec<String>>,
    /// What is different for the consumers of some applications.
    pub applications: BTreeMap<String, MessagesOverride>,
    /// What is different for some consumer groups.
    pub groups: BTreeMap<String, GroupMessages>,
}

/// What is different somewhere; what is not said is as outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MessagesOverride {
    /// How messages are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_mode: Option<ConsumeMode>,
    /// The lanes whose messages base leaves alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored_lanes: Option<Vec<String>>,
}

/// What is different for a consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GroupMessages {
    /// How messages are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_mode: Option<ConsumeMode>,
    /// The lanes whose messages base leaves alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored_lanes: Option<Vec<String>>,
    /// What is different for some of its topics.
    pub topics: BTreeMap<String, MessagesOverride>,
}

/// How the messages of one consumer group and topic are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How.
    pub mode: ConsumeMode,
    /// The lanes whose messages base leaves alone even while nobody else consumes them.
    pub ignored: BTreeSet<Lane>,
}

/// What rule documents say about messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageSettings {
    default: Settings,
    applications: BTreeMap<String, Override>,
    groups: BTreeMap<String, (Override, BTreeMap<String, Override>)>,
    lanes: BTreeSet<Lane>,
    /// How the documents say that lanes are served, which is all that they say of this process's own.
    served: Option<ServedLanes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Override {
    mode: Option<ConsumeMode>,
    ignored: Option<BTreeSet<Lane>>,
}

impl MessageSettings {
    /// Settings that are the same for everything, and the lanes there are.
    pub fn of_all(settings: Settings, lanes: BTreeSet<Lane>) -> Self {
        Self { default: settings, lanes, ..Self::default() }
    }

    /// Returns how the messages of a topic are told apart for a consumer group of an application:
    /// what is said of the topic in the group counts most, then the group, then the application.
    pub fn of(&self, application: &str, group: &str, topic: &str) -> Settings {
        let mut settings = self.default.clone();
        let group = self.groups.get(group);
        let topic = group.and_then(|(_, topics)| topics.get(topic));
        let all = [self.applications.get(application), group.map(|(group, _)| group), topic];
        for said in all.into_iter().flatten() {
            settings.mode = said.mode.unwrap_or(settings.mode);
            if let Some(ignored) = &said.ignored {
                settings.ignored.clone_from(ignored);
            }
        }
        settings
    }

    /// Returns how the messages are told apart that an application produces.
    pub fn of_producer(&self, application: &str) -> Settings {
        self.of(application, "", "")
    }

    /// Returns the lanes there are.
    pub const fn lanes(&self) -> &BTreeSet<Lane> {
        &self.lanes
    }

    /// Returns how lanes are served by the documents that these settings were read from, where they were
    /// read from any.
    pub const fn served(&self) -> Option<&ServedLanes> {
        self.served.as_ref()
    }

    /// Reads what documents of either format say about messages, and which lanes they name. In the
    /// Spring Cloud design's documents it stands under its prefix, as `kerwin.tool.gray.messages`.
    /// Lanes `apart` are there though no document gives them a version.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(
        documents: &Documents,
        lanes: &LaneDocuments,
        apart: &BTreeSet<Lane>,
    ) -> Result<(Self, Problems), Problems> {
        let (served, mut problems) = lanes.parse(documents)?;
        let mut settings = Self { lanes: &served.lanes() | apart, ..Self::default() };
        if !served.on {
            settings.default.mode = ConsumeMode::Off;
        }
        for (name, text) in &documents.0 {
            let Ok((document, spring)) = Format::Auto.parse(name, text, &lanes.prefix) else {
                continue;
            };
            let root = if spring { KeyPath::ROOT.dotted(&lanes.prefix) } else { KeyPath::ROOT };
            let at = root.key("messages");
            if document.contains(&at) {
                let mut faults = Faults::default();
                let properties = read(&document, &at, &mut faults);
                settings.take(&properties, &at, &mut faults);
                problems.extend(document.problems(&faults).0);
            }
        }
        // Where gray release is off it is off for messages, whatever else they say.
        if !served.on {
            settings = Self { lanes: settings.lanes, ..Self::default() };
            settings.default.mode = ConsumeMode::Off;
        }
        settings.served = Some(served);
        if problems.has_errors() { Err(problems) } else { Ok((settings, problems)) }
    }

    /// Takes what an operator says, noting what is wrong with it.
    pub fn take(&mut self, said: &MessagesProperties, at: &KeyPath, faults: &mut Faults) {
        let MessagesProperties { consume_mode, ignored_lanes, applications, groups } = said;
        self.default.mode = consume_mode.unwrap_or(self.default.mode);
        let of_any = Ignoring { at, group: None };
        if let Some(ignored) = self.lanes_of(ignored_lanes.as_ref(), &of_any, faults) {
            self.default.ignored = ignored;
        }
        for (name, said) in applications {
            let at = at.key("applications").key(name);
            let said = self.of_override(said, &Ignoring { at: &at, group: None }, faults);
            self.applications.insert(name.clone(), said);
        }
        for (name, said) in groups {
            let at = at.key("groups").key(name);
            // Nobody consumes in a group that has no name.
            let group = GroupName::new(name).ok();
            let topic = |(topic, said): (&String, &MessagesOverride)| {
                let at = at.key("topics").key(topic);
                let of_topic = Ignoring { at: &at, group: group.as_ref() };
                (topic.clone(), self.of_override(said, &of_topic, faults))
            };
            let topics = said.topics.iter().map(topic).collect();
            let of_group = Ignoring { at: &at, group: group.as_ref() };
            let ignored = self.lanes_of(said.ignored_lanes.as_ref(), &of_group, faults);
            let group = Override { mode: said.consume_mode, ignored };
            self.groups.insert(name.clone(), (group, topics));
        }
    }

    fn of_override(
        &self,
        said: &MessagesOverride,
        place: &Ignoring<'_>,
        faults: &mut Faults,
    ) -> Override {
        let ignored = self.lanes_of(said.ignored_lanes.as_ref(), place, faults);
        Override { mode: said.consume_mode, ignored }
    }

    fn lanes_of(
        &self,
        names: Option<&Vec<String>>,
        place: &Ignoring<'_>,
        faults: &mut Faults,
    ) -> Option<BTreeSet<Lane>> {
        let at = place.at.key("ignoredLanes");
        let mut lanes = BTreeSet::new();
        for (number, name) in names?.iter().enumerate() {
            let at = at.index(number);
            let Some(lane) = faults.check(&at, name.parse::<Lane>()) else { continue };
            // Its messages would be given to consumers that there can never be.
            if faults.check(&at, place.has_group(lane)).is_none() {
                continue;
            }
            if !self.lanes.contains(&lane) {
                faults.warning(&at, format!("there is no lane `{lane}`"));
            }
            lanes.insert(lane);
        }
        Some(lanes)
    }
}

/// Where lanes are said to be ignored, and for which group where it is for one.
struct Ignoring<'a> {
    at: &'a KeyPath,
    group: Option<&'a GroupName>,
}

impl Ignoring<'_> {
    fn has_group(&self, lane: Lane) -> Result<(), InvalidGroup> {
        match self.group {
            Some(group) => group.of(Side::Lane(lane)).map(drop),
            None => GroupName::of_any(lane),
        }
    }
}

fn read(document: &Document, at: &KeyPath, faults: &mut Faults) -> MessagesProperties {
    document.read(at, faults).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(MessageSettings, Problems), Problems> {
        let documents = Documents([("rules.yaml".to_owned(), text.into())].into());
        MessageSettings::parse(&documents, &LaneDocuments::default(), &BTreeSet::new())
    }

    const LANES: &str = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n";

    #[track_caller]
    fn check(settings: &MessageSettings, place: [&str; 3], mode: ConsumeMode, ignored: bool) {
        let of = settings.of(place[0], place[1], place[2]);
        assert_eq!((of.mode, of.ignored.contains(&Lane::GRAY)), (mode, ignored), "{place:?}");
    }

    #[test]
    fn what_is_said_of_less_counts_more() {
        let text = "messages:
  ignoredLanes: [gray]
  applications: {a: {consumeMode: BASE}}
  groups:
    g:
      ignoredLanes: []
      topics: {t: {consumeMode: tag}}
";
        let (settings, warnings) = parse(&format!("{LANES}{text}")).unwrap();
        assert_eq!(warnings.0.len(), 0, "{warnings}");
        assert_eq!(settings.lanes(), &[Lane::GRAY].into());
        check(&settings, ["b", "h", "t"], ConsumeMode::Auto, true);
        check(&settings, ["a", "h", "t"], ConsumeMode::Base, true);
        check(&settings, ["a", "g", "u"], ConsumeMode::Base, false);
        check(&settings, ["a", "g", "t"], ConsumeMode::Tag, false);
    }

    #[test]
    fn messages_are_isolated_unless_gray_release_is_off() {
        let (settings, _) = parse(LANES).unwrap();
        check(&settings, ["a", "g", "t"], ConsumeMode::Auto, false);
        let (settings, _) =
            parse(&format!("enabled: false\n{LANES}messages: {{consumeMode: BASE}}")).unwrap();
        check(&settings, ["a", "g", "t"], ConsumeMode::Off, false);
    }

    #[test]
    fn the_designs_documents_have_it_under_their_prefix() {
        let text = "kerwin: {tool: {gray: {load: true, version: {prodVersion: V1, grayVersion: V2}, \
                    messages: {consumeMode: \"OFF\"}}}}";
        let (settings, _) = parse(text).unwrap();
        check(&settings, ["a", "g", "t"], ConsumeMode::Off, false);
        // Which may be a company's own; and a lane may be known by its group only.
        let text = text.replace("kerwin: {tool: {gray:", "shop: {canary: {release:");
        let text = text.replace("\"OFF\"", "BASE, ignoredLanes: [blue]");
        let documents = Documents([("common.yaml".to_owned(), text.into())].into());
        let how =
            LaneDocuments { prefix: "shop.canary.release".to_owned(), ..LaneDocuments::default() };
        let blue: Lane = "blue".parse().unwrap();
        let (settings, warnings) =
            MessageSettings::parse(&documents, &how, &[blue].into()).unwrap();
        assert_eq!(warnings.0.len(), 0, "{warnings}");
        assert_eq!(settings.lanes(), &[blue, Lane::GRAY].into());
        check(&settings, ["a", "g", "t"], ConsumeMode::Base, false);
        assert!(settings.of("a", "g", "t").ignored.contains(&blue));
    }

    /// Messages of a lane that can have no group were given to nobody: base skipped and committed them.
    #[test]
    fn a_lane_that_can_have_no_consumers_is_not_to_be_ignored() {
        let lanes = "base: {version: V1}\nlanes: [{name: team_a, version: V2}, {name: v2.1, version: V3}]\n";
        let places = [
            "messages: {ignoredLanes: [LANE]}",
            "messages: {applications: {a: {ignoredLanes: [LANE]}}}",
            "messages: {groups: {g: {ignoredLanes: [LANE]}}}",
            "messages: {groups: {g: {topics: {t: {ignoredLanes: [LANE]}}}}}",
        ];
        for (place, lane) in places.into_iter().flat_map(|it| [(it, "team_a"), (it, "v2.1")]) {
            let place = place.replace("LANE", lane);
            let problems = parse(&format!("{lanes}{place}")).unwrap_err().to_string();
            let why = format!("lane `{lane}` has no consumer group");
            assert!(problems.contains(&why) && problems.contains("ignoredLanes"), "{problems}");
        }
        // Such lanes may be there as long as nothing is kept for them.
        assert!(parse(lanes).is_ok());
        let group = "x".repeat(116);
        let long = format!("{LANES}messages: {{groups: {{{group}: {{ignoredLanes: [gray]}}}}}}");
        assert!(parse(&long).unwrap_err().to_string().contains("is no consumer group"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let text = "messages: {consumeMode: SOME, ignoredLanes: [PROD], group: {}}";
        let problems = parse(&format!("{LANES}{text}")).unwrap_err().to_string();
        assert!(problems.contains("rules.yaml:3"), "{problems}");
        let text = "messages:\n  ignoredLanes: [bleu]";
        let (_, warnings) = parse(&format!("{LANES}{text}")).unwrap();
        assert!(warnings.to_string().contains("there is no lane `bleu`"), "{warnings}");
    }
}
