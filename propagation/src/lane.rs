use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name a lane may have, in bytes.
const MAX_LEN: usize = 31;

/// The name of one gray environment.
///
/// It is kept inline, so that passing it on neither allocates nor counts references. A name
/// consists of ASCII letters, digits, `-`, `_` and `.`, starts with a letter or digit, and is none
/// of `ALL`, `PROD`, `GRAY` and `BASE` in any case, except `gray` itself as it stands here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lane {
    /// Always valid UTF-8 up to `len`, zero from there on.
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl Lane {
    /// The lane named `gray`: the one that `GRAY` stands for.
    pub const GRAY: Self = Self::from_ascii(b"gray");

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    const fn from_ascii(name: &[u8]) -> Self {
        let mut bytes = [0; MAX_LEN];
        let (head, _) = bytes.split_at_mut(name.len());
        head.copy_from_slice(name);
        #[allow(clippy::cast_possible_truncation, reason = "callers bound the length by MAX_LEN")]
        Self { bytes, len: name.len() as u8 }
    }
}

impl FromStr for Lane {
    type Err = InvalidLane;

    fn from_str(name: &str) -> Result<Self, InvalidLane> {
        if name == "gray" {
            return Ok(Self::GRAY);
        }
        if ["ALL", "PROD", "GRAY", "BASE"].iter().any(|word| word.eq_ignore_ascii_case(name)) {
            return Err(InvalidLane::Reserved(name.to_owned()));
        }
        if name.len() > MAX_LEN {
            return Err(InvalidLane::TooLong(name.len()));
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first || !name.bytes().all(letter) {
            return Err(InvalidLane::Character(name.to_owned()));
        }
        Ok(Self::from_ascii(name.as_bytes()))
    }
}

impl TryFrom<String> for Lane {
    type Error = InvalidLane;

    fn try_from(name: String) -> Result<Self, InvalidLane> {
        name.parse()
    }
}

impl From<Lane> for String {
    fn from(lane: Lane) -> Self {
        lane.to_string()
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({})", self.as_str())
    }
}

/// Why a text is no name of a [`Lane`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLane {
    /// The word means something else on the wire.
    #[error("{0:?} is reserved, a lane needs another name")]
    Reserved(String),
    /// The name does not fit.
    #[error("a lane's name has at most {MAX_LEN} bytes, this one has {0}")]
    TooLong(usize),
    /// The name has a character that not every carrier can hold, or is empty.
    #[error("{0:?} is no lane name: letters, digits, '-', '_', '.', a letter or digit first")]
    Character(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(name: &str, valid: bool) {
        assert_eq!(name.parse::<Lane>().is_ok(), valid, "{name:?}");
    }

    #[test]
    fn accepts_names_that_every_carrier_can_hold() {
        for name in ["gray", "blue", "v2.1", "team_a-7", "7", &"x".repeat(31)] {
            check(name, true);
        }
        for name in ["", "-x", ".x", "a b", "a,b", "a=b", "灰", "a\n", &"x".repeat(32)] {
            check(name, false);
        }
    }

    #[test]
    fn reserves_the_words_of_the_wire_in_any_case() {
        for name in ["ALL", "all", "Prod", "GRAY", "Gray", "base", "BASE"] {
            check(name, false);
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_was_given(name in "[a-z0-9][a-zA-Z0-9._-]{0,30}") {
            if let Ok(lane) = name.parse::<Lane>() {
                prop_assert_eq!(lane.as_str(), name);
            }
        }
    }
}
