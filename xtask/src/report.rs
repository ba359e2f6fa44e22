use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::root;

/// Returns what names the code as it stands.
pub(crate) fn commit() -> anyhow::Result<String> {
    let mut describe = Command::new("git");
    describe.args(["describe", "--always", "--dirty"]).current_dir(root());
    Ok(String::from_utf8_lossy(&describe.output()?.stdout).trim().to_owned())
}

/// Says in a report by which command it was made, and of which code it is.
pub(crate) fn sign(report: &Path, command: &str, commit: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(report)?;
    Ok(std::fs::write(report, format!("{command}, at {commit}\n\n{text}"))?)
}

/// Signs all reports that were written since then.
pub(crate) fn sign_all(since: SystemTime, command: &str, commit: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root().join("tests/reports"))? {
        let entry = entry?;
        if entry.metadata()?.modified()? >= since {
            sign(&entry.path(), command, commit)?;
        }
    }
    Ok(())
}
