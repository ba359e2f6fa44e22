use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3;

use crate::problem::{self, Problem, Problems};
use crate::yaml::{self, Kind, Node, Origin, Syntax};
use crate::{Fault, Faults, KeyPath, Override};

/// The texts that together make one configuration, by the name they are known under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents(pub BTreeMap<String, Arc<str>>);

impl Documents {
    /// One document.
    pub fn one(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self(BTreeMap::from([(name.into(), text.into())]))
    }

    /// Returns them in the order in which an operator named them, and others behind, by their names.
    pub fn in_order<'a>(&'a self, order: &[String]) -> Vec<(&'a str, &'a Arc<str>)> {
        let mut all: Vec<_> = self.0.iter().map(|(name, text)| (name.as_str(), text)).collect();
        all.sort_by_key(|(name, _)| order.iter().position(|it| it == name).unwrap_or(order.len()));
        all
    }

    /// A short word that is the same for the same documents, on every replica.
    pub fn digest(&self) -> String {
        let mut hash = Xxh3::new();
        for (name, text) in &self.0 {
            for part in [name.as_bytes(), text.as_bytes()] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        format!("{:016x}", hash.digest())
    }
}

/// A YAML document that remembers where each value stands.
#[derive(Clone, Debug)]
pub struct Document {
    name: String,
    text: Arc<str>,
    tree: Node,
    /// What was odd about the text itself.
    noted: Faults,
    /// What makes it one that is refused, whatever is read of it: keys that stand there twice, and variables
    /// that are not set. The rest is read all the same, so that everything is told at once.
    refused: Vec<Problem>,
}

impl Document {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// What is wrong with the syntax, and where; also an empty text, which is more likely a file
    /// that is just being written than an order to forget everything.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        if text.trim().is_empty() {
            return Err(Problem::whole(name, "the document is empty").into());
        }
        let text: Arc<str> = text.into();
        let mut twice = Vec::new();
        let tree =
            yaml::parse_noting(&text, &mut twice).map_err(|error| syntax(name, &text, error))?;
        let refused = twice.into_iter().map(|error| syntax(name, &text, error)).collect();
        Ok(Self { name: name.to_owned(), text, tree, noted: Faults::default(), refused })
    }

    /// Parses a text in which the blank after a colon or dash may be missing, each with a warning.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_repaired(name: &str, text: &str) -> Result<Self, Problems> {
        let (repaired, lines) = yaml::repair(text);
        let mut document = Self::parse(name, &repaired)?;
        for line in lines {
            let message = format!("line {line}: a blank was missing after the colon or dash");
            document.noted.warning(&KeyPath::ROOT, message);
        }
        Ok(document)
    }

    /// Notes a warning about the whole document, which stands before what its readers note.
    pub fn warn(&mut self, message: &str) {
        self.noted.warning(&KeyPath::ROOT, message);
    }

    /// Tells whether [`parse_repaired`](Self::parse_repaired) may read a text otherwise than
    /// [`parse`](Self::parse) does.
    pub fn needs_repair(text: &str) -> bool {
        yaml::needs_repair(text)
    }

    /// Takes keys with dots apart, as Spring does, where `wanted` holds for the whole key.
    ///
    /// # Errors
    ///
    /// A key that is then there twice.
    pub fn nest(mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Self, Problems> {
        yaml::nest(&mut self.tree, wanted)
            .map_err(|error| Problems::from(syntax(&self.name, &self.text, error)))?;
        self.tree.number(&mut 0);
        Ok(self)
    }

    /// Replaces `${NAME:default}` in every value by what `lookup` knows. A document with a name that has
    /// neither a value nor a default is refused by whoever reads it.
    #[must_use]
    pub fn interpolate(mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut errors = Vec::new();
        yaml::interpolate(&mut self.tree, lookup, &mut errors);
        let problem = |error| syntax(&self.name, &self.text, error);
        self.refused.extend(errors.into_iter().map(problem));
        self
    }

    /// Puts the values of flags and environment variables over those of the text, in order.
    ///
    /// # Errors
    ///
    /// A value that is no YAML.
    pub fn override_with(mut self, overrides: &[Override]) -> Result<Self, Problems> {
        for one in overrides {
            one.apply(&mut self.tree).map_err(|message| Problem::whole(&*one.origin, message))?;
        }
        self.tree.number(&mut 0);
        Ok(self)
    }

    /// Returns the name the document is known under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the value at a path into a type, noting all errors. What is returned lacks the parts
    /// that are wrong; whether there were any is said by [`Faults::has_errors`].
    ///
    /// A path that does not exist is read as an empty mapping.
    pub fn read<T>(&self, at: &KeyPath, faults: &mut Faults) -> Option<T>
    where
        T: for<'de> Deserialize<'de>,
    {
        if !self.refused.is_empty() {
            faults.refuse();
        }
        let origin = Origin::Text { line: 1, column: 1 };
        let nothing = Node { id: 0, origin, kind: Kind::Mapping(Vec::new()) };
        yaml::read(self.tree.find(at).unwrap_or(&nothing), at, faults)
    }

    /// Tells whether something stands at a path.
    pub fn contains(&self, path: &KeyPath) -> bool {
        self.tree.find(path).is_some()
    }

    /// Returns the keys of the mapping at a path.
    pub fn keys<'a>(&'a self, path: &KeyPath) -> impl Iterator<Item = &'a str> + use<'a> {
        let entries = match self.tree.find(path).map(|node| &node.kind) {
            Some(Kind::Mapping(entries)) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|entry| &*entry.key)
    }

    /// Returns the scalar at a path, as it was written.
    pub fn scalar(&self, path: &KeyPath) -> Option<&str> {
        match &self.tree.find(path)?.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Returns the faults as problems, with what was odd about the text itself before them.
    pub fn problems(&self, faults: &Faults) -> Problems {
        let noted = self.noted.iter().map(|fault| self.problem(fault));
        let mut problems: Vec<Problem> = noted.chain(self.refused.iter().cloned()).collect();
        problems.extend(self.found(faults).0);
        problems.sort_by_key(|problem| problem.line);
        Problems(problems)
    }

    /// Returns the faults alone as problems, where what was odd about the text has been told.
    pub fn found(&self, faults: &Faults) -> Problems {
        let mut problems: Vec<Problem> = faults.iter().map(|fault| self.problem(fault)).collect();
        if faults.more() > 0 {
            let message = format!("{} more problems are not shown", faults.more());
            problems.push(Problem::whole(self.name.as_str(), message));
        }
        Problems(problems)
    }

    fn problem(&self, fault: &Fault) -> Problem {
        let whole = fault.path == KeyPath::ROOT;
        let place = (!whole).then(|| self.tree.locate(&fault.path));
        Problem {
            severity: problem::word(fault.severity),
            key: fault.path.to_string(),
            help: fault.help.clone(),
            ..located(&self.name, &self.text, place, fault.message.clone())
        }
    }
}

fn syntax(name: &str, text: &str, error: Syntax) -> Problem {
    located(name, text, Some(&error.origin), error.message)
}

fn located(name: &str, text: &str, origin: Option<&Origin>, message: String) -> Problem {
    match origin {
        None => Problem::whole(name, message),
        Some(Origin::Override(source)) => Problem::whole(&**source, message),
        Some(Origin::Text { line, column }) => Problem {
            line: Some(*line),
            column: Some(*column),
            snippet: text.lines().nth(line.saturating_sub(1)).map(excerpt),
            ..Problem::whole(name, message)
        },
    }
}

/// A line as it is shown: control characters out, and not longer than a screen is wide.
fn excerpt(line: &str) -> String {
    line.chars()
        .take(160)
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place_of_a_fault() {
        let document = Document::parse("rules.yaml", "a: 1\nb:\n  c: x\n").unwrap();
        let mut faults = Faults::default();
        faults.error(&KeyPath::ROOT.dotted("b.c"), "no number");
        let text = document.problems(&faults).to_string();
        assert_eq!(text, "error: rules.yaml:3:3: b.c: no number\n  |\n3 |   c: x\n  |   ^");
    }

    #[test]
    fn warns_of_every_repaired_line() {
        let document = Document::parse_repaired("common.yaml", "load:true\nx:\n  y:1\n").unwrap();
        assert_eq!(document.scalar(&KeyPath::ROOT.key("load")), Some("true"));
        assert_eq!(document.problems(&Faults::default()).0.len(), 2);
    }

    /// One variable that was not set, or a key that stood there twice, once hid all that was wrong otherwise.
    #[test]
    fn what_is_set_aside_hides_nothing_else() {
        #[derive(Debug, serde::Deserialize)]
        struct Ports {
            ports: Vec<u16>,
            name: String,
        }
        let text = "ports: [1, '${UNSET}', x, 4]\nports: 1\nname: ${UNSET}\n";
        let document = Document::parse("a", text).unwrap().interpolate(&|_| None);
        let mut faults = Faults::default();
        let read: Option<Ports> = document.read(&KeyPath::ROOT, &mut faults);
        assert!(faults.has_errors());
        let lines: Vec<_> = document.problems(&faults).0.iter().map(|it| it.line).collect();
        assert_eq!(lines, [Some(1), Some(1), Some(2), Some(3)], "{}", document.problems(&faults));
        // It has no name.
        assert!(read.is_none_or(|it| it.ports.is_empty() && it.name.is_empty()));
    }

    #[test]
    fn an_empty_text_is_an_error() {
        assert!(Document::parse("a", " \n").is_err());
    }

    #[test]
    fn the_digest_tells_documents_apart() {
        let one = Documents::one("a", "bc");
        assert_eq!(one.digest(), one.digest());
        assert_ne!(one.digest(), Documents::one("ab", "c").digest());
    }
}
