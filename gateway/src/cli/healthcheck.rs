use std::process::ExitCode;
use std::time::Duration;

use super::{runtime, say};

/// Asks a running gateway whether it is ready.
///
/// Exits with 0 if it is, and with 1 if it is not or does not answer.
#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    /// The admin address of the gateway.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9901")]
    admin: String,
}

impl Healthcheck {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let asked = runtime()?.block_on(async {
            let client =
                reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
            let answer = client.get(format!("http://{}/readyz", self.admin)).send().await?;
            let ready = answer.status().is_success();
            Ok::<_, reqwest::Error>((ready, answer.text().await?))
        });
        match asked {
            Ok((true, text)) => say(&text),
            Ok((false, text)) => say(&text).map(|_| ExitCode::from(1)),
            Err(error) => say(&format!("not ready: {error}")).map(|_| ExitCode::from(1)),
        }
    }
}
