use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use gray_gateway::check::check;
use gray_gateway::explain::Asked;

use super::{ConfigArgs, runtime, say};

/// Says how a request is decided, and why: from files, or by a running gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The method.
    method: String,
    /// The path, or a whole URL.
    url: String,
    /// A header, such as `gray: gray-996`; may be given more than once.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// A cookie, such as `uid=7`; may be given more than once.
    #[arg(long = "cookie")]
    cookies: Vec<String>,
    /// The address that the request comes from: the client's, or a proxy's.
    #[arg(long, default_value = "127.0.0.1")]
    ip: IpAddr,
    /// The admin address of a running gateway to ask instead of the files.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let asked = self.asked()?;
        let text = match &self.admin {
            Some(admin) => runtime()?.block_on(self.ask(admin, &asked))?,
            None => self.read_files(&asked)?,
        };
        say(text.trim_end())
    }

    /// Asks a running gateway.
    async fn ask(&self, admin: &str, asked: &Asked) -> anyhow::Result<String> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{admin}/api/v1/explain");
        let accept = if self.json { "application/json" } else { "text/plain" };
        let request = client.post(&url).header("accept", accept);
        let request = request.header("content-type", "application/json");
        let answer = request.body(serde_json::to_vec(asked)?).send().await;
        let answer = answer.with_context(|| format!("asking {url}"))?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{url} answers {status}: {text}");
        }
        if !self.json {
            return Ok(text);
        }
        let value: serde_json::Value = serde_json::from_str(&text).context("no JSON came back")?;
        Ok(serde_json::to_string_pretty(&value)?)
    }

    fn asked(&self) -> anyhow::Result<Asked> {
        let mut headers = Vec::new();
        for line in &self.headers {
            let (name, value) = line.split_once(':').context("write a header as `name: value`")?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if !self.cookies.is_empty() {
            headers.push(("cookie".to_owned(), self.cookies.join("; ")));
        }
        Ok(Asked { method: self.method.clone(), url: self.url.clone(), headers, ip: self.ip })
    }

    /// Reads the files and whatever they name.
    fn read_files(&self, asked: &Asked) -> anyhow::Result<String> {
        let checked = runtime()?.block_on(check(&self.config.config, &self.config.overrides()));
        if checked.problems.has_errors() {
            bail!("the configuration is wrong\n{}", checked.problems);
        }
        let settings = checked.settings.context("there is no configuration")?;
        let revision = checked.revision.unwrap_or_else(gray_gateway::Revision::off);
        let answer = settings.explainer(&revision, &checked.directory).explain(asked)?;
        if self.json {
            // By way of a value, as what a gateway answers: keys in one order.
            return Ok(serde_json::to_string_pretty(&serde_json::to_value(&answer)?)?);
        }
        Ok(answer.to_string())
    }
}
