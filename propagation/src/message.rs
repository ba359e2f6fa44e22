//! How a context crosses a message broker: as two properties of the message.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use http::HeaderValue;

use crate::{Context, GrayStatus, TRACEPARENT, traceparent};

/// The properties, headers or attributes of a message.
pub trait MessageProperties {
    /// Returns a property.
    fn get(&self, name: &str) -> Option<&str>;

    /// Sets a property, over what was there.
    fn set(&mut self, name: &str, value: String);
}

impl MessageProperties for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        Self::get(self, name).map(String::as_str)
    }

    fn set(&mut self, name: &str, value: String) {
        self.insert(name.to_owned(), value);
    }
}

impl<S: BuildHasher> MessageProperties for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<&str> {
        Self::get(self, name).map(String::as_str)
    }

    fn set(&mut self, name: &str, value: String) {
        self.insert(name.to_owned(), value);
    }
}

/// The name of the property that carries the status; the same word as in the header.
///
/// ```
/// use std::collections::HashMap;
///
/// use gray_propagation::{Context, GrayStatus, Lane, MessageCarrier};
///
/// let (carrier, mut properties) = (MessageCarrier::default(), HashMap::new());
/// carrier.inject(&Context::of(GrayStatus::Gray(Lane::GRAY)), &mut properties);
/// assert_eq!(properties["gray"], "GRAY");
/// let context = carrier.extract(&properties);
/// assert_eq!(context.status, GrayStatus::Gray(Lane::GRAY));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageCarrier {
    name: String,
}

impl Default for MessageCarrier {
    fn default() -> Self {
        Self { name: "gray".to_owned() }
    }
}

impl MessageCarrier {
    /// Uses another name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the status and the trace onto a message, and nothing else: baggage may hold what
    /// must not be stored for days.
    pub fn inject(&self, context: &Context, message: &mut impl MessageProperties) {
        message.set(&self.name, context.status.to_string());
        let trace = context.traceparent.as_ref().and_then(|value| value.to_str().ok());
        if let Some(trace) = trace.filter(|_| message.get(TRACEPARENT.as_str()).is_none()) {
            message.set(TRACEPARENT.as_str(), trace.to_owned());
        }
    }

    /// Reads the context of a message; a message without a tag, or with a malformed one, is base's.
    pub fn extract(&self, message: &impl MessageProperties) -> Context {
        let status = message.get(&self.name).and_then(|word| word.parse().ok());
        let trace = message.get(TRACEPARENT.as_str());
        let trace = trace.filter(|trace| traceparent::is_valid(trace.as_bytes()));
        Context {
            traceparent: trace.and_then(|trace| HeaderValue::from_str(trace).ok()),
            ..Context::of(status.unwrap_or(GrayStatus::Prod))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lane;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_message_carries_the_tag_and_the_trace_and_nothing_else() {
        let context = Context {
            traceparent: Some(HeaderValue::from_static(TRACE)),
            baggage: Some(HeaderValue::from_static("user=7")),
            ..Context::of(GrayStatus::Gray(Lane::GRAY))
        };
        let mut message = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        let carrier = MessageCarrier::default();
        carrier.inject(&context, &mut message);
        assert_eq!(message.len(), 3);
        assert_eq!(message["gray"], "GRAY");
        let read = carrier.extract(&message);
        assert_eq!((read.status, read.traceparent), (context.status, context.traceparent));
    }

    #[test]
    fn what_has_no_tag_is_of_base() {
        for word in [None, Some(""), Some("Gray"), Some("a b")] {
            let tag = word.map(|word| ("gray".to_owned(), word.to_owned()));
            let message: HashMap<String, String> = tag.into_iter().collect();
            assert_eq!(MessageCarrier::default().extract(&message).status, GrayStatus::Prod);
        }
    }
}
