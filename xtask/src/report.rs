use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::root;

/// Returns what names the code as it stands.
pub(crate) fn commit() -> anyhow::Result<String> {
    let git = |arguments: &[&str]| -> std::io::Result<String> {
        let output = Command::new("git").args(arguments).current_dir(root()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let name = git(&["rev-parse", "--short", "HEAD"])?;
    // Reports are no part of the code that they tell of.
    let others = [".", ":!bench/*.txt", ":!tests/reports"];
    let changed = git(&[&["status", "--porcelain", "--"][..], &others].concat())?;
    Ok(if changed.is_empty() { name } else { format!("{name} with changes") })
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
