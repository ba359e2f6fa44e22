use std::process::ExitCode;

use gray_gateway::{App, GatewayProperties, Settings};
use tracing::info;

use super::{ConfigArgs, WRONG, runtime, told_to_stop};

/// Runs the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = GatewayProperties::load(&self.config.config, &self.config.overrides());
        let settings =
            loaded.and_then(|(properties, document)| Settings::new(properties, &document));
        let settings = match settings {
            Ok(settings) => settings,
            Err(problems) => {
                anyhow::bail!("the configuration is wrong\n{problems}");
            }
        };
        runtime()?.block_on(serve(settings))
    }
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    let running = App::new(settings).start().await?;
    let why = told_to_stop().await?;
    info!(why, "stopping");
    let drained = running.stop().await;
    info!(drained, "stopped");
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::from(WRONG - 1) })
}
