use std::collections::BTreeMap;
use std::sync::Arc;

use gray_config::{Document, Documents, Faults, KeyPath, Problem, Problems};
use gray_filters::{List, Lists, RuleSet, Senses};

use super::spring::Spring;
use super::{Revision, native};
use crate::properties::Format;

/// The largest rule document; lists in documents of their own may be larger.
const MAX_DOCUMENT: usize = 4 << 20;

/// How rule documents are to be read.
#[derive(Clone, Debug)]
pub struct RuleDocuments {
    /// How they are written.
    pub format: Format,
    /// The prefix of the Spring Cloud design's keys.
    pub prefix: String,
    /// Documents that are lists: the document's name, and the name that rules use.
    pub lists: BTreeMap<String, String>,
    /// What the gateway can find out about a request beyond its head.
    pub senses: Arc<Senses>,
}

/// Turns documents into a revision, with warnings, or says everything that is wrong with them.
///
/// # Errors
///
/// All errors of all documents, each with its line and key, and the warnings beside them.
pub fn parse_documents(
    documents: &Documents,
    how: &RuleDocuments,
) -> Result<(Revision, Problems), Problems> {
    let mut problems = Problems::default();
    let (lists, texts): (Vec<_>, Vec<_>) =
        documents.0.iter().partition(|(name, _)| how.lists.contains_key(*name));
    let lists = lists.into_iter().filter_map(|(name, text)| {
        Some((how.lists.get(name)?.clone(), List::new(Arc::clone(text))))
    });
    let lists = Lists(lists.collect());
    let parsed: Vec<(Document, bool)> = texts
        .into_iter()
        .filter_map(|(name, text)| match parse(name, text, how) {
            Ok(parsed) => Some(parsed),
            Err(more) => {
                problems.extend(more.0);
                None
            }
        })
        .collect();
    let (rules, lanes) = if parsed.iter().any(|(_, spring)| !spring) {
        read_native(&parsed, &lists, &mut problems)
    } else {
        read_spring(&parsed, how, &mut problems)
    };
    if problems.has_errors() {
        return Err(problems);
    }
    let rules = match rules {
        Some(rules) => RuleSet::new(rules, Arc::clone(&how.senses)),
        None => RuleSet::off(),
    };
    Ok((Revision::new(documents.digest(), rules, lanes), problems))
}

/// Parses a document, and tells whether it is one of the Spring Cloud design's.
fn parse(name: &str, text: &str, how: &RuleDocuments) -> Result<(Document, bool), Problems> {
    if text.len() > MAX_DOCUMENT {
        let message = format!(
            "the document has {} bytes, more than the {MAX_DOCUMENT} that are allowed; move long \
             lists into documents of their own",
            text.len()
        );
        return Err(Problem::whole(name, message).into());
    }
    let spring = |document: &Document| {
        let top = how.prefix.split('.').next().unwrap_or_default();
        let mut keys = document.keys(&KeyPath::ROOT);
        keys.any(|key| key == top || key.starts_with(&format!("{top}.")) || key == "spring")
    };
    match how.format {
        Format::Native => Ok((Document::parse(name, text)?, false)),
        Format::Spring => Ok((Document::parse_repaired(name, text)?, true)),
        Format::Auto => {
            if let Ok(document) = Document::parse(name, text)
                && !spring(&document)
                && document.keys(&KeyPath::ROOT).next().is_some()
            {
                return Ok((document, false));
            }
            match Document::parse_repaired(name, text) {
                Ok(document) => {
                    let spring = spring(&document);
                    Ok((document, spring))
                }
                // The text as it was written says better what is wrong than the repaired one.
                Err(repaired) => Err(Document::parse(name, text).err().unwrap_or(repaired)),
            }
        }
    }
}

type Read = (Option<Vec<gray_filters::Rule>>, gray_lb::LaneTable);

fn read_native(parsed: &[(Document, bool)], lists: &Lists, problems: &mut Problems) -> Read {
    let mut all = parsed.iter().map(|(document, _)| document);
    let Some(document) = all.next() else { return Read::default() };
    for other in all {
        let message = format!("rules are one document, and {} is one already", document.name());
        problems.extend([Problem::whole(other.name(), message)]);
    }
    let mut faults = Faults::default();
    let read = native::read(document, lists, &mut faults);
    problems.extend(document.problems(&faults).0);
    read
}

fn read_spring(parsed: &[(Document, bool)], how: &RuleDocuments, problems: &mut Problems) -> Read {
    let mut spring = Spring::default();
    for (document, _) in parsed {
        let mut faults = Faults::default();
        spring.take(document, &how.prefix, &mut faults);
        problems.extend(document.problems(&faults).0);
    }
    spring.finish()
}
