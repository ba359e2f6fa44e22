use std::process::ExitCode;

use gray_gateway::{App, Loaded, Settings};
use tracing::{info, warn};

use super::{ConfigArgs, WRONG, runtime, told_to_stop};

/// Runs the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Settings::load(&self.config.config, &self.config.overrides());
        let (settings, odd) = match loaded.and_then(Loaded::right) {
            Ok(right) => right,
            Err(problems) => {
                anyhow::bail!("the configuration is wrong\n{problems}");
            }
        };
        for problem in odd.0 {
            warn!("{problem}");
        }
        allow_files();
        runtime()?.block_on(serve(settings))
    }
}

/// Has the system allow as many open files as it would if it were asked: each connection is one, and the usual limit
/// is far below what `limits.connections` promises.
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        warn!(%error, ?current, "the limit of open files stays as it is");
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
