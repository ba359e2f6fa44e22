//! What the system says about a process and its children.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

/// Clock ticks of a second, in which user and system time are told apart.
const TICK: f64 = 100.0;

/// CPU time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// In all, to the nanosecond.
    pub(crate) total: f64,
    /// By the system's own coarse ticks.
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total: self.total - before.total,
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// Returns a process and all that it has started.
pub(crate) fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse() else { continue };
        // It may have ended meanwhile.
        let Ok(fields) = stat(process) else { continue };
        let Some(parent) = fields.get(1).and_then(|it| it.parse().ok()) else { continue };
        children.entry(parent).or_default().push(process);
    }
    let (mut all, mut next) = (Vec::new(), vec![root]);
    while let Some(process) = next.pop() {
        all.push(process);
        next.extend(children.remove(&process).unwrap_or_default());
    }
    Ok(all)
}

/// The fields of a process's status, from its state on.
fn stat(process: u32) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Its name, in parentheses, may have blanks.
    let (_, fields) = text.rsplit_once(") ").context("no status")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Returns the CPU time that these have used.
pub(crate) fn cpu(processes: &[u32]) -> anyhow::Result<Cpu> {
    let mut sum = Cpu::default();
    for process in processes {
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let times = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanos: f64 = times.split(' ').next().context("no time")?.parse()?;
            sum.total += nanos / 1e9;
        }
        let fields = stat(*process)?;
        let ticks = |place: usize| -> anyhow::Result<f64> {
            Ok(fields.get(place).context("no ticks")?.parse::<f64>()? / TICK)
        };
        sum.user += ticks(11)?;
        sum.system += ticks(12)?;
    }
    Ok(sum)
}

/// Returns the memory that these have of their own, in MiB: what several share counts once.
pub(crate) fn memory(processes: &[u32]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for process in processes {
        let path = PathBuf::from(format!("/proc/{process}/smaps_rollup"));
        let text = std::fs::read_to_string(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        sum += kib / 1024.0;
    }
    Ok(sum)
}
