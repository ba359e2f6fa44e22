//! A gateway that is measured: graylane, or a peer of it.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::process;

/// How long a gateway may take to start; under valgrind that is long.
const START: Duration = Duration::from_mins(1);

/// The networks whose clients are gray: 1,001, of which one has 127.0.0.9.
const NETWORKS: &str = include_str!("../gray.cidr");

/// The cores of gateways, and of all others.
pub(crate) const CORES: [&str; 2] = ["0", "1"];

/// Which gateway, and where it is: `graylane=target/release/graylane`, or a peer's folder with `start`.
/// Several builds of graylane are told apart by what follows: `graylane-before=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: String,
    path: PathBuf,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("it is not of the form name=path")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

impl Kind {
    /// The header that it says the lane in, with the words for production and gray.
    pub(crate) fn lane_header(&self) -> &'static str {
        if self.is_ours() { "gray" } else { "x-lane" }
    }

    fn is_ours(&self) -> bool {
        self.name.starts_with("graylane")
    }
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    child: Child,
    home: TempDir,
}

impl Gateway {
    /// Starts it at a port, in front of servers from another port on; `wrap` is a program to run it
    /// in, with its arguments.
    pub(crate) fn start(
        kind: &Kind,
        port: u16,
        upstream: u16,
        wrap: &[String],
    ) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let networks = home.path().join("gray.cidr");
        std::fs::write(&networks, NETWORKS)?;
        let mut command = Command::new("taskset");
        command.args(["-c", CORES[0]]);
        if kind.is_ours() {
            let config = configure(home.path(), port, upstream)?;
            let path = kind.path.canonicalize().with_context(|| kind.path.display().to_string())?;
            command.args(wrap).arg(path).args(["--log", "warn", "run", "-c"]).arg(config);
            // Names in the configuration are relative to where it runs.
            command.current_dir(home.path());
        } else {
            command.arg(kind.path.join("start")).arg(home.path());
            command.args([port, upstream].map(|port| port.to_string())).arg(&networks);
            command.env("WRAP", wrap.join(" "));
        }
        let log = std::fs::File::create(home.path().join("log"))?;
        let child = command.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn();
        let child = child.with_context(|| format!("{command:?} cannot be run"))?;
        let mut gateway = Self { kind: kind.clone(), port, child, home };
        gateway.await_start()?;
        Ok(gateway)
    }

    fn await_start(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                let log = std::fs::read_to_string(self.home.path().join("log"))?;
                bail!("{} has not started ({ended:?}): {log}", self.kind.name);
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Returns it and what it has started.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        process::tree(self.child.id())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        for process in self.processes()? {
            let _ = Command::new("kill").arg(process.to_string()).stderr(Stdio::null()).status();
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for process in self.processes().unwrap_or_default() {
            // It may have ended.
            let _ = Command::new("kill")
                .args(["-9", &process.to_string()])
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.child.wait();
    }
}

/// Writes graylane's configuration: what is not said is as it is by default.
fn configure(home: &Path, port: u16, upstream: u16) -> anyhow::Result<PathBuf> {
    let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = home.join(name);
        std::fs::File::create(&path)?.write_all(text.as_bytes())?;
        Ok(path)
    };
    write("gray-networks.txt", NETWORKS)?;
    write("rules.yaml", include_str!("../graylane/rules.yaml"))?;
    let instance = |number: u16, version: &str| {
        let port = upstream + number;
        format!("{{address: \"127.0.0.1:{port}\", metadata: {{version: {version}}}}}")
    };
    let instances = [(0, "V1"), (1, "V1"), (2, "V2"), (3, "V2")];
    let instances = instances.map(|(number, version)| instance(number, version)).join(", ");
    write("registry.yaml", &format!("services: {{app: [{instances}]}}\n"))?;
    let text = include_str!("../graylane/graylane.yaml");
    let text = text.replace("8080", &port.to_string()).replace("9900", &(port + 100).to_string());
    write("graylane.yaml", &text)
}
