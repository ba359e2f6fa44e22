//! How many instructions a request costs in user space: the same on any machine.

use std::path::Path;

use anyhow::Context;

use crate::gateway::{Gateway, Kind};
use crate::turns::{GATEWAYS, Servers, UPSTREAM, load};
use crate::{routing, say};

/// Between so many and so many requests everything is warm.
const REQUESTS: [u64; 2] = [2_000, 6_000];

/// Counts the instructions that a request costs a gateway, by callgrind.
#[derive(Debug, clap::Args)]
pub(crate) struct Instructions {
    /// The gateways, as `name=path`.
    #[arg(required = true)]
    kinds: Vec<Kind>,
    /// Where callgrind's output of the longer run is kept, a file for each gateway.
    #[arg(long)]
    keep: Option<std::path::PathBuf>,
}

impl Instructions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let _servers = Servers::start()?;
        for kind in &self.kinds {
            let mut counts = Vec::new();
            for requests in REQUESTS {
                counts.push(self.count(kind, requests)?);
            }
            let [less, more] = counts[..] else { continue };
            let each = (more - less) / (REQUESTS[1] - REQUESTS[0]);
            say(&format!("instructions for a request, {}: {each}", kind.name));
        }
        Ok(())
    }

    /// The instructions of a whole run with so many requests.
    fn count(&self, kind: &Kind, requests: u64) -> anyhow::Result<u64> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("out");
        let wrap = ["valgrind", "--tool=callgrind", "--trace-children=no", "--dump-instr=yes"]
            .map(str::to_owned);
        let file = format!("--callgrind-out-file={}", out.display());
        let gateway = Gateway::start(kind, GATEWAYS, UPSTREAM, &[&wrap[..], &[file]].concat())?;
        routing::check(&gateway, UPSTREAM)?;
        load(gateway.port, &["--count", &requests.to_string(), "--connections", "8"])?;
        gateway.stop()?;
        if let Some(keep) = &self.keep {
            std::fs::copy(&out, keep.join(format!("{}.callgrind", kind.name)))?;
        }
        total(&out)
    }
}

/// Reads the sum that callgrind has written.
fn total(path: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let sum = |line: &str| {
        let sum = line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: "))?;
        sum.trim().parse().ok()
    };
    text.lines().find_map(sum).context("callgrind has counted nothing")
}
