use std::process::ExitCode;

use gray_gateway::{GatewayProperties, NativeProperties};
use schemars::schema_for;

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
        let schema = match self.document {
            Document::Config => schema_for!(GatewayProperties),
            Document::Rules => schema_for!(NativeProperties),
        };
        say(&serde_json::to_string_pretty(&schema)?)
    }
}
