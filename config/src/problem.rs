use std::fmt::{self, Display};

use serde::Serialize;

use crate::Severity;

/// A fault of a document, with where it is and the line it is in, as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The file, data id or variable.
    pub document: String,
    /// The line, counted from 1, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, counted from 1, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The key, such as `rules[2].when`; empty for the document as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
}

impl Problem {
    /// A problem with a document as a whole.
    pub fn whole(document: impl Into<String>, message: impl Display) -> Self {
        Self {
            severity: word(Severity::Error),
            document: document.into(),
            line: None,
            column: None,
            key: String::new(),
            message: message.to_string(),
            help: None,
            snippet: None,
        }
    }

    /// What is odd about a document as a whole.
    pub fn odd(document: impl Into<String>, message: impl Display) -> Self {
        Self { severity: word(Severity::Warning), ..Self::whole(document, message) }
    }

    /// Tells whether it is an error, and not only a warning.
    pub fn is_error(&self) -> bool {
        self.severity == word(Severity::Error)
    }
}

pub(crate) const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.document)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(line), Some(column), Some(snippet)) = (self.line, self.column, &self.snippet) {
            let gutter = line.to_string();
            let pad = " ".repeat(gutter.len());
            let indent: String = snippet
                .chars()
                .take(column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n{pad} |\n{gutter} | {snippet}\n{pad} | {indent}^")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  = help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with some documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Tells whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(Problem::is_error)
    }

    /// Tells whether there is nothing wrong at all.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the problems of another document.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Problem>) {
        self.0.extend(more);
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
