//! What is noted about each request: counters, and a line in the access log.

use std::sync::Arc;

use gray_lb::Picked;
use gray_propagation::Probe;
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::headers::RequestId;
use crate::metrics::Metrics;
use crate::revision::Revision;
use crate::routes::Route;
use gray_filters::{Classified, Verdict};

/// Where requests are noted.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: Option<AccessLog>,
}

/// The way of a request through the gateway, as far as it went.
#[derive(Debug)]
pub struct Trail {
    /// What was decided about it.
    pub verdict: Verdict,
    /// The one revision by which everything was decided.
    pub revision: Arc<Revision>,
    /// The route that took it.
    pub route: Option<Arc<Route>>,
    /// The instance that it was sent to last.
    pub picked: Option<Picked>,
    /// Counts it among the instance's requests until its answer has ended.
    pub in_flight: Option<gray_lb::InFlight>,
    /// How many instances it was sent to.
    pub attempts: u32,
    /// The report that was asked for by a signed tag, if one was.
    pub probe: Option<Probe>,
}

impl Trail {
    /// The way of a request that has been classified.
    pub(crate) fn of(classified: Classified<Revision>) -> Self {
        let Classified { verdict, revision } = classified;
        Self {
            verdict,
            revision,
            route: None,
            picked: None,
            in_flight: None,
            attempts: 0,
            probe: None,
        }
    }
}

/// What is known about a request apart from its way.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    /// The path, kept only where it will be logged.
    pub(crate) path: Option<String>,
    pub(crate) client: std::net::IpAddr,
    pub(crate) id: RequestId,
}

/// Notes a request when its answer has ended, or was cut short.
#[derive(Debug)]
pub(crate) struct Ending(Option<Box<Noted>>);

/// Everything about a request.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) observer: Observer,
    pub(crate) arrived: Arrived,
    pub(crate) trail: Option<Box<Trail>>,
    pub(crate) status: StatusCode,
    pub(crate) error: Option<&'static str>,
    pub(crate) head_at: Instant,
    pub(crate) bytes: u64,
    pub(crate) broke: Option<String>,
}

impl Ending {
    /// Begins with a request; unless it is answered, it was given up by its client.
    pub(crate) fn begin(observer: Observer, arrived: Arrived) -> Self {
        let noted = Noted {
            observer,
            head_at: arrived.at,
            arrived,
            trail: None,
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            error: Some("client-gone"),
            bytes: 0,
            broke: None,
        };
        Self(Some(Box::new(noted)))
    }

    /// Takes note of the head of the answer.
    pub(crate) fn answered(
        &mut self,
        status: StatusCode,
        error: Option<&'static str>,
        trail: Option<Box<Trail>>,
    ) {
        if let Some(noted) = &mut self.0 {
            noted.status = status;
            noted.error = error;
            noted.trail = trail;
            noted.head_at = Instant::now();
        }
    }

    pub(crate) fn count(&mut self, bytes: u64) {
        if let Some(noted) = &mut self.0 {
            noted.bytes += bytes;
        }
    }

    pub(crate) fn broke(&mut self, why: String) {
        if let Some(noted) = &mut self.0 {
            noted.broke = Some(why);
        }
    }

    pub(crate) fn done(mut self) {
        if let Some(noted) = self.0.take() {
            noted.note();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(mut noted) = self.0.take() {
            // Whoever answers for what failed here takes note of that itself.
            if std::thread::panicking() {
                return;
            }
            noted.broke.get_or_insert_with(|| "cut short".to_owned());
            noted.note();
        }
    }
}

impl Noted {
    fn note(self: Box<Self>) {
        self.observer.metrics.note(&self);
        if let Some(log) = &self.observer.access_log {
            log.note(&self);
        }
    }
}
