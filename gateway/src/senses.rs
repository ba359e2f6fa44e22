//! Databases of places and keys of tokens, read again when their files change.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use gray_config::{Faults, Publisher};
use gray_filters::{Senses, UserSource};

use crate::properties::GatewayProperties;
use crate::reloads::Reloads;
use crate::settings::senses;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Reads the files again whenever one changes; what cannot be read changes nothing.
pub(crate) async fn follow(
    properties: GatewayProperties,
    publisher: Publisher<Senses>,
    reloads: Reloads,
) {
    let files = files(&properties);
    let mut seen = stamps(&files);
    loop {
        tokio::time::sleep(POLL).await;
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        seen = now;
        let properties = properties.clone();
        // Databases may be large: reading them must not keep requests waiting.
        let read = tokio::task::spawn_blocking(move || {
            let mut faults = Faults::default();
            (senses(&properties, &mut faults), faults)
        });
        let outcome = match read.await {
            Ok((fresh, faults)) if !faults.has_errors() => {
                publisher.publish(fresh);
                Ok(())
            }
            Ok((_, faults)) => {
                let named = faults.iter().map(|it| format!("{}: {}", it.path, it.message));
                Err(named.collect::<Vec<_>>().join("; "))
            }
            Err(error) => Err(error.to_string()),
        };
        reloads.note("places and keys", outcome);
    }
}

fn files(properties: &GatewayProperties) -> Vec<PathBuf> {
    let keys = properties.user.from.iter().flat_map(|source| match source {
        UserSource::Jwt(jwt) => jwt.public_key_file.iter().chain(&jwt.jwks_file).cloned().collect(),
        _ => Vec::new(),
    });
    properties.places.databases.iter().cloned().chain(keys).collect()
}

fn stamps(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}
