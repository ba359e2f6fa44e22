//! Where requests of a lane went, as every service on their way reports it.

use std::collections::BTreeMap;
use std::fmt;

use gray_propagation::Hop;
use serde::Serialize;

/// The ways of many requests, laid over each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    /// The lane that they were sent in, as a word of the wire.
    pub lane: String,
    /// Requests that were sent.
    pub sent: usize,
    /// Requests that were answered with success.
    pub answered: usize,
    /// What the others ended with, and how many did.
    pub failures: BTreeMap<String, usize>,
    /// Answers without a report: the key is not known there, or nothing on the way reports.
    pub unreported: usize,
    /// Calls that are missing in reports, since these became too long.
    pub missing: usize,
    /// The services that each request was to come by.
    #[serde(skip)]
    pub expected: Vec<String>,
    /// Those of them that some requests did not come by, as far as is reported, and how many.
    pub absent: BTreeMap<String, usize>,
    /// The services at the beginning of the way.
    pub tree: Vec<Branch>,
}

/// A service on the way of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Branch {
    /// What it reported; without calls.
    #[serde(flatten)]
    pub hop: Seen,
    /// How often.
    pub count: usize,
    /// What it called.
    pub calls: Vec<Self>,
}

/// What is known about one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a finding of its own")]
pub struct Seen {
    /// The service.
    pub service: String,
    /// The version that served.
    pub version: Option<String>,
    /// The lane that was asked for; `None` where no tag came.
    pub asked: Option<String>,
    /// What the caller fell back to.
    pub fallback: Option<String>,
    /// Whether another lane was asked for than the request's.
    pub changed: bool,
    /// Whether an instance of another lane served, and no fallback explains it.
    pub escaped: bool,
    /// The service that lost the tag.
    pub lost_by: Option<String>,
    /// Whether the service itself reported nothing.
    pub silent: bool,
    /// Whether no instance of it answered.
    pub failed: bool,
}

impl Probed {
    /// Adds what one request was answered with.
    pub fn add(&mut self, report: Option<Hop>) {
        match report {
            Some(hop) => {
                for service in self.expected.iter().filter(|service| !passes(&hop, service)) {
                    *self.absent.entry(service.clone()).or_default() += 1;
                }
                self.missing = self.missing.saturating_add(missing(&hop));
                lay_over(&mut self.tree, hop, &self.lane);
            }
            None => self.unreported += 1,
        }
    }

    /// Tells whether no request left its lane, as far as is known.
    pub fn is_clean(&self) -> bool {
        fn clean(branch: &Branch) -> bool {
            let Seen { changed, escaped, lost_by, failed, .. } = &branch.hop;
            !changed && !escaped && !failed && lost_by.is_none() && branch.calls.iter().all(clean)
        }
        let complete = self.unreported == 0 && self.missing == 0 && self.absent.is_empty();
        self.failures.is_empty() && complete && self.tree.iter().all(clean)
    }
}

/// Tells whether a request came by a service, as far as is reported.
fn passes(hop: &Hop, service: &str) -> bool {
    hop.service == service || hop.calls.iter().any(|call| passes(call, service))
}

/// Counts the calls that a report leaves out.
fn missing(hop: &Hop) -> usize {
    hop.calls.iter().map(missing).fold(hop.more, usize::saturating_add)
}

/// Takes what must not reach a terminal out of a text that came over the network.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

fn lay_over(branches: &mut Vec<Branch>, hop: Hop, lane: &str) {
    let Hop { service, version, asked, fallback, escaped, lost_by, silent, failed, calls, .. } =
        hop;
    let changed = asked.as_deref().is_some_and(|asked| asked != lane);
    let seen =
        Seen { service, version, asked, fallback, changed, escaped, lost_by, silent, failed };
    let known = branches.iter().position(|branch| branch.hop == seen);
    let position = known.unwrap_or_else(|| {
        branches.push(Branch { hop: seen, count: 0, calls: Vec::new() });
        branches.len() - 1
    });
    if let Some(branch) = branches.get_mut(position) {
        branch.count += 1;
        for call in calls {
            lay_over(&mut branch.calls, call, lane);
        }
    }
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests, {} answered", self.sent, self.answered)?;
        for (failure, count) in &self.failures {
            writeln!(f, "  {count} failed: {failure}")?;
        }
        if self.unreported > 0 {
            writeln!(
                f,
                "  {} without a report: is the key known to the gateway (signedTags)?",
                self.unreported
            )?;
        }
        if self.missing > 0 {
            writeln!(f, "  {} calls are missing: the reports became too long", self.missing)?;
        }
        for (service, count) in &self.absent {
            writeln!(
                f,
                "  {count} did not come by {service}, or came without any header of ours: whoever \
                 calls it has lost the lane (see lane_untagged on its own page)"
            )?;
        }
        let other = self
            .tree
            .iter()
            .filter_map(|root| root.hop.asked.as_ref().filter(|_| root.hop.changed));
        for asked in other.collect::<std::collections::BTreeSet<_>>() {
            writeln!(
                f,
                "  the gateway decided {}, not {}: it knows no such lane, or gray release is off",
                plain(asked),
                self.lane
            )?;
        }
        writeln!(f)?;
        for branch in &self.tree {
            branch.write(f, 0)?;
        }
        Ok(())
    }
}

impl Branch {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let Seen { service, version, asked, fallback, changed, escaped, lost_by, silent, failed } =
            &self.hop;
        let name = format!("{:indent$}{}", "", plain(service), indent = depth * 2);
        let version = plain(version.as_deref().unwrap_or("-"));
        let asked = plain(asked.as_deref().unwrap_or("no tag"));
        write!(f, "{name:32} {version:8} {asked:8} {:6}", self.count)?;
        if let Some(fallback) = fallback {
            write!(f, "  fallback: {}", plain(fallback))?;
        }
        if *escaped {
            write!(f, "  ESCAPED: another lane's instance served")?;
        }
        if *failed {
            write!(f, "  FAILED: no instance answered")?;
        }
        if *changed {
            write!(f, "  CHANGED: another lane was asked for")?;
        }
        if let Some(by) = lost_by.as_ref().filter(|_| *changed) {
            write!(f, ", by {}", plain(by))?;
        } else if let Some(by) = lost_by {
            write!(f, "  LOST: {} passed it on without the tag", plain(by))?;
        }
        if *silent {
            write!(f, "  silent: no report of its own")?;
        }
        writeln!(f)?;
        self.calls.iter().try_for_each(|call| call.write(f, depth + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(service: &str, version: &str, calls: Vec<Hop>) -> Hop {
        Hop {
            service: service.to_owned(),
            version: Some(version.to_owned()),
            asked: Some("GRAY".to_owned()),
            calls,
            ..Hop::default()
        }
    }

    #[test]
    fn equal_ways_are_counted_and_others_stand_beside() {
        let mut probed = Probed { lane: "GRAY".to_owned(), ..Probed::default() };
        for _ in 0..3 {
            probed.add(Some(hop("a", "V2", vec![hop("b", "V2", Vec::new())])));
        }
        assert!(probed.is_clean());
        let lost = Hop { asked: None, lost_by: Some("b".into()), ..hop("c", "V1", Vec::new()) };
        probed.add(Some(hop("a", "V2", vec![hop("b", "V2", vec![lost])])));
        assert!(!probed.is_clean());
        let text = probed.to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["a", "V2", "GRAY", "4"]);
        assert_eq!(lines[1], ["b", "V2", "GRAY", "4"]);
        assert_eq!(lines[2][..5], ["c", "V1", "no", "tag", "1"]);
        assert!(text.contains("LOST: b passed it on"), "{text}");
    }

    /// A service between may copy every header and write a lane of its own; a gateway may know no such lane.
    #[test]
    fn a_lane_that_was_replaced_is_not_clean() {
        let mut probed = Probed { lane: "GRAY".to_owned(), ..Probed::default() };
        let by = Some("b".to_owned());
        let replaced =
            Hop { asked: Some("PROD".into()), lost_by: by, ..hop("c", "V1", Vec::new()) };
        let silent = Hop { silent: true, ..hop("b", "V2", vec![replaced]) };
        probed.add(Some(hop("a", "V2", vec![silent])));
        assert!(!probed.is_clean());
        let text = probed.to_string();
        assert!(text.contains("CHANGED: another lane was asked for, by b"), "{text}");
        let mut probed = Probed { lane: "gary".to_owned(), ..Probed::default() };
        probed.add(Some(Hop { asked: Some("PROD".into()), ..hop("a", "V1", Vec::new()) }));
        assert!(!probed.is_clean());
        assert!(probed.to_string().contains("the gateway decided PROD, not gary"), "{probed}");
    }

    #[test]
    fn a_report_that_is_cut_is_not_clean_and_no_text_reaches_the_terminal_as_it_is() {
        let mut probed = Probed::default();
        let cut = Hop { more: 3, ..hop("b\u{1b}[2J", "V2", Vec::new()) };
        probed.add(Some(hop("a", "V2", vec![cut])));
        assert!(!probed.is_clean());
        let text = probed.to_string();
        assert!(text.contains("3 calls are missing") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn an_answer_without_a_report_is_not_clean() {
        let mut probed = Probed::default();
        probed.add(None);
        assert!(!probed.is_clean());
    }
}
