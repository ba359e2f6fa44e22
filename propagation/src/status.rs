use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

use crate::Lane;

/// Which versions of a service a request may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GrayStatus {
    /// Any version: gray release is off.
    #[default]
    All,
    /// The version of the base environment only.
    Prod,
    /// The version of this gray lane only.
    Gray(Lane),
}

impl GrayStatus {
    /// Returns the word that stands for this status in the `gray` header: `ALL`, `PROD`, `GRAY` for
    /// the lane named `gray`, and any other lane's own name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => "ALL",
            Self::Prod => "PROD",
            Self::Gray(lane) if *lane == Lane::GRAY => "GRAY",
            Self::Gray(lane) => lane.as_str(),
        }
    }

    /// Returns the lane, if this status is one of a gray lane.
    pub const fn lane(&self) -> Option<&Lane> {
        match self {
            Self::Gray(lane) => Some(lane),
            Self::All | Self::Prod => None,
        }
    }

    /// Returns [`as_str`](Self::as_str) as a header value, without allocating for the usual words.
    pub fn to_header_value(&self) -> HeaderValue {
        match self {
            Self::All => HeaderValue::from_static("ALL"),
            Self::Prod => HeaderValue::from_static("PROD"),
            Self::Gray(lane) if *lane == Lane::GRAY => HeaderValue::from_static("GRAY"),
            Self::Gray(lane) => HeaderValue::from_str(lane.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("PROD")),
        }
    }
}

impl fmt::Display for GrayStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for GrayStatus {
    type Err = UnknownStatus;

    /// Reads a wire word, exactly as Java services of the Spring Cloud design compare it: `Gray`
    /// and `prod` are malformed, not another spelling.
    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        match word {
            "ALL" => Ok(Self::All),
            "PROD" => Ok(Self::Prod),
            "GRAY" => Ok(Self::Gray(Lane::GRAY)),
            "gray" => Err(UnknownStatus),
            _ => word.parse().map(Self::Gray).map_err(|_| UnknownStatus),
        }
    }
}

/// A word that is no [`GrayStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ALL, PROD, GRAY or the name of a lane")]
pub struct UnknownStatus;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<GrayStatus>) {
        assert_eq!(word.parse().ok(), expected, "{word:?}");
    }

    #[test]
    fn reads_the_words_of_the_wire() {
        check("ALL", Some(GrayStatus::All));
        check("PROD", Some(GrayStatus::Prod));
        check("GRAY", Some(GrayStatus::Gray(Lane::GRAY)));
        check("blue", "blue".parse().ok().map(GrayStatus::Gray));
        for malformed in ["", "gray", "Gray", "prod", "Base", "gray-996\u{7f}", "a b"] {
            check(malformed, None);
        }
    }

    #[test]
    fn survives_a_hop() {
        for word in ["ALL", "PROD", "GRAY", "blue"] {
            let status: GrayStatus = word.parse().unwrap();
            assert_eq!(status.to_header_value(), word);
        }
    }
}
