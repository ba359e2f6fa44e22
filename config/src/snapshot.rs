use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::Documents;

/// The last good documents, kept on disk for a start without their source.
///
/// A file is written beside the old one, synced and renamed over it, and carries a checksum; the
/// generation before it stays as `<name>.previous`. Whatever a crash leaves behind, a start finds
/// one whole generation or none.
#[derive(Clone, Debug)]
pub struct Snapshot {
    path: PathBuf,
}

/// Why a snapshot was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused.
    #[error("snapshot {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is there, but neither it nor the generation before it is whole.
    #[error("snapshot {path} is damaged; remove it to start without it")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Body {
    documents: BTreeMap<String, Arc<str>>,
}

impl Snapshot {
    /// Keeps the documents in a file of this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Replaces the snapshot.
    ///
    /// # Errors
    ///
    /// Whatever the file system refuses; the snapshot before is then still whole.
    pub fn save(&self, documents: &Documents) -> Result<(), SnapshotError> {
        self.write(documents).map_err(|source| self.io(source))
    }

    /// Reads the newest generation that is whole; `None` where there never was one.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Damaged`] where there are files and none is whole.
    pub fn load(&self) -> Result<Option<Documents>, SnapshotError> {
        let mut found = false;
        for path in [self.path.clone(), self.previous()] {
            match std::fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(SnapshotError::Io { path, source }),
                Ok(bytes) => match decode(&bytes) {
                    Some(documents) => return Ok(Some(documents)),
                    None => found = true,
                },
            }
        }
        if found { Err(SnapshotError::Damaged { path: self.path.clone() }) } else { Ok(None) }
    }

    fn write(&self, documents: &Documents) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder)?;
        let fresh = self.beside("fresh");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&encode(documents)?)?;
        file.sync_all()?;
        if std::fs::read(&self.path).is_ok_and(|old| decode(&old).is_some()) {
            std::fs::rename(&self.path, self.previous())?;
        }
        std::fs::rename(&fresh, &self.path)?;
        std::fs::File::open(folder)?.sync_all()
    }

    fn previous(&self) -> PathBuf {
        self.beside("previous")
    }

    /// Returns the path of a file that belongs to this one.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(suffix);
        path.into()
    }

    fn io(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Io { path: self.path.clone(), source }
    }
}

/// A line with the checksum of what follows it, then JSON.
fn encode(documents: &Documents) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(&Body { documents: documents.0.clone() })?;
    let mut bytes = format!("graylane-snapshot-1 {:016x}\n", xxh3_64(&body)).into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Documents> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(1..)?;
    let sum = std::str::from_utf8(head).ok()?.strip_prefix("graylane-snapshot-1 ")?;
    if sum != format!("{:016x}", xxh3_64(body)) {
        return None;
    }
    serde_json::from_slice::<Body>(body).ok().map(|body| Documents(body.documents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::at(folder.path().join("deep/rules.snapshot"));
        assert!(snapshot.load().unwrap().is_none());
        snapshot.save(&Documents::one("a", "1")).unwrap();
        assert_eq!(snapshot.load().unwrap(), Some(Documents::one("a", "1")));
    }

    #[test]
    fn whatever_byte_is_damaged_an_older_generation_or_a_clear_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.snapshot");
        let snapshot = Snapshot::at(&path);
        snapshot.save(&Documents::one("a", "old")).unwrap();
        let first = std::fs::read(&path).unwrap();
        for position in 0..first.len() {
            let mut damaged = first.clone();
            damaged[position] ^= 0x20;
            std::fs::write(&path, &damaged).unwrap();
            assert!(matches!(snapshot.load(), Err(SnapshotError::Damaged { .. })), "{position}");
            std::fs::write(&path, &first[..position]).unwrap();
            assert!(matches!(snapshot.load(), Err(SnapshotError::Damaged { .. })), "{position}");
        }
        std::fs::write(&path, &first).unwrap();
        snapshot.save(&Documents::one("a", "new")).unwrap();
        std::fs::write(&path, "torn").unwrap();
        assert_eq!(snapshot.load().unwrap(), Some(Documents::one("a", "old")));
    }
}
