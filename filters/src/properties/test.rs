use std::sync::Arc;

use gray_config::{Faults, KeyPath, did_you_mean};
use regex::bytes::RegexBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::share;
use crate::lists::{List, Lists};
use crate::operator::{Operator, Test};

/// How large a compiled pattern may become, in bytes.
const REGEX_LIMIT: usize = 1 << 20;

/// What is asked of a value, as an operator writes it: exactly one of the operators.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = with_aliases)]
pub struct TestProperties {
    /// The name of the header, query parameter or cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It is exactly this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal: Option<String>,
    /// It is anything but this, or absent.
    #[serde(alias = "not_equal", skip_serializing_if = "Option::is_none")]
    pub not_equal: Option<String>,
    /// It begins with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// It ends with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// This is somewhere in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// It is one of these.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<String>>,
    /// It is none of these, or absent.
    #[serde(alias = "not_in", rename = "notIn", skip_serializing_if = "Option::is_none")]
    pub none_of: Option<Vec<String>>,
    /// It stands in the list document of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_list: Option<String>,
    /// It does not stand in the list document of this name, or is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_in_list: Option<String>,
    /// It matches this pattern somewhere; anchor with `^` and `$`. Linear time, no look-around.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// It is there, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// It falls into this share of all values, always the same ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<f64>,
    /// ASCII case does not matter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
}

/// The other spellings are in the schema, too.
fn with_aliases(schema: &mut schemars::Schema) {
    let properties = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut);
    let Some(properties) = properties else { return };
    for (alias, name) in [("not_equal", "notEqual"), ("not_in", "notIn")] {
        let own = properties.get(name).cloned();
        properties.extend(own.map(|own| (alias.to_owned(), own)));
    }
}

impl TestProperties {
    /// Returns the operators that are given.
    fn operators(&self) -> Vec<&'static str> {
        [
            ("equal", self.equal.is_some()),
            ("notEqual", self.not_equal.is_some()),
            ("prefix", self.prefix.is_some()),
            ("suffix", self.suffix.is_some()),
            ("contains", self.contains.is_some()),
            ("in", self.one_of.is_some()),
            ("notIn", self.none_of.is_some()),
            ("inList", self.in_list.is_some()),
            ("notInList", self.not_in_list.is_some()),
            ("regex", self.regex.is_some()),
            ("exists", self.exists.is_some()),
            ("percentage", self.percentage.is_some()),
        ]
        .into_iter()
        .filter_map(|(word, given)| given.then_some(word))
        .collect()
    }

    /// Returns the one operator that is given, noting it if there is none or more than one.
    pub(super) fn only_operator(&self, at: &KeyPath, faults: &mut Faults) -> Option<&'static str> {
        match self.operators().as_slice() {
            [one] => Some(one),
            [] => {
                let help = "write for example `equal: x` or `in: [x, y]`".to_owned();
                faults.error_with_help(at, "an operator is missing", Some(help));
                None
            }
            [_, second, ..] => {
                faults.error(&at.key(*second), "only one operator can be given; join by `all`");
                None
            }
        }
    }

    /// Returns what is given for an operator that asks for membership, and which side is meant.
    pub(super) fn members(
        &self,
        at: &KeyPath,
        faults: &mut Faults,
    ) -> Option<(&'static str, Vec<String>, bool)> {
        let word = self.only_operator(at, faults)?;
        let (entries, inside) = match word {
            "equal" => (self.equal.iter().cloned().collect(), true),
            "notEqual" => (self.not_equal.iter().cloned().collect(), false),
            "in" => (self.one_of.clone().unwrap_or_default(), true),
            "notIn" => (self.none_of.clone().unwrap_or_default(), false),
            "inList" => (Vec::new(), true),
            "notInList" => (Vec::new(), false),
            _ => {
                let message = format!("`{word}` does not apply here");
                let help = "use equal, in, inList or their negations".to_owned();
                faults.error_with_help(&at.key(word), message, Some(help));
                return None;
            }
        };
        Some((word, entries, inside))
    }

    pub(super) fn list_name(&self) -> Option<String> {
        self.in_list.clone().or_else(|| self.not_in_list.clone())
    }

    /// Turns the operator into a test of a text.
    pub(super) fn compile(
        &self,
        salt: &str,
        lists: &Lists,
        at: &KeyPath,
        faults: &mut Faults,
    ) -> Option<Test> {
        let word = self.only_operator(at, faults)?;
        let at = at.key(word);
        let text = |text: &Option<String>| -> Box<[u8]> {
            let text = text.clone().unwrap_or_default();
            self.folded(text).into_bytes().into()
        };
        let operator = match word {
            "equal" => Operator::Equal(text(&self.equal)),
            "notEqual" => Operator::NotEqual(text(&self.not_equal)),
            "prefix" => Operator::Prefix(text(&self.prefix)),
            "suffix" => Operator::Suffix(text(&self.suffix)),
            "contains" => Operator::Contains(text(&self.contains)),
            "in" => Operator::In(self.names(self.one_of.as_ref())),
            "notIn" => Operator::NotIn(self.names(self.none_of.as_ref())),
            "inList" => Operator::In(self.listed(lists, &at, faults)?),
            "notInList" => Operator::NotIn(self.listed(lists, &at, faults)?),
            "exists" => Operator::Exists(self.exists.unwrap_or(true)),
            "percentage" => {
                Operator::Percentage(share(self.percentage.unwrap_or(-1.0), salt, &at, faults)?)
            }
            _ => Operator::Regex(self.pattern(&at, faults)?),
        };
        Some(Test::new(operator, self.ignore_case))
    }

    fn folded(&self, text: String) -> String {
        if self.ignore_case { text.to_ascii_lowercase() } else { text }
    }

    fn names(&self, names: Option<&Vec<String>>) -> Arc<crate::NameSet> {
        Arc::new(names.into_iter().flatten().map(|name| self.folded(name.clone())).collect())
    }

    fn listed(
        &self,
        lists: &Lists,
        at: &KeyPath,
        faults: &mut Faults,
    ) -> Option<Arc<crate::NameSet>> {
        let name = self.list_name()?;
        let list = lists.find(&name, at, faults)?;
        let names: crate::NameSet = if self.ignore_case {
            list.entries().map(|(_, entry)| entry.to_ascii_lowercase()).collect()
        } else {
            list.names()
        };
        Some(Arc::new(names.of_list(&name)))
    }

    fn pattern(&self, at: &KeyPath, faults: &mut Faults) -> Option<regex::bytes::Regex> {
        let pattern = self.regex.as_deref().unwrap_or_default();
        let compiled = RegexBuilder::new(pattern)
            .case_insensitive(self.ignore_case)
            .size_limit(REGEX_LIMIT)
            .dfa_size_limit(REGEX_LIMIT)
            .build();
        let one_line = |error: regex::Error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern becomes too large".to_owned(),
            error => error.to_string().lines().last().unwrap_or("no pattern").trim().to_owned(),
        };
        faults.check(at, compiled.map_err(one_line))
    }
}

impl Lists {
    /// Returns a list, noting it if there is none of that name.
    pub(super) fn find<'a>(
        &'a self,
        name: &str,
        at: &KeyPath,
        faults: &mut Faults,
    ) -> Option<&'a List> {
        let list = self.0.get(name);
        if list.is_none() {
            let meant = did_you_mean(name, self.0.keys().map(String::as_str));
            let help = meant
                .map_or("name it under `lists` of the static configuration".to_owned(), |it| {
                    format!("did you mean `{it}`?")
                });
            faults.error_with_help(at, format!("there is no list `{name}`"), Some(help));
        }
        list
    }
}
