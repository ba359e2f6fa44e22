use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::nacos::installed;
use crate::ports::free_port;
use crate::process::Process;

/// How long a server may take to start beside other tests.
const START: Duration = Duration::from_mins(1);

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sql {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Maria,
}

/// A real database server of the test's own.
#[derive(Debug)]
pub struct Database {
    kind: Sql,
    port: u16,
    home: TempDir,
    process: Option<Process>,
}

impl Database {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    ///
    /// Where it is not installed, or does not come up.
    pub fn start(kind: Sql) -> anyhow::Result<Self> {
        let (port, home) = (free_port(&[]), tempfile::tempdir()?);
        let mut database = Self { kind, port, home, process: None };
        database.run()?;
        Ok(database)
    }

    /// Starts it on what it left behind.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let (name, ready) = match self.kind {
            Sql::Postgres => ("postgresql", "ready to accept connections"),
            Sql::Maria => ("mariadb", "ready for connections"),
        };
        let start = installed(name).context(name)?.join("start");
        let mut command = Command::new(start);
        command.arg(self.home.path()).arg(self.port.to_string());
        let mut process = Process::start(&mut command, &self.home.path().join("log"))?;
        process.until(START, |printed| printed.contains(ready).then_some(()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Returns how it is reached.
    pub fn url(&self) -> String {
        match self.kind {
            Sql::Postgres => format!("postgres://graylane@127.0.0.1:{}/graylane", self.port),
            Sql::Maria => format!("mysql://graylane:graylane@127.0.0.1:{}/graylane", self.port),
        }
    }
}
