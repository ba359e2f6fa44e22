use gray_config::{Document, KeyPath, Problem, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flat;

/// The largest rule document; lists in documents of their own may be larger.
const MAX_DOCUMENT: usize = 4 << 20;

/// In which format rule documents are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// Whatever the documents look like.
    #[default]
    Auto,
    /// Graylane's own format.
    Native,
    /// The Spring Cloud design's documents.
    Spring,
}

impl Format {
    /// Parses a document, and tells whether it is one of the Spring Cloud design's, whose keys have
    /// this prefix.
    ///
    /// # Errors
    ///
    /// Where it is too large, or no YAML.
    pub fn parse(self, name: &str, text: &str, prefix: &str) -> Result<(Document, bool), Problems> {
        if text.len() > MAX_DOCUMENT {
            let message = format!(
                "the document has {} bytes, more than the {MAX_DOCUMENT} that are allowed; move \
                 long lists into documents of their own",
                text.len()
            );
            return Err(Problem::whole(name, message).into());
        }
        match self {
            Self::Native => Ok((Document::parse(name, text)?, false)),
            Self::Spring => Ok((parse_spring(name, text, prefix)?, true)),
            Self::Auto => parse_any(name, text, prefix),
        }
    }
}

fn parse_any(name: &str, text: &str, prefix: &str) -> Result<(Document, bool), Problems> {
    let as_written = match Document::parse(name, text) {
        Ok(document)
            if !is_spring(&document, prefix) && document.keys(&KeyPath::ROOT).next().is_some() =>
        {
            return Ok((document, false));
        }
        Ok(_) => None,
        Err(problems) if !Document::needs_repair(text) => return Err(problems),
        Err(problems) => Some(problems),
    };
    match parse_spring(name, text, prefix) {
        Ok(document) => {
            let spring = is_spring(&document, prefix);
            Ok((document, spring))
        }
        // The text as it was written says better what is wrong than the repaired one.
        Err(repaired) => Err(as_written.unwrap_or(repaired)),
    }
}

/// Parses a document as the Spring Cloud design has it: repaired, indented, and with dots in keys.
fn parse_spring(name: &str, text: &str, prefix: &str) -> Result<Document, Problems> {
    let top = top_of(prefix);
    let below = format!("{top}.");
    let ours = |key: &str| key == top || key.starts_with(&below) || key.contains(".ribbon");
    let Some(indented) = flat::indent(text, prefix) else {
        return Document::parse_repaired(name, text)?.nest(&ours);
    };
    let mut document = Document::parse_repaired(name, &indented)?.nest(&ours)?;
    document.warn(
        "all lines begin at one column; they are read as the keys of the Spring Cloud design stand there: indent them",
    );
    Ok(document)
}

fn is_spring(document: &Document, prefix: &str) -> bool {
    let top = top_of(prefix);
    let mut keys = document.keys(&KeyPath::ROOT);
    keys.any(|key| key == top || key.starts_with(&format!("{top}.")) || key == "spring")
}

fn top_of(prefix: &str) -> &str {
    prefix.split('.').next().unwrap_or_default()
}
