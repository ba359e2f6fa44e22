use std::sync::Arc;

use gray_config::Live;
use gray_propagation::GrayStatus;
use jiff::Timestamp;

use crate::condition::Condition;
use crate::explain::{ConditionReport, Explanation, RuleReport};
use crate::senses::Subject;
use crate::share::IssuedId;
use crate::{Head, Senses};

/// A named reason for a request to travel in a lane.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) target: GrayStatus,
    /// `None` for every request.
    pub(crate) when: Option<Condition>,
    /// Why the rule never hits, although it stands in the document.
    pub(crate) off: Option<&'static str>,
    pub(crate) expires: Option<Timestamp>,
}

impl Rule {
    /// Returns the rule's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns where the rule sends requests.
    pub const fn target(&self) -> GrayStatus {
        self.target
    }

    fn hits(&self, subject: &Subject<'_>) -> bool {
        self.off.is_none()
            && self.expires.is_none_or(|expires| subject.now() < expires)
            && self.when.as_ref().is_none_or(|condition| condition.holds(subject))
    }
}

/// The rules in force: valid by construction.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// `None` while gray release is switched off.
    rules: Option<Vec<Rule>>,
    senses: Option<Live<Senses>>,
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The lane it travels in.
    pub status: GrayStatus,
    /// The position of the rule that hit.
    pub rule: Option<usize>,
    /// The key that the client is to be given as a cookie.
    pub issued: Option<IssuedId>,
    /// What rules asked for and nobody knew.
    pub unknown: Unknown,
}

impl Verdict {
    /// The verdict while gray release is switched off.
    pub const OFF: Self = Self {
        status: GrayStatus::All,
        rule: None,
        issued: None,
        unknown: Unknown { user: false, place: false },
    };
}

/// What rules asked about a request and could not be told, so that their conditions did not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// The user's number: it was not sent, or its token was not valid.
    pub user: bool,
    /// The place of the client's address.
    pub place: bool,
}

impl RuleSet {
    /// Rules that let every request reach every version.
    pub const fn off() -> Self {
        Self { rules: None, senses: None }
    }

    /// Rules in the order in which they are asked.
    pub const fn new(rules: Vec<Rule>, senses: Live<Senses>) -> Self {
        Self { rules: Some(rules), senses: Some(senses) }
    }

    /// Returns the rules; none while gray release is switched off.
    pub fn rules(&self) -> &[Rule] {
        self.rules.as_deref().unwrap_or_default()
    }

    /// Tells whether gray release is switched on.
    pub const fn is_on(&self) -> bool {
        self.rules.is_some()
    }

    /// Decides which lane a request travels in: the first rule that hits, else the base version.
    ///
    /// It never fails: what a request lacks or has malformed makes a condition not hold.
    pub fn classify(&self, head: &Head<'_>) -> Verdict {
        match &self.senses {
            Some(senses) => self.decide(&Subject::new(head, &senses.peek())),
            None => Verdict::OFF,
        }
    }

    fn decide(&self, subject: &Subject<'_>) -> Verdict {
        let Some(rules) = &self.rules else {
            return Verdict::OFF;
        };
        let hit = rules.iter().enumerate().find(|(_, rule)| rule.hits(subject));
        Verdict {
            status: hit.map_or(GrayStatus::Prod, |(_, rule)| rule.target),
            rule: hit.map(|(position, _)| position),
            issued: subject.issued(),
            unknown: subject.unknown(),
        }
    }

    /// Says how a request is decided: every rule up to the one that hits, condition by condition.
    pub fn explain(&self, head: &Head<'_>) -> (Verdict, Explanation) {
        let senses = self.senses.as_ref().map(Live::load).unwrap_or_default();
        let subject = Subject::new(head, &senses);
        let verdict = self.decide(&subject);
        let asked = verdict.rule.map_or(usize::MAX, |position| position + 1);
        let report = |rule: &Rule| RuleReport {
            name: rule.name.to_string(),
            target: rule.target.to_string(),
            hit: rule.hits(&subject),
            off: match rule.expires {
                Some(expires) if subject.now() >= expires => Some("the rule has expired"),
                _ => rule.off,
            },
            when: rule.when.as_ref().map(|condition| ConditionReport::new(condition, &subject)),
        };
        let explanation = Explanation {
            on: self.is_on(),
            status: verdict.status.to_string(),
            user: subject.user().map(|user| String::from_utf8_lossy(user).into_owned()),
            place: subject.place().map(|place| {
                [&place.country, &place.province, &place.city].map(|names| names.join("/")).into()
            }),
            rule: self.rules().get(asked.wrapping_sub(1)).map(|rule| rule.name.to_string()),
            rules: self.rules().iter().take(asked).map(report).collect(),
        };
        (verdict, explanation)
    }
}
