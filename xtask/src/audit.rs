use std::path::Path;
use std::process::Command;

use crate::servers::{self, run};
use crate::{report, root, say};

/// Audits who handles which message while lanes come and go, consumers are killed, and servers restart.
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    /// How messages are kept apart: property.
    #[arg(long, default_value = "property")]
    scheme: String,
    /// How often gray comes and goes.
    #[arg(long, default_value_t = 30)]
    cycles: u32,
    /// How many messages are produced at least; cycles go on until they are.
    #[arg(long, default_value_t = 0)]
    messages: u64,
    /// How many messages are produced in a second.
    #[arg(long, default_value_t = 700)]
    rate: u64,
    /// How often the broker is killed and restarted.
    #[arg(long, default_value_t = 2)]
    restarts: u32,
    /// Where the tables are: postgres, mariadb or nacos.
    #[arg(long, default_value = "postgres")]
    store: String,
    /// Whether the messages of a queue are handled one after the other, in their order.
    #[arg(long)]
    in_order: bool,
    /// Which RocketMQ it runs on, 4 or 5.
    #[arg(long, default_value_t = 5)]
    rocketmq: u8,
    /// Where the logs go, and who handled each message (who.tsv); a folder of its own where not given.
    #[arg(long)]
    logs: Option<std::path::PathBuf>,
    /// Where the report goes; without it, it is only printed.
    #[arg(long)]
    report: Option<std::path::PathBuf>,
}

impl Audit {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let store = if self.store == "postgres" { "postgresql" } else { &self.store };
        for name in ["rocketmq", store] {
            servers::install(name)?;
        }
        let mut build = Command::new("cargo");
        build.args(["run", "--release", "--package", "gray-tests", "--features", "audit"]);
        build.args(["--bin", "audit", "--", "run", "--scheme", &self.scheme]);
        for (name, value) in [
            ("--cycles", u64::from(self.cycles)),
            ("--messages", self.messages),
            ("--rate", self.rate),
            ("--restarts", u64::from(self.restarts)),
            ("--rocketmq", u64::from(self.rocketmq)),
        ] {
            build.args([name, &value.to_string()]);
        }
        build.args(["--store", &self.store]);
        if self.in_order {
            build.arg("--in-order");
        }
        if let Some(report) = &self.report {
            build.arg("--report").arg(report);
        }
        if let Some(logs) = &self.logs {
            build.arg("--logs").arg(logs);
        }
        say(&format!("{build:?}"));
        let commit = report::commit()?;
        run(build.current_dir(root()))?;
        self.report.as_deref().map_or(Ok(()), |path| self.sign(path, &commit))
    }

    fn sign(&self, path: &Path, commit: &str) -> anyhow::Result<()> {
        let Self { scheme, cycles, messages, rate, restarts, rocketmq, store, .. } = self;
        let order = if self.in_order { " --in-order" } else { "" };
        let command = format!(
            "cargo xtask audit --scheme {scheme} --cycles {cycles} --messages {messages} --rate {rate} \
             --restarts {restarts} --rocketmq {rocketmq} --store {store}{order}"
        );
        report::sign(path, &command, commit)
    }
}
