use std::process::ExitCode;

use gray_gateway::check::check;

use super::{ConfigArgs, WRONG, runtime, say};

/// Checks a configuration and the rules it names, without running it.
///
/// Exits with 0 if all is well, 1 if there are warnings, 2 if there are errors.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// How problems are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let overrides = self.config.overrides();
        let checked = runtime()?.block_on(check(&self.config.config, &overrides));
        let problems = checked.problems;
        match self.format {
            Format::Json => say(&serde_json::to_string_pretty(&problems)?)?,
            Format::Text if problems.is_empty() => say("all is well")?,
            Format::Text => say(&problems.to_string())?,
        };
        Ok(match (problems.has_errors(), problems.is_empty()) {
            (true, _) => ExitCode::from(WRONG),
            (false, false) => ExitCode::from(1),
            (false, true) => ExitCode::SUCCESS,
        })
    }
}
