use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::ports::free_port;
use crate::process::{Process, eventually};

/// How long a server may take to start beside other tests.
const START: Duration = Duration::from_secs(90);

/// Which server speaks Nacos's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// rnacos, the Rust server.
    Rnacos,
    /// The Java server.
    Java,
}

impl Kind {
    const fn folder(self) -> &'static str {
        match self {
            Self::Rnacos => "rnacos",
            Self::Java => "nacos",
        }
    }
}

/// A real server of the test's own.
#[derive(Debug)]
pub struct Nacos {
    kind: Kind,
    port: u16,
    home: TempDir,
    auth: bool,
    process: Option<Process>,
    client: reqwest::Client,
}

impl Nacos {
    /// Starts a server, and waits until it takes configurations.
    ///
    /// # Errors
    ///
    /// Where it is not installed, or does not come up.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::start_with(kind, false).await
    }

    /// Starts a server that asks for logins, good for six seconds; its user is `nacos` with this password.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with_login(password: &str) -> anyhow::Result<Self> {
        let server = Self::start_with(Kind::Java, true).await?;
        let url = server.url("v3/auth/user/admin");
        let form = [("password", password)];
        let answer = server.client.post(url).body(encode(&form)).header(FORM.0, FORM.1);
        answer.send().await?.error_for_status()?;
        Ok(server)
    }

    async fn start_with(kind: Kind, auth: bool) -> anyhow::Result<Self> {
        let distances: &[i32] = match kind {
            Kind::Rnacos => &[1000, 2000],
            Kind::Java => &[-1000, 1000, 1001],
        };
        let mut server = Self {
            kind,
            port: free_port(distances),
            home: tempfile::tempdir()?,
            auth,
            process: None,
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()?,
        };
        server.run().await?;
        Ok(server)
    }

    /// Starts the server again on its data and port, after it was killed.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let start = installed(self.kind.folder())?.join("start");
        let home = self.home.path().join("home");
        let log = self.home.path().join("log");
        let mut command = Command::new(start);
        command.arg(home).arg(self.port.to_string());
        if self.auth {
            // Logins expire soon, so that tests see them renewed.
            let expiry = "-Dnacos.core.auth.plugin.nacos.token.expire.seconds=6";
            command.env("NACOS_AUTH", "true").env("JAVA_TOOL_OPTIONS", expiry);
        }
        let mut process = Process::start(&mut command, &log)?;
        if self.kind == Kind::Java {
            process.until(START, |printed| printed.contains("nacos-main: up").then_some(()))?;
        }
        self.process = Some(process);
        if self.auth {
            return Ok(());
        }
        // A server that answers may still be without its store: a canary says when it has it.
        eventually(START, async || {
            self.publish("graylane-canary", "alive").await?;
            match self.read("graylane-canary").await?.as_deref() {
                Some("alive") => Ok(()),
                other => bail!("the canary reads {other:?}"),
            }
        })
        .await
    }

    /// Returns `host:port` of the HTTP side.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the server at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Makes the server fall silent, or go on: nothing is refused, nothing is answered, as when the
    /// network drops every packet.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn silence(&self, silent: bool) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("the server does not run")?;
        process.signal(if silent { "-STOP" } else { "-CONT" })
    }

    /// Writes a document in the group `DEFAULT_GROUP` of the namespace `public`.
    ///
    /// # Errors
    ///
    /// Where the server refuses.
    pub async fn publish(&self, data_id: &str, content: &str) -> anyhow::Result<()> {
        self.publish_in("", "DEFAULT_GROUP", data_id, content).await
    }

    /// Writes a document in a group of a namespace; an empty name is `public`'s.
    ///
    /// # Errors
    ///
    /// Where the server refuses.
    pub async fn publish_in(
        &self,
        namespace: &str,
        group: &str,
        data_id: &str,
        content: &str,
    ) -> anyhow::Result<()> {
        let mut form = vec![("dataId", data_id), ("group", group), ("content", content)];
        if !namespace.is_empty() {
            form.push(("tenant", namespace));
        }
        let request = self.client.post(self.url("v1/cs/configs")).body(encode(&form));
        let answer = request.header(FORM.0, FORM.1).send().await?.error_for_status()?;
        match answer.text().await?.as_str() {
            "true" => Ok(()),
            other => bail!("not published: {other}"),
        }
    }

    /// Reads a document back; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Where the server does not answer.
    pub async fn read(&self, data_id: &str) -> anyhow::Result<Option<String>> {
        let url = format!("{}?dataId={data_id}&group=DEFAULT_GROUP", self.url("v1/cs/configs"));
        let answer = self.client.get(url).send().await?;
        if answer.status() == http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.text().await?))
    }

    /// Lists the instances of a service, as the server's JSON.
    ///
    /// # Errors
    ///
    /// Where the server does not answer.
    pub async fn instances(&self, service: &str) -> anyhow::Result<String> {
        let url = format!("{}?serviceName={service}", self.url("v1/ns/instance/list"));
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }

    /// Lists the instances of a service in a group of a namespace.
    ///
    /// # Errors
    ///
    /// As [`instances`](Self::instances).
    pub async fn instances_in(
        &self,
        (namespace, group): (&str, &str),
        service: &str,
    ) -> anyhow::Result<String> {
        let query = format!("serviceName={service}&groupName={group}&namespaceId={namespace}");
        let url = format!("{}?{query}", self.url("v1/ns/instance/list"));
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }

    /// Removes a document.
    ///
    /// # Errors
    ///
    /// Where the server refuses.
    pub async fn remove(&self, data_id: &str) -> anyhow::Result<()> {
        let url = format!("{}?dataId={data_id}&group=DEFAULT_GROUP", self.url("v1/cs/configs"));
        self.client.delete(url).send().await?.error_for_status()?;
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/nacos/{path}", self.port)
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn encode(fields: &[(&str, &str)]) -> String {
    let plain = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let encode = |text: &str| text.bytes().map(plain).collect::<String>();
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns the folder of an installed server, the newest if there is more than one.
pub(crate) fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let cache = std::env::var_os("GRAYLANE_CACHE")
        .map_or_else(|| home.join(".cache/graylane"), PathBuf::from);
    let entries = std::fs::read_dir(&cache).into_iter().flatten().filter_map(Result::ok);
    let stamp = |path: &Path| std::fs::metadata(path.join("installed")).ok()?.modified().ok();
    let of_name = |path: &PathBuf| {
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned());
        file.is_some_and(|file| file.rsplit_once('-').is_some_and(|(stem, _)| stem == name))
    };
    let paths = entries.map(|entry| entry.path()).filter(of_name);
    let newest = paths.filter_map(|path| Some((stamp(&path)?, path))).max();
    let (_, path) = newest.with_context(|| {
        format!("{name} is not installed in {}; run `cargo xtask servers`", cache.display())
    })?;
    Ok(path)
}
