//! What is wrong with a value, and where.

use std::fmt::Display;

use serde::de;

use crate::KeyPath;
use crate::suggest::did_you_mean;

/// The way from the root to a value, kept on the stack until an error needs it.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    Root(&'a KeyPath),
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl At<'_> {
    pub(super) fn to_path(self) -> KeyPath {
        match self {
            Self::Root(path) => path.clone(),
            Self::Key(parent, key) => parent.to_path().key(key),
            Self::Index(parent, index) => parent.to_path().index(index),
        }
    }
}

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) path: Option<KeyPath>,
    /// The node without which the rest can be read.
    pub(super) culprit: Option<u32>,
    pub(super) message: String,
    pub(super) help: Option<String>,
    pub(super) missing: bool,
}

impl Error {
    pub(super) const fn new(message: String) -> Self {
        Self { path: None, culprit: None, message, help: None, missing: false }
    }

    /// Says where it happened, unless a deeper reader already did.
    pub(super) fn at(mut self, at: At<'_>, culprit: u32) -> Self {
        if self.path.is_none() {
            self.path = Some(at.to_path());
            self.culprit = Some(culprit);
        }
        self
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut error = Self::new(format!("unknown key `{field}`"));
        error.help = choices(field, expected);
        error
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut error = Self::new(format!("unknown word `{variant}`"));
        error.help = choices(variant, expected);
        error
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: true, ..Self::new(format!("the key `{field}` is missing")) }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", describe(&found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

fn choices(word: &str, expected: &'static [&'static str]) -> Option<String> {
    if let Some(meant) = did_you_mean(word, expected.iter().copied()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    (!expected.is_empty()).then(|| format!("one of {}", expected.join(", ")))
}

fn describe(found: &de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Unit => "nothing".to_owned(),
        de::Unexpected::Map => "a mapping".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Str(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}
