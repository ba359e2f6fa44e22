//! Bodies on their way through the gateway: passed on piece by piece, never collected.

mod answer;
mod instance;
mod progress;
mod request;

use bytes::Bytes;
use gray_propagation::Carriers;
use http_body::Frame;

pub(crate) use self::answer::ResponseBody;
pub(crate) use self::instance::{Inner, InstanceBody};
pub(crate) use self::progress::{Blame, Progress, within};
pub(crate) use self::request::{ClientBody, RequestBody};
use crate::error::ClientError;
use crate::headers;
use crate::upstream::UpstreamError;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is larger than allowed.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// Nothing came for too long.
    #[error("the body stalled")]
    Stalled,
    /// The client's connection failed, or what came over it is no body.
    #[error(transparent)]
    Broken(#[from] ClientError),
    /// An instance failed in the middle of it.
    #[error(transparent)]
    Instance(#[from] UpstreamError),
}

/// Removes from trailers what must not come that way: lanes, and fields of one connection.
fn without_lanes(mut frame: Frame<Bytes>, carriers: &Carriers) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        carriers.strip(trailers);
        headers::strip_trailers(trailers);
    }
    frame
}
