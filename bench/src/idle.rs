//! How much memory a connection takes on which nothing happens.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::gateway::{Gateway, Kind};
use crate::process::memory;
use crate::turns::{GATEWAYS, Servers, UPSTREAM, load, own};
use crate::{routing, say};

/// How long connections stay, in seconds.
const HOLD: u64 = 4;

/// The memory that a gateway has with idle connections.
#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    /// The gateways, as `name=path`.
    #[arg(required = true)]
    kinds: Vec<Kind>,
    /// How many connections there are.
    #[arg(long, default_value_t = 5_000)]
    connections: u32,
}

impl Idle {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let _servers = Servers::start()?;
        say(
            "| | at the start, MiB | after load | with idle connections | KiB for each |\n|---|---|---|---|---|",
        );
        for kind in &self.kinds {
            let gateway = Gateway::start(kind, GATEWAYS, UPSTREAM, &[])?;
            routing::check(&gateway, UPSTREAM)?;
            let processes = gateway.processes()?;
            let first = memory(&processes)?;
            load(gateway.port, &["--count", "10000"])?;
            let before = memory(&processes)?;
            let after = self.idle(&gateway, &processes)?;
            let each = (after - before) * 1024.0 / f64::from(self.connections);
            let name = &kind.name;
            say(&format!("| {name} | {first:.1} | {before:.1} | {after:.1} | {each:.1} |"));
            gateway.stop()?;
        }
        Ok(())
    }

    /// The memory while so many connections, which have each carried a request, are idle.
    fn idle(&self, gateway: &Gateway, processes: &[u32]) -> anyhow::Result<f64> {
        let count = self.connections.to_string();
        let mut command = own("load")?;
        command.arg(gateway.port.to_string()).args(["--count", &count, "--connections", &count]);
        command.args(["--hold", &HOLD.to_string()]).stdout(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let (began, mut last) = (Instant::now(), 0.0);
        // At its end they are idle; each has had its request by then.
        while child.try_wait()?.is_none() {
            last = memory(processes)?;
            ensure!(began.elapsed() < Duration::from_secs(10 * HOLD), "it does not end");
            std::thread::park_timeout(Duration::from_millis(200));
        }
        Ok(last)
    }
}
