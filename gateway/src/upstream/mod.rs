//! How requests reach instances.
//!
//! [`Upstream`] is the seam: everything above it knows only that a request goes to a [`Target`] and
//! comes back as an answer, or may be sent elsewhere. [`Pools`] implements it,
//! over HTTP/1.1 with an engine of its own, over HTTP/2 with hyper.

mod connect;
mod endpoint;
mod pools;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::Error;
use crate::head::{Answered, Call};
use crate::http1::{Cut, Lost};
use crate::properties::TimeoutProperties;

pub(crate) use self::endpoint::Lease;
pub(crate) use self::pools::Pools;
pub(crate) use self::tls::UpstreamTls;

/// Sends a request to an instance.
pub trait Upstream<B> {
    /// The body of the answer.
    type Body;

    /// Sends the request and waits for the head of the answer.
    fn send(
        &self,
        call: &mut Call<B>,
        to: &Target,
    ) -> impl Future<Output = Result<Answered<Self::Body>, Failed>> + Send;
}

/// Where a request goes, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The instance's address.
    pub addr: SocketAddr,
    /// What is spoken to it.
    pub wire: Wire,
    /// How long things may take.
    pub timeouts: TimeoutProperties,
    /// When the whole of the answer must have come, if it must.
    pub deadline: Option<Instant>,
}

/// What is spoken to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear, with prior knowledge.
    H2c,
    /// Either over TLS, under this service's name.
    Tls(Arc<str>),
}

/// What an instance did instead of answering.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Over HTTP/1.1.
    #[error("its answer: {0}")]
    Http1(Cut),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
    /// It did not go on.
    #[error("it did not go on")]
    Silent,
}

impl UpstreamError {
    /// Why an instance did not answer over HTTP/1.1; that the client broke off is none of its faults.
    pub(crate) fn of(lost: Lost) -> Self {
        match lost {
            Lost::Answer(cut) => Self::Http1(cut),
            Lost::Body(_) | Lost::Timeout => Self::Silent,
        }
    }

    /// Whether the connection broke, rather than that something came over it that is no answer.
    pub(crate) fn is_broken(&self) -> bool {
        match self {
            Self::Http1(cut) => matches!(cut, Cut::Broken(_)),
            Self::Http2(error) => !error.is_parse(),
            Self::Silent => false,
        }
    }
}

/// A request that was not answered.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// Whether it may go elsewhere: nothing of it was sent, or it does no more when it is done twice
    /// (RFC 9110, section 9.2.2).
    pub again: bool,
}
