//! The way that one request took, as the services on it report it.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// The header of an answer in which a service reports itself and everything it called.
pub const PATH_HEADER: HeaderName = HeaderName::from_static("x-graylane-path");

/// The longest report that is written; what does not fit is left out and counted.
const MAX_PATH: usize = 4096;

/// One service on the way of a request, and what it called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Hop {
    /// The service's name.
    #[serde(rename = "s")]
    pub service: String,
    /// The version that served.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The lane that was asked for, as a word of the wire; absent where no tag came.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// What the caller fell back to, since the lane had no instance here.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Whether an instance of another lane served, and no fallback explains it.
    #[serde(rename = "e", default, skip_serializing_if = "is_false")]
    pub escaped: bool,
    /// The service that lost the tag on the way here.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub lost_by: Option<String>,
    /// Whether the service itself reported nothing, so that only its caller speaks of it.
    #[serde(rename = "b", default, skip_serializing_if = "is_false")]
    pub silent: bool,
    /// Whether no instance of it answered, so that only its caller speaks of it.
    #[serde(rename = "n", default, skip_serializing_if = "is_false")]
    pub failed: bool,
    /// What it called, in the order in which the answers came.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Self>,
    /// How many further calls are left out, since the report became too long.
    #[serde(rename = "m", default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(it: &bool) -> bool {
    !*it
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(it: &usize) -> bool {
    *it == 0
}

impl Hop {
    /// Returns what the caller knows of a call, completed by what the service itself reported.
    ///
    /// A service that reports nothing is silent. Where another service's report comes back, the one
    /// that was called passed headers on without reporting itself: it stands between.
    #[must_use]
    pub fn answered_by(self, reported: Option<Self>) -> Self {
        match reported {
            None => Self { silent: true, ..self },
            Some(hop) if hop.service == self.service => {
                Self { fallback: self.fallback.or(hop.fallback.clone()), ..hop }
            }
            Some(hop) => Self { silent: true, calls: vec![hop], ..self },
        }
    }

    /// Writes the report as a header value, leaving out the last and deepest calls where it becomes
    /// too long.
    pub fn to_header(mut self) -> Option<HeaderValue> {
        while self.weight() > MAX_PATH && !self.calls.is_empty() {
            self.leave_one_out();
        }
        loop {
            let text = escape(&serde_json::to_string(&self).ok()?);
            if text.len() <= MAX_PATH || self.calls.is_empty() {
                return HeaderValue::try_from(text).ok().filter(|it| it.len() <= 2 * MAX_PATH);
            }
            self.leave_one_out();
        }
    }

    /// Estimates the length of the report without writing it.
    fn weight(&self) -> usize {
        const FRAME: usize = 24;
        let texts = [&self.version, &self.asked, &self.fallback, &self.lost_by];
        let texts = texts.into_iter().flatten().map(|text| text.len() + FRAME / 4).sum::<usize>();
        let calls = self.calls.iter().map(Self::weight).sum::<usize>();
        FRAME + self.service.len() + texts + calls
    }

    /// Leaves out the last call of the last call, and so on.
    fn leave_one_out(&mut self) {
        if let Some(last) = self.calls.last_mut().filter(|last| !last.calls.is_empty()) {
            return last.leave_one_out();
        }
        let more = self.calls.pop().map_or(0, |left_out| left_out.more.saturating_add(1));
        self.more = self.more.saturating_add(more);
    }

    /// Reads a report; `None` if it is none, or too long to be one.
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        // serde_json itself refuses what is nested too deeply.
        (value.len() <= 2 * MAX_PATH)
            .then(|| serde_json::from_slice(value.as_bytes()).ok())
            .flatten()
    }
}

/// Escapes what may not stand in a header, as JSON does.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut units = [0; 2];
    for char in text.chars() {
        if matches!(char, ' '..='~') {
            escaped.push(char);
        } else {
            for unit in char.encode_utf16(&mut units) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// A report that is being collected for whoever asked for it by a signed tag.
#[derive(Clone, Debug)]
pub struct Probe {
    tag: HeaderValue,
    calls: Arc<Mutex<Vec<Hop>>>,
}

impl Probe {
    /// Begins a report; `tag` is what the next hops are asked by.
    pub fn new(tag: HeaderValue) -> Self {
        Self { tag, calls: Arc::default() }
    }

    /// Returns what the next hop is asked by.
    pub const fn tag(&self) -> &HeaderValue {
        &self.tag
    }

    /// Adds a call; what would not fit into a report anyway is only counted, with the last that does.
    pub fn add(&self, hop: Hop) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let full = calls.iter().map(Hop::weight).sum::<usize>() > MAX_PATH;
        match calls.last_mut().filter(|_| full) {
            Some(last) => last.more = last.more.saturating_add(1),
            None => calls.push(hop),
        }
    }

    /// Takes the calls that were added so far.
    pub fn take(&self) -> Vec<Hop> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_header() {
        let child =
            Hop { service: "用户".to_owned(), lost_by: Some("b".into()), ..Hop::default() };
        let hop = Hop {
            service: "order-app".to_owned(),
            asked: Some("GRAY".into()),
            calls: vec![child],
            ..Hop::default()
        };
        let value = hop.clone().to_header().unwrap();
        assert!(value.to_str().is_ok());
        assert_eq!(Hop::from_header(&value), Some(hop));
    }

    #[test]
    fn a_long_report_says_how_much_is_missing() {
        let child = Hop { service: "x".repeat(100), ..Hop::default() };
        let hop = Hop { service: "a".into(), calls: vec![child; 100], ..Hop::default() };
        let value = hop.to_header().unwrap();
        assert!(value.len() <= MAX_PATH);
        let hop = Hop::from_header(&value).unwrap();
        assert_eq!(hop.calls.len() + hop.more, 100);
    }

    #[test]
    fn the_deepest_calls_are_left_out_first() {
        let leaf = Hop { service: "x".repeat(100), ..Hop::default() };
        let b = Hop { service: "b".into(), calls: vec![leaf; 100], ..Hop::default() };
        let cut = Hop::from_header(&b.to_header().unwrap()).unwrap();
        // The next service wraps it, and has to cut a little more.
        let a = Hop { service: "a".into(), calls: vec![cut], ..Hop::default() };
        let hop = Hop::from_header(&a.to_header().unwrap()).unwrap();
        let b = &hop.calls[0];
        assert_eq!((hop.more, b.calls.len() + b.more), (0, 100));
        assert!(b.calls.len() > 20);
        let most = Hop { more: usize::MAX, ..hop };
        let all = Hop { calls: vec![most; 5], ..Hop::default() };
        assert!(all.to_header().is_some());
    }

    #[test]
    fn what_is_no_report_is_none() {
        for text in ["", "x", "[]", "{\"s\":7}"] {
            assert_eq!(Hop::from_header(&HeaderValue::from_static(text)), None, "{text}");
        }
        let deep = format!("{{\"s\":\"\",\"c\":[{}", "{\"s\":\"\",\"c\":[".repeat(500));
        assert_eq!(Hop::from_header(&HeaderValue::try_from(deep).unwrap()), None);
    }
}
