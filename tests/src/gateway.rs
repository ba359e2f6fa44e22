use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::process::{Process, binary, eventually};

/// How long a gateway may take to serve.
const START: Duration = Duration::from_secs(15);

/// A gateway process of the test's own.
#[derive(Debug)]
pub struct Gateway {
    /// Where it serves.
    pub addr: SocketAddr,
    /// Where its admin page is.
    pub admin: SocketAddr,
    /// The process.
    pub process: Process,
    /// Its folder, with its configuration as `graylane.yaml`.
    pub folder: TempDir,
}

impl Gateway {
    /// Starts `graylane run` with this configuration; listener and admin page get free ports where
    /// it does not speak of them.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn start(config: &str) -> anyhow::Result<Self> {
        Self::start_in(tempfile::tempdir()?, config)
    }

    /// The same in a folder that may hold further files; `{dir}` in the configuration is its path.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn start_in(folder: TempDir, config: &str) -> anyhow::Result<Self> {
        let file = folder.path().join("graylane.yaml");
        let path = folder.path().display().to_string();
        let own = config.contains("listeners:");
        let listener = if own { "" } else { "listeners: [{address: '127.0.0.1:0'}]\n" };
        let own = config.contains("admin:");
        let admin = if own { "" } else { "admin: {address: '127.0.0.1:0'}\n" };
        std::fs::write(&file, format!("{listener}{admin}{}", config.replace("{dir}", &path)))?;
        let mut process = run(&file, &folder.path().join("log"))?;
        let (addr, admin) = process.until(START, addresses)?;
        Ok(Self { addr, admin, process, folder })
    }

    /// Kills the process and starts it again on its folder; its ports change.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        self.process =
            run(&self.folder.path().join("graylane.yaml"), &self.folder.path().join("log"))?;
        (self.addr, self.admin) = self.process.until(START, addresses)?;
        Ok(())
    }

    /// Returns a URL of the gateway.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Asks the admin page.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub async fn ask(&self, path: &str) -> anyhow::Result<String> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.get(format!("http://{}{path}", self.admin)).send().await?.text().await?)
    }

    /// Waits until the gateway says that it is ready.
    ///
    /// # Errors
    ///
    /// Its reasons, where it is not.
    pub async fn ready(&self) -> anyhow::Result<()> {
        eventually(START, async || {
            let text = self.ask("/readyz").await?;
            if text.contains("\"ready\":true") { Ok(()) } else { bail!("{text}") }
        })
        .await
    }

    /// Reads the value of a metric, by its name with labels; 0 where it is absent.
    ///
    /// # Errors
    ///
    /// Where the page does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.ask("/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(Ok(0.0), |value| value.parse().context("no number"))
    }

    /// Returns how often the gateway has connected to Nacos.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub async fn connections_to_nacos(&self) -> anyhow::Result<u64> {
        let text = self.ask("/metrics").await?;
        let lines =
            text.lines().filter(|it| it.starts_with("graylane_nacos_connections_made_total"));
        let value =
            |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
        Ok(lines.filter_map(value).sum())
    }
}

fn run(config: &Path, log: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("graylane")?);
    command.args(["--log-json", "--log", "info,graylane=debug", "run", "-c"]).arg(config);
    Process::start(&mut command, log)
}

/// Reads the addresses from the log of a gateway that serves.
fn addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("\"serving\""))?;
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = value.get("fields")?;
    let field = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
    let plain = |text: String| text.trim_matches(['[', ']']).to_owned();
    let addr = plain(field("addrs")?).split(", ").next()?.parse().ok()?;
    let admin = field("admin")?;
    let admin = admin.trim_start_matches("Some(").trim_end_matches(')').parse().ok()?;
    Some((addr, admin))
}
