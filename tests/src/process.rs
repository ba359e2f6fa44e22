use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

/// A process of the test's own; it is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it prints goes to a file.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{command:?} cannot be started"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Returns what it has printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the most memory that it has used at a time, in KiB.
    ///
    /// # Errors
    ///
    /// Where the system does not say.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Makes that begin again from what it uses now, which is returned.
    ///
    /// # Errors
    ///
    /// Where the system does not allow it.
    pub fn reset_peak_memory(&self) -> anyhow::Result<u64> {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?;
        self.peak_memory()
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop.
    ///
    /// # Errors
    ///
    /// Where the signal cannot be sent.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("-TERM")
    }

    /// Sends it a signal, such as `-STOP`.
    ///
    /// # Errors
    ///
    /// Where the signal cannot be sent.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status()?;
        if sent.success() { Ok(()) } else { bail!("no such process") }
    }

    /// Tells whether it has ended.
    ///
    /// # Errors
    ///
    /// Where the system does not say.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it has ended, and returns its exit code.
    ///
    /// # Errors
    ///
    /// Where it has not ended within the limit.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<Option<i32>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if started.elapsed() > limit {
                bail!("still running after {limit:?}:\n{}", self.printed());
            }
            pause();
        }
    }

    /// Waits until something is so, as long as the process runs.
    ///
    /// # Errors
    ///
    /// Where the process ends before, or the limit passes.
    pub fn until<T>(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(value) = ready(&self.printed()) {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status}:\n{}", self.printed());
            }
            if started.elapsed() > limit {
                bail!("not ready after {limit:?}:\n{}", self.printed());
            }
            pause();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a binary of the workspace, built beside the tests.
///
/// # Errors
///
/// Where it has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("no build folder")?;
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing; run `cargo build --workspace --bins` first", path.display());
    }
    Ok(path)
}

/// Waits until something is so.
///
/// # Errors
///
/// The last answer, where the limit passes.
pub async fn eventually<T, F>(limit: Duration, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    const STEP: Duration = Duration::from_millis(20);
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > limit => {
                return Err(error.context(format!("not so after {limit:?}")));
            }
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the harness waits for processes, outside any runtime"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
