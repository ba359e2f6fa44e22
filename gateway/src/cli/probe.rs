use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use gray_gateway::probe::Probed;
use gray_propagation::{GrayStatus, Hop, Lane, PATH_HEADER, SignedTag, TAG_HEADER, TagKey};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;

use super::{runtime, say};

/// Sends requests in a lane, and shows where they went: every service on the way reports itself.
///
/// Exits with 0 if none left its lane, as far as is reported, 1 otherwise. The gateway and the services must know the key
/// (`signedTags`, `GRAYLANE_TAG_KEYS`).
#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// Where requests are sent.
    url: String,
    /// The lane: `gray`, `prod`, or another lane's name.
    #[arg(long, default_value = "gray")]
    lane: String,
    /// How many requests are sent.
    #[arg(short = 'n', long, default_value = "100")]
    requests: std::num::NonZeroUsize,
    /// How many of them at a time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// The key that the requests are signed with, as `id:secret`; of several the first.
    #[arg(long, env = "GRAYLANE_TAG_KEYS", hide_env_values = true)]
    key: String,
    /// A header, such as `x-user-no: 7`; may be given more than once.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The services that each request has to come by, such as `spring-cloud-a,spring-cloud-c`: one that
    /// is called without any header says nothing, and is missed only where it is expected.
    #[arg(long, value_delimiter = ',')]
    through: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let probed = runtime()?.block_on(self.send())?;
        let text =
            if self.json { serde_json::to_string_pretty(&probed)? } else { probed.to_string() };
        say(text.trim_end())?;
        Ok(if probed.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn send(&self) -> anyhow::Result<Probed> {
        let mut headers = self.headers()?;
        headers.insert(TAG_HEADER, self.tag()?);
        let redirect = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect)
            .timeout(Duration::from_secs(30))
            .build()?;
        let (lane, sent) = (self.status()?.to_string(), self.requests.get());
        let expected = self.through.clone();
        let mut probed = Probed { lane, sent, expected, ..Probed::default() };
        let mut under_way = JoinSet::new();
        let mut left = sent;
        loop {
            while left > 0 && under_way.len() < self.concurrency.max(1) {
                left -= 1;
                let request = client.get(&self.url).headers(headers.clone());
                under_way.spawn(async move { one(request).await });
            }
            let Some(answer) = under_way.join_next().await else { return Ok(probed) };
            match answer? {
                Ok((status, report)) => {
                    if status.is_success() {
                        probed.answered += 1;
                    } else {
                        *probed.failures.entry(status.to_string()).or_default() += 1;
                    }
                    probed.add(report);
                }
                Err(error) => *probed.failures.entry(format!("{error:#}")).or_default() += 1,
            }
        }
    }

    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let (name, value) = line.split_once(':').context("write a header as `name: value`")?;
            let name: HeaderName = name.trim().parse()?;
            headers.append(name, HeaderValue::from_str(value.trim())?);
        }
        Ok(headers)
    }

    fn status(&self) -> anyhow::Result<GrayStatus> {
        Ok(match self.lane.to_ascii_lowercase().as_str() {
            "gray" => GrayStatus::Gray(Lane::GRAY),
            "prod" | "base" => GrayStatus::Prod,
            "all" => GrayStatus::All,
            _ => GrayStatus::Gray(self.lane.parse().context("--lane")?),
        })
    }

    fn tag(&self) -> anyhow::Result<HeaderValue> {
        const VALID: Duration = Duration::from_mins(5);
        let status = self.status()?;
        let tag = SignedTag { status, expires: SystemTime::now() + VALID, probe: true };
        let key = TagKey::parse(self.key.split(',').next().unwrap_or_default()).context("--key")?;
        key.sign(&tag).context("the tag cannot be written as a header")
    }
}

/// Sends one request; returns the status and the report that it was answered with.
async fn one(request: reqwest::RequestBuilder) -> anyhow::Result<(StatusCode, Option<Hop>)> {
    let answer = request.send().await?;
    let report = answer.headers().get(PATH_HEADER).and_then(Hop::from_header);
    let status = answer.status();
    // The way is complete only when the answer is.
    answer.bytes().await?;
    Ok((status, report))
}
