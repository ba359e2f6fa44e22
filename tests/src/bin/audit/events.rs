use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// What was durable of a group: by `topic` or `retry`, and queue.
pub(crate) type Durable = BTreeMap<(String, String), u64>;

/// Says who was killed when, and what their group had durably committed then.
pub(crate) struct Events(File);

impl Events {
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        File::create(path).map(Self)
    }

    /// Takes down that a client was killed, `*` for all of them.
    pub(crate) fn killed(&self, who: &str, group: &str, durable: &Durable) -> std::io::Result<()> {
        let at = now();
        for ((source, queue), offset) in durable {
            let line = format!("{at}\t{who}\t{group}\t{source}\t{queue}\t{offset}\n");
            (&self.0).write_all(line.as_bytes())?;
        }
        Ok(())
    }
}
