use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gray_propagation::Carriers;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use super::{BodyError, InstanceBody, without_lanes};
use crate::observe::Ending;

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    /// Taken when the body ends; dropped with the body where it is cut short.
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Source {
    Instance(InstanceBody, Arc<Carriers>),
    Own(Full<Bytes>),
}

impl ResponseBody {
    /// The body of an instance's answer, whose trailers carry no lane out.
    pub(crate) const fn of(body: InstanceBody, carriers: Arc<Carriers>) -> Self {
        Self { source: Source::Instance(body, carriers), ending: None }
    }

    /// A body of the gateway's own.
    pub(crate) const fn of_own(body: Full<Bytes>) -> Self {
        Self { source: Source::Own(body), ending: None }
    }

    /// Tells someone when the body has ended.
    ///
    /// A body without content is never asked for its first piece, so it has ended already.
    pub(crate) fn with_ending(mut self, ending: Ending) -> Self {
        if self.is_end_stream() {
            if let Source::Instance(body, _) = &mut self.source {
                body.finish();
            }
            ending.done();
        } else {
            self.ending = Some(ending);
        }
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Instance(body, carriers) => ready!(body.poll_piece(cx))
                .map(|frame| frame.map(|frame| without_lanes(frame, carriers))),
            Source::Own(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map_err(|never| match never {})),
        };
        if let Some(ending) = &mut this.ending {
            match &frame {
                Some(Ok(frame)) => {
                    ending.count(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                Some(Err(error)) => ending.broke(error.to_string()),
                None => {}
            }
        }
        if frame.is_none() || matches!(frame, Some(Err(_))) || this.is_end_stream() {
            if let Source::Instance(body, _) = &mut this.source
                && !matches!(frame, Some(Err(_)))
            {
                body.finish();
            }
            if let Some(ending) = this.ending.take() {
                ending.done();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Instance(body, _) => body.inner.is_end_stream(),
            Source::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Instance(body, _) => body.inner.size_hint(),
            Source::Own(body) => body.size_hint(),
        }
    }
}
