use std::time::Duration;

use anyhow::ensure;
use gray_starter::Starter;

/// Does a service's work of its own accord, now and then, outside of any request: what it calls is
/// called in this copy's own lane.
pub async fn job<W>(every: Duration, work: impl Fn() -> W)
where
    W: Future<Output = anyhow::Result<String>>,
{
    loop {
        tokio::time::sleep(every).await;
        match work().await {
            Ok(text) => tracing::info!("job: {text}"),
            Err(error) => tracing::warn!("job: {error:#}"),
        }
    }
}

/// Calls a service by its name, and returns what it answers.
///
/// # Errors
///
/// Where it does not answer well.
pub async fn ask(starter: Starter, url: String) -> anyhow::Result<String> {
    let answer = starter.client().get(&url).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{url} answers {status}: {text}");
    Ok(text.trim_end().to_owned())
}
