use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::nacos::installed;
use crate::ports::free_port;
use crate::process::Process;

/// How long a server may take to start beside other tests.
const START: Duration = Duration::from_secs(90);

/// Which RocketMQ it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 4.9.
    Four,
    /// 5.
    Five,
}

/// A real name server and broker of the test's own, both of Apache's.
#[derive(Debug)]
pub struct RocketMq {
    release: Release,
    port: u16,
    home: TempDir,
    property_filter: bool,
    names: Process,
    broker: Option<Process>,
}

impl RocketMq {
    /// Starts both, and waits until the broker serves.
    ///
    /// # Errors
    ///
    /// Where they are not installed, or do not come up.
    pub fn start(release: Release) -> anyhow::Result<Self> {
        Self::start_with(release, true)
    }

    /// The same, with the broker's filter by properties on or off.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(release: Release, property_filter: bool) -> anyhow::Result<Self> {
        let port = free_port(&[998, 1000, 1001]);
        let home = tempfile::tempdir()?;
        let mut names = Self::process(release, &home, port, "namesrv", property_filter)?;
        names.until(START, |printed| printed.contains("boot success").then_some(()))?;
        let mut server = Self { release, port, home, property_filter, names, broker: None };
        server.run()?;
        Ok(server)
    }

    /// Starts the broker, on what it left behind.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let mut broker =
            Self::process(self.release, &self.home, self.port, "broker", self.property_filter)?;
        broker.until(START, |printed| printed.contains("boot success").then_some(()))?;
        self.broker = Some(broker);
        Ok(())
    }

    /// Kills the broker at once.
    pub fn kill(&mut self) {
        self.broker = None;
    }

    /// Has the broker say nothing, and go on later: connections to it stay, and new ones are made.
    ///
    /// # Errors
    ///
    /// Where it is not there.
    pub fn pause(&self, pause: bool) -> anyhow::Result<()> {
        let broker = self.broker.as_ref().context("no broker runs")?;
        broker.signal(if pause { "-STOP" } else { "-CONT" })
    }

    /// Has the name server say nothing, and go on later.
    ///
    /// # Errors
    ///
    /// Where it is not there.
    pub fn pause_names(&self, pause: bool) -> anyhow::Result<()> {
        self.names.signal(if pause { "-STOP" } else { "-CONT" })
    }

    /// Returns the file that the broker keeps the offsets of groups in.
    pub fn offsets(&self) -> std::path::PathBuf {
        self.home.path().join("store/config/consumerOffset.json")
    }

    /// Returns `host:port` of the name server.
    pub fn names(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn process(
        release: Release,
        home: &TempDir,
        port: u16,
        role: &str,
        property_filter: bool,
    ) -> anyhow::Result<Process> {
        let folder = installed("rocketmq").context("RocketMQ")?;
        let mut command = Command::new(folder.join("start"));
        command.arg(home.path()).arg(port.to_string()).arg(role);
        let version = if release == Release::Four { "4" } else { "5" };
        command.env("ROCKETMQ_VERSION", version);
        command.env("PROPERTY_FILTER", property_filter.to_string());
        // A disk that is nine tenths full is none of these tests' business; the broker would refuse.
        command.env(
            "JAVA_TOOL_OPTIONS",
            "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99 \
             -Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98",
        );
        Process::start(&mut command, &home.path().join(format!("{role}.log")))
    }
}
