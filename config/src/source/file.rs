use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{BoxStream, StreamExt, unfold};
use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::{ConfigSource, SourceError, Update};
use crate::Documents;

/// How often files are looked at, for file systems that tell of no change.
const POLL: Duration = Duration::from_secs(1);

/// How long a file must have stayed the same before it is believed to be whole.
const SETTLE: Duration = Duration::from_millis(20);

/// Documents that are files.
///
/// A file counts as changed only when two looks in a row find the same content, so that half a file
/// is not taken for a document. Links are followed, as Kubernetes mounts its `ConfigMap`s by them.
#[derive(Clone, Debug)]
pub struct FileSource {
    files: Vec<PathBuf>,
    limit: u64,
}

impl FileSource {
    /// Follows files of at most `limit` bytes each, known by their paths.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, limit: u64) -> Self {
        Self { files: files.into_iter().collect(), limit }
    }

    /// Reads the files once.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read, is larger than the limit, or is no UTF-8.
    pub fn read(&self) -> Result<Documents, SourceError> {
        let read = |path: &PathBuf| Ok((path.display().to_string(), read(path, self.limit)?));
        self.files.iter().map(read).collect::<Result<BTreeMap<_, _>, _>>().map(Documents)
    }

    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.files.iter().map(stamp).collect()
    }
}

fn read(path: &Path, limit: u64) -> Result<Arc<str>, SourceError> {
    let fail = |reason: String| SourceError {
        source_name: path.display().to_string(),
        reason,
        is_missing: false,
    };
    let file = std::fs::File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut bytes = Vec::new();
    let taken = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    taken.map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(fail(format!("the file is larger than the limit of {limit} bytes")));
    }
    String::from_utf8(bytes).map(Into::into).map_err(|error| fail(error.to_string()))
}

impl ConfigSource for FileSource {
    fn updates(self: Box<Self>) -> BoxStream<'static, Update> {
        unfold(State::new(*self), |mut state| async move {
            let update = state.next().await;
            Some((update, state))
        })
        .boxed()
    }
}

struct State {
    source: FileSource,
    changed: Arc<Notify>,
    /// Kept for as long as changes are wanted; absent where the system cannot tell.
    _watcher: Option<notify::RecommendedWatcher>,
    seen: Option<Result<Documents, SourceError>>,
    stamps: Vec<Option<(SystemTime, u64)>>,
}

impl State {
    fn new(source: FileSource) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = watch(&source.files, &changed);
        Self { source, changed, _watcher: watcher, seen: None, stamps: Vec::new() }
    }

    /// Waits until the files say something that they did not say before.
    async fn next(&mut self) -> Update {
        loop {
            if self.seen.is_some() {
                self.wait_for_change().await;
            }
            let now = self.settled().await;
            if self.seen.as_ref() != Some(&now) {
                self.seen = Some(now.clone());
                return match now {
                    Ok(documents) => Update::Documents(documents),
                    Err(error) => Update::Unavailable(error),
                };
            }
        }
    }

    async fn wait_for_change(&mut self) {
        loop {
            let told = tokio::time::timeout(POLL, self.changed.notified()).await.is_ok();
            let stamps = self.source.stamps();
            if told || stamps != self.stamps {
                self.stamps = stamps;
                return;
            }
        }
    }

    async fn settled(&self) -> Result<Documents, SourceError> {
        let mut last = self.read().await;
        loop {
            tokio::time::sleep(SETTLE).await;
            let now = self.read().await;
            if now == last {
                return now;
            }
            last = now;
        }
    }

    /// Reads the files without keeping requests waiting: lists may be large.
    async fn read(&self) -> Result<Documents, SourceError> {
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        read.unwrap_or_else(|error| {
            let (source_name, reason) = ("files".to_owned(), error.to_string());
            Err(SourceError { source_name, reason, is_missing: false })
        })
    }
}

fn watch(files: &[PathBuf], changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let changed = Arc::clone(changed);
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading a file is told as well, and must not lead to reading it again.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(tell).ok()?;
    for file in files {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "folder is polled, not watched");
        }
    }
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(stream: &mut BoxStream<'static, Update>) -> Option<String> {
        match stream.next().await? {
            Update::Documents(documents) => {
                documents.0.into_values().next().map(|text| text.to_string())
            }
            Update::Unavailable(error) => Some(error.reason),
        }
    }

    #[tokio::test]
    async fn tells_of_the_present_state_and_of_every_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        std::fs::write(&path, "a: 1").unwrap();
        let mut updates = Box::new(FileSource::new([path.clone()], 100)).updates();

        assert_eq!(next(&mut updates).await.as_deref(), Some("a: 1"));
        std::fs::write(&path, "a: 2").unwrap();
        assert_eq!(next(&mut updates).await.as_deref(), Some("a: 2"));
        std::fs::remove_file(&path).unwrap();
        assert!(next(&mut updates).await.is_some_and(|text| text.contains("No such file")));
        std::fs::write(&path, "x".repeat(101)).unwrap();
        assert!(next(&mut updates).await.is_some_and(|text| text.contains("limit of 100")));
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        std::fs::write(&path, "a: 1").unwrap();
        let mut state = State::new(FileSource::new([path], 100));
        state.next().await;
        state.stamps = state.source.stamps();
        // What was told of the writing is taken, then the reading must stay silent.
        let _ = tokio::time::timeout(POLL / 4, state.changed.notified()).await;
        state.settled().await.unwrap();
        let told = tokio::time::timeout(POLL / 4, state.changed.notified()).await;
        assert!(told.is_err());
    }

    #[tokio::test]
    async fn follows_a_link_that_is_swapped_as_kubernetes_does() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("v1"), folder.path().join("v2"));
        std::fs::write(&old, "one").unwrap();
        std::fs::write(&new, "two").unwrap();
        let link = folder.path().join("rules.yaml");
        std::os::unix::fs::symlink(&old, &link).unwrap();
        let mut updates = Box::new(FileSource::new([link.clone()], 100)).updates();
        assert_eq!(next(&mut updates).await.as_deref(), Some("one"));

        let fresh = folder.path().join("fresh");
        std::os::unix::fs::symlink(&new, &fresh).unwrap();
        std::fs::rename(&fresh, &link).unwrap();
        assert_eq!(next(&mut updates).await.as_deref(), Some("two"));
    }
}
