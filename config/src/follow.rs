use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use tracing::{debug, info, warn};

use crate::{Documents, Live, Problems, Publisher, Snapshot, SourceError, Update, causes, live};

/// How a followed configuration is doing, for the readiness page and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// How many sets of documents were put into force.
    pub accepted: u64,
    /// How many were refused.
    pub rejected: u64,
    /// The digest of the documents in force; empty before the first.
    pub digest: String,
    /// When they were put into force.
    pub since: Option<SystemTime>,
    /// What is wrong with the newest documents, where they were refused.
    pub problems: Option<Problems>,
    /// What is odd about the documents in force.
    pub warnings: Problems,
    /// Why the newest documents cannot be had, where they cannot.
    pub unavailable: Option<SourceError>,
    /// Whether what is in force comes from the snapshot and not yet from the source.
    pub from_snapshot: bool,
}

/// Keeps a value in step with its documents.
#[derive(Debug)]
pub struct Follow<P> {
    /// Turns documents into the value and what is odd about them, or refuses them.
    pub parse: P,
    /// Where good documents are kept for a start without their source.
    pub snapshot: Option<Snapshot>,
    health: Publisher<Health>,
}

impl<P> Follow<P> {
    /// Follows with a parse function, and keeps good documents in a snapshot if one is given.
    pub fn new(parse: P, snapshot: Option<Snapshot>) -> Self {
        let (health, _) = live(Health::default());
        Self { parse, snapshot, health }
    }

    /// Returns how it is doing, at any time from now on.
    pub fn health(&self) -> Live<Health> {
        self.health.reader()
    }

    fn update_health(&self, change: impl FnOnce(&mut Health)) {
        let mut health = Health::clone(&self.health.current());
        change(&mut health);
        self.health.publish(health);
    }

    /// Notes documents that were taken from the snapshot.
    pub fn restored(&self, documents: &Documents) {
        self.accepted(documents, Problems::default(), true);
    }

    fn accepted(&self, documents: &Documents, warnings: Problems, from_snapshot: bool) {
        self.update_health(|health| {
            health.accepted += 1;
            health.digest = documents.digest();
            health.since = Some(SystemTime::now());
            health.problems = None;
            health.warnings = warnings;
            health.from_snapshot = from_snapshot;
        });
    }
}

/// Publishes every set of documents that parses, until the source ends.
///
/// Documents that do not parse are reported, and what was in force stays in force. The same holds
/// while the source cannot be reached.
pub async fn follow<T, P>(
    updates: impl Stream<Item = Update>,
    follow: Follow<P>,
    publisher: Publisher<T>,
) where
    P: Fn(&Documents) -> Result<(T, Problems), Problems>,
{
    let mut updates = pin!(updates);
    while let Some(update) = updates.next().await {
        match update {
            Update::Documents(documents) => accept(&follow, &publisher, documents).await,
            Update::Unavailable(error) => {
                warn!(%error, "configuration cannot be had, the last one stays in force");
                follow.update_health(|health| health.unavailable = Some(error));
            }
        }
    }
}

async fn accept<T, P>(follow: &Follow<P>, publisher: &Publisher<T>, documents: Documents)
where
    P: Fn(&Documents) -> Result<(T, Problems), Problems>,
{
    follow.update_health(|health| health.unavailable = None);
    let current = follow.health.current();
    if current.digest == documents.digest() && current.problems.is_none() {
        debug!("configuration unchanged");
        follow.update_health(|health| health.from_snapshot = false);
        return;
    }
    match (follow.parse)(&documents) {
        Ok((value, warnings)) => {
            publisher.publish(value);
            for warning in &warnings.0 {
                warn!("configuration: {warning}");
            }
            follow.accepted(&documents, warnings, false);
            info!(digest = documents.digest(), "configuration replaced");
            save(follow.snapshot.clone(), documents).await;
        }
        Err(problems) => {
            warn!("configuration rejected, the last one stays in force\n{problems}");
            follow.update_health(|health| {
                health.rejected += 1;
                health.problems = Some(problems);
            });
        }
    }
}

/// Writes the snapshot; a full disk is reported and stops nothing.
async fn save(snapshot: Option<Snapshot>, documents: Documents) {
    const LIMIT: Duration = Duration::from_secs(5);
    let Some(snapshot) = snapshot else { return };
    let write = tokio::task::spawn_blocking(move || snapshot.save(&documents));
    match tokio::time::timeout(LIMIT, write).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => warn!(error = causes(&error), "snapshot not written"),
        Ok(Err(error)) => warn!(%error, "snapshot not written"),
        Err(_) => warn!("snapshot not written within {LIMIT:?}"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::{Document, Problem};

    fn parse(documents: &Documents) -> Result<(u16, Problems), Problems> {
        let text = documents.0.values().next().unwrap();
        let port = text.parse().map_err(|_| Problems::from(Problem::whole("port", "no port")));
        port.map(|port| (port, Problems::default()))
    }

    fn updates(texts: &[&str]) -> impl Stream<Item = Update> {
        let update = |text: &&str| Update::Documents(Documents::one("port", *text));
        stream::iter(texts.iter().map(update).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn keeps_the_last_good_value() {
        let (publisher, port) = live(0_u16);
        let following = Follow::new(parse, None);
        let health = following.health();

        follow(updates(&["80", "eighty", "8080", ""]), following, publisher).await;

        assert_eq!(*port.load(), 8080);
        assert_eq!((health.load().accepted, health.load().rejected), (2, 2));
        assert!(health.load().problems.is_some());
        assert!(Document::parse("port", "").is_err());
    }

    #[tokio::test]
    async fn good_documents_end_in_the_snapshot_and_bad_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::at(folder.path().join("port.snapshot"));
        let (publisher, _port) = live(0_u16);

        follow(updates(&["80", "x"]), Follow::new(parse, Some(snapshot.clone())), publisher).await;

        assert_eq!(snapshot.load().unwrap(), Some(Documents::one("port", "80")));
    }

    #[tokio::test]
    async fn an_outage_changes_nothing_but_is_told() {
        let (publisher, port) = live(7_u16);
        let following = Follow::new(parse, None);
        let health = following.health();
        let error =
            SourceError { source_name: "nacos".into(), reason: "down".into(), is_missing: false };

        follow(stream::iter([Update::Unavailable(error.clone())]), following, publisher).await;

        assert_eq!(*port.load(), 7);
        assert_eq!(health.load().unavailable, Some(error));
    }
}
