use http::HeaderValue;

use crate::{GrayStatus, Probe};

/// What travels with one request through a service, from the call that it serves to the calls and
/// messages that follow from it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Context {
    /// Which versions may serve what follows.
    pub status: GrayStatus,
    /// The trace that the request belongs to (W3C Trace Context).
    pub traceparent: Option<HeaderValue>,
    /// What vendors added to it.
    pub tracestate: Option<HeaderValue>,
    /// The members of W3C Baggage that are not ours.
    pub baggage: Option<HeaderValue>,
    /// The report that somebody asked for, if somebody did.
    pub probe: Option<Probe>,
}

impl Context {
    /// A context with nothing but a status.
    pub fn of(status: GrayStatus) -> Self {
        Self { status, ..Self::default() }
    }

    /// What of it is for anybody: its status and its trace, and not what is meant for our own services.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self { baggage: None, probe: None, ..self.clone() }
    }
}
