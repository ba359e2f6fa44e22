use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::SystemTime;

use gray_propagation::{
    Carriers, Context, GrayStatus, Hop, HopTag, InContext, PATH_HEADER, Probe, TAG_HEADER, TagKeys,
    sync_scope,
};
use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::edges::{Edge, Edges};
use crate::lanes::OwnLane;

/// Runs each request in the lane that it came with, for any server that speaks tower: axum, tonic,
/// hyper.
///
/// A request without a tag, or with a malformed one, stays in this copy's own lane. The lane is there
/// while the handler runs and while its answer is streamed, and nowhere else.
#[derive(Clone, Debug)]
pub struct GrayLayer(Arc<Incoming>);

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) service: Arc<str>,
    pub(crate) own: OwnLane,
    pub(crate) carriers: Carriers,
    pub(crate) keys: TagKeys,
    pub(crate) edges: Edges,
}

/// The service that [`GrayLayer`] makes.
#[derive(Clone, Debug)]
pub struct Gray<S> {
    inner: S,
    incoming: Arc<Incoming>,
}

impl GrayLayer {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self(Arc::new(incoming))
    }
}

impl<S> Layer<S> for GrayLayer {
    type Service = Gray<S>;

    fn layer(&self, inner: S) -> Gray<S> {
        Gray { inner, incoming: Arc::clone(&self.0) }
    }
}

impl Incoming {
    /// Reads what a request came with, and counts what is odd about it.
    fn read(&self, headers: &HeaderMap) -> (Context, Option<Hop>) {
        let own = self.own.status();
        let (mut context, tagged) = self.carriers.read(headers, own);
        let escaped = escaped(own, context.status);
        // Most requests are as they should be, and cost no more than the comparison.
        let (mut lost_by, mut explained) = (None, None);
        if escaped || !tagged {
            let hop = HopTag::extract(headers).unwrap_or_default();
            let edge = |from: &str| Edge {
                from: if from.is_empty() { "unknown" } else { from }.into(),
                to: Arc::clone(&self.service),
                lane: context.status,
            };
            if !tagged {
                // A word meant for another service was passed on by that one, without the tag.
                let by = if *hop.to == *self.service { &hop.from } else { &hop.to };
                self.edges.untagged(edge(by));
                lost_by = Some(if by.is_empty() { "unknown".to_owned() } else { by.clone() });
            } else if hop.fallback.is_none() {
                self.edges.escaped(edge(&hop.from));
            }
            explained = hop.fallback;
        }
        let probe = self.probe(headers);
        let report = probe.is_some().then(|| Hop {
            service: self.service.to_string(),
            version: self.own.version().map(str::to_owned),
            asked: tagged.then(|| context.status.to_string()),
            escaped: escaped && explained.is_none(),
            fallback: explained,
            lost_by,
            ..Hop::default()
        });
        context.probe = probe;
        (context, report)
    }

    /// Returns the report that a request asks for, if somebody with a key asks.
    fn probe(&self, headers: &HeaderMap) -> Option<Probe> {
        let tag = headers.get(TAG_HEADER).filter(|_| !self.keys.is_empty())?;
        let verified = self.keys.verify(tag, SystemTime::now());
        verified.is_ok_and(|verified| verified.probe).then(|| Probe::new(tag.clone()))
    }
}

/// Tells whether a request is somewhere else than where it asked to be.
fn escaped(own: GrayStatus, asked: GrayStatus) -> bool {
    own != GrayStatus::All && asked != GrayStatus::All && own != asked
}

impl<S, B, R> Service<Request<B>> for Gray<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<InContext<R>>;
    type Error = S::Error;
    type Future = Serving<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Serving<S::Future> {
        let (context, report) = self.incoming.read(request.headers());
        let context = Arc::new(context);
        request.extensions_mut().insert(Arc::clone(&context));
        let inner = sync_scope(Arc::clone(&context), || self.inner.call(request));
        Serving { inner: InContext::new(Arc::clone(&context), inner), context, report }
    }
}

pin_project! {
    /// A request that is being served in its lane.
    #[derive(Debug)]
    pub struct Serving<F> {
        #[pin]
        inner: InContext<F>,
        context: Arc<Context>,
        report: Option<Hop>,
    }
}

impl<F, R, E> Future for Serving<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<InContext<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let (Some(mut report), Some(probe)) = (this.report.take(), &this.context.probe) {
            // What a handler passed on from a service that it called by other means.
            let passed_on = response.headers_mut().remove(PATH_HEADER);
            report.calls = probe.take();
            report.calls.extend(passed_on.as_ref().and_then(Hop::from_header));
            if let Some(value) = report.to_header() {
                response.headers_mut().insert(PATH_HEADER, value);
            }
        }
        let context = Arc::clone(this.context);
        Poll::Ready(Ok(response.map(|body| InContext::new(context, body))))
    }
}
