//! What a caller says about one hop, so that the service called can tell a fallback from an escape.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header in which a caller says who it is, whom it calls, and what it fell back to.
pub const HOP_HEADER: HeaderName = HeaderName::from_static("x-graylane-hop");

/// The longest name of a service that is believed; it comes over the network, and is kept.
const MAX_NAME: usize = 128;

/// What a caller says about one hop: `from=order-app; to=user-app; lane=GRAY; fallback=base`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HopTag {
    /// The service that calls.
    pub from: String,
    /// The service that it means to call.
    pub to: String,
    /// What it fell back to, since the lane has no instance there.
    pub fallback: Option<String>,
    /// The lane that it calls in, as a word of the wire: a service that comes after one which wrote another
    /// `gray` header can tell.
    pub lane: Option<String>,
}

impl HopTag {
    /// Writes it as a header value; `None` if a name cannot stand in one.
    pub fn to_header(&self) -> Option<HeaderValue> {
        let mut text = format!("from={}; to={}", self.from, self.to);
        if let Some(lane) = &self.lane {
            text.push_str("; lane=");
            text.push_str(lane);
        }
        if let Some(fallback) = &self.fallback {
            text.push_str("; fallback=");
            text.push_str(fallback);
        }
        HeaderValue::try_from(text).ok()
    }

    /// Writes it onto a request, over what was there.
    pub fn inject(&self, headers: &mut HeaderMap) {
        match self.to_header() {
            Some(value) => headers.insert(HOP_HEADER, value),
            None => headers.remove(HOP_HEADER),
        };
    }

    /// Reads it from a request; `None` where the caller said nothing.
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        let text = text_of(headers)?;
        let mut tag = Self::default();
        for part in text.split(';') {
            let part = part.trim().split_once('=').filter(|(_, value)| value.len() <= MAX_NAME);
            match part {
                Some(("from", value)) => value.clone_into(&mut tag.from),
                Some(("to", value)) => value.clone_into(&mut tag.to),
                Some(("fallback", value)) => tag.fallback = Some(value.to_owned()),
                Some(("lane", value)) => tag.lane = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(tag)
    }

    /// Reads the lane alone that the caller called in.
    pub fn lane_of(headers: &HeaderMap) -> Option<&str> {
        let parts = text_of(headers)?.split(';').map(str::trim);
        parts.filter_map(|part| part.strip_prefix("lane=")).next_back()
    }
}

/// Names may be of any script.
fn text_of(headers: &HeaderMap) -> Option<&str> {
    std::str::from_utf8(headers.get(HOP_HEADER)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_hop() {
        for fallback in [None, Some("base".to_owned())] {
            let lane = fallback.is_some().then(|| "GRAY".to_owned());
            // Names that are not of ASCII were once read as none, and each fallback as an escape.
            let tag = HopTag { from: "订单".into(), to: "b".into(), fallback, lane };
            let mut headers = HeaderMap::new();
            tag.inject(&mut headers);
            assert_eq!(HopTag::lane_of(&headers), tag.lane.as_deref());
            assert_eq!(HopTag::extract(&headers), Some(tag));
        }
        assert_eq!(HopTag::extract(&HeaderMap::new()), None);
        let mut headers = HeaderMap::new();
        HopTag { from: "x".repeat(1_000), to: "b".into(), ..HopTag::default() }
            .inject(&mut headers);
        assert_eq!(HopTag::extract(&headers).unwrap().from, "");
    }
}
