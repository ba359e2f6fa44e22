use std::process::ExitCode;

use gray_gateway::{GatewayProperties, NativeProperties};
use schemars::schema_for;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::say;

/// Prints the JSON schema of a document, for editors.
#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Which document.
    #[arg(value_enum, default_value = "config")]
    document: Document,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Document {
    /// The static configuration.
    Config,
    /// The rules in Graylane's own format.
    Rules,
}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut schema = match self.document {
            Document::Config => schema_for!(GatewayProperties),
            Document::Rules => schema_for!(NativeProperties),
        };
        RecursiveTransform(admit_bare_scalars).transform(&mut schema);
        say(&serde_json::to_string_pretty(&schema)?)
    }
}

/// A text may be written without quotes, whatever it looks like: `version: 1.10`.
fn admit_bare_scalars(schema: &mut schemars::Schema) {
    let Some(kind) = schema.get_mut("type") else { return };
    let mut kinds = match kind.take() {
        Value::Array(kinds) => kinds,
        one => vec![one],
    };
    if kinds.iter().any(|kind| kind == "string") && schema.get("enum").is_none() {
        for bare in ["number", "boolean"] {
            if !kinds.iter().any(|kind| kind == bare) {
                kinds.push(bare.into());
            }
        }
    }
    let kinds = if kinds.len() == 1 { kinds.remove(0) } else { Value::Array(kinds) };
    schema.insert("type".to_owned(), kinds);
}
