use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::nacos::installed;
use crate::process::Process;

/// Starts a service of the Spring Cloud design, in Java, registered with a Nacos server; `more` are Spring's
/// variables, such as `SPRING_CLOUD_NACOS_DISCOVERY_GROUP`.
///
/// # Errors
///
/// Where it is not installed, or does not come up.
pub fn spring_service(
    service: &str,
    version: &str,
    nacos: &str,
    folder: &Path,
    more: &[(&str, &str)],
) -> anyhow::Result<Process> {
    const START: Duration = Duration::from_secs(90);
    let home = folder.join(format!("{service}-{version}"));
    let mut command = Command::new(installed("spring")?.join("start"));
    command.args([service, version, nacos]).arg(&home).envs(more.iter().copied());
    let mut process = Process::start(&mut command, &home.with_extension("log"))?;
    process.until(START, |printed| printed.contains("Started App").then_some(()))?;
    Ok(process)
}
