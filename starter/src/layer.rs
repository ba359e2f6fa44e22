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
use tokio::task::JoinSet;
use tower_layer::Layer;
use tower_service::Service;

use crate::edges::{Edge, Edges};
use crate::lanes::OwnLane;

/// Runs each request in the lane that it came with, for any server that speaks tower: axum, tonic,
/// hyper.
///
/// A request without a tag, or with a malformed one, stays in this copy's own lane. The lane is there
/// while the handler runs and while its answer is streamed, and nowhere else.
///
/// ```no_run
/// use gray_starter::{Starter, current_status};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
///
/// # fn main() -> Result<(), gray_starter::StartError> {
/// let starter = Starter::from_env("order-app")?;
/// let service = ServiceBuilder::new().layer(starter.layer()).service(service_fn(
///     async |_: Request<String>| Ok::<_, std::convert::Infallible>(Response::new(
///         current_status().map_or_else(String::new, |status| status.to_string()),
///     )),
/// ));
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GrayLayer(Arc<Incoming>);

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) service: Arc<str>,
    pub(crate) own: OwnLane,
    pub(crate) carriers: Carriers,
    pub(crate) keys: TagKeys,
    pub(crate) edges: Edges,
    /// The paths that are asked without a tag by orchestrators and collectors of metrics.
    pub(crate) health_paths: Vec<String>,
    /// Follow the lanes for as long as anybody is served.
    pub(crate) _tasks: Arc<JoinSet<()>>,
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
    fn read(&self, path: &str, headers: &HeaderMap) -> (Context, Option<Hop>) {
        let own = self.own.status();
        let (mut context, tagged) = self.carriers.read(headers, own);
        let escaped = self.own.is_routed()
            && differ(own, context.status)
            && !self.own.has_version_of(context.status);
        // Whoever stands between may have written another lane than it was called in.
        let meant = HopTag::lane_of(headers).and_then(|lane| lane.parse::<GrayStatus>().ok());
        let meant = meant.filter(|meant| tagged && differ(*meant, context.status));
        // Most requests are as they should be, and cost no more than the comparison.
        let (mut lost_by, mut explained) = (None, None);
        if escaped || !tagged || meant.is_some() {
            let hop = HopTag::extract(headers).unwrap_or_default();
            // A word that is meant for another service was passed on by that one, which says nothing
            // of its own: neither where it fell back, nor that it did.
            let is_ours = hop.to.is_empty() || *hop.to == *self.service;
            let (by, fallback) =
                if is_ours { (&hop.from, hop.fallback.clone()) } else { (&hop.to, None) };
            let edge = |from: &str| Edge {
                from: if from.is_empty() { "unknown" } else { from }.into(),
                to: Arc::clone(&self.service),
                lane: meant.unwrap_or(context.status),
            };
            let loser = || if by.is_empty() { "unknown".to_owned() } else { by.clone() };
            if meant.is_some() {
                self.edges.escaped(edge(by));
                lost_by = Some(loser());
            } else if !tagged && by.is_empty() && self.is_of_health(path) {
                // Who asks for this comes from nowhere, and lost nothing.
            } else if !tagged {
                self.edges.untagged(edge(by));
                lost_by = Some(loser());
            } else if fallback.is_none() {
                self.edges.escaped(edge(by));
            }
            explained = fallback;
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

    fn is_of_health(&self, path: &str) -> bool {
        let below = |known: &String| {
            let rest = path.strip_prefix(known.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some(())
        };
        self.health_paths.iter().any(|known| below(known).is_some())
    }

    /// Returns the report that a request asks for, if somebody with a key asks.
    fn probe(&self, headers: &HeaderMap) -> Option<Probe> {
        let tag = headers.get(TAG_HEADER).filter(|_| !self.keys.is_empty())?;
        let verified = self.keys.verify(tag, SystemTime::now());
        verified.is_ok_and(|verified| verified.probe).then(|| Probe::new(tag.clone()))
    }
}

/// Tells whether a request of the one lane is out of place in the other.
fn differ(one: GrayStatus, other: GrayStatus) -> bool {
    one != GrayStatus::All && other != GrayStatus::All && one != other
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
        let (context, report) = self.incoming.read(request.uri().path(), request.headers());
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use futures_util::{StreamExt, stream};
    use gray_config::live;
    use gray_lb::ServedLanes;
    use gray_propagation::{
        Lane, SignedTag, TagKey, current_status, in_current, spawn, spawn_blocking,
    };
    use http::HeaderValue;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::StarterProperties;
    use crate::edges::EdgeCounts;

    const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// A gray copy of `b`.
    fn layer() -> (GrayLayer, Edges) {
        let properties = StarterProperties {
            service: "b".to_owned(),
            version: Some("V2".to_owned()),
            lane: Some("gray".to_owned()),
            ..StarterProperties::default()
        };
        let served = ServedLanes { on: true, ..ServedLanes::default() };
        let own = OwnLane::new(&properties, live(served).1, None).unwrap();
        let edges = Edges::default();
        let keys = [TagKey::new("k", SECRET).unwrap()].into_iter().collect();
        let carriers = Carriers::default();
        let incoming = Incoming {
            service: "b".into(),
            own,
            carriers,
            keys,
            edges: edges.clone(),
            health_paths: properties.health_paths(),
            _tasks: Arc::default(),
        };
        (GrayLayer::new(incoming), edges)
    }

    fn request(headers: &[(&'static str, &str)]) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn seen() -> String {
        current_status().map(|status| status.to_string()).unwrap_or_default()
    }

    /// Where all of a thousand handlers meet before any goes on.
    static ALL_AT_ONCE: std::sync::LazyLock<tokio::sync::Barrier> =
        std::sync::LazyLock::new(|| tokio::sync::Barrier::new(1_000));

    /// Does everything that a handler may do beside its own task.
    async fn busy(headers: HeaderMap) -> String {
        ALL_AT_ONCE.wait().await;
        let mut all = vec![seen(), spawn(async { seen() }).await.unwrap()];
        all.push(spawn_blocking(seen).await.unwrap());
        let mut set = JoinSet::new();
        for _ in 0..3 {
            set.spawn(in_current(async {
                tokio::task::yield_now().await;
                seen()
            }));
        }
        while let Some(joined) = set.join_next().await {
            all.push(joined.unwrap());
        }
        assert!(!headers.contains_key("panic"), "on purpose");
        all.dedup();
        all.join(",")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_requests_at_once_see_only_their_own_lane() {
        let router = Router::new().route("/", get(busy)).layer(layer().0);
        let mut requests = JoinSet::new();
        for number in 0..1_000_u32 {
            let lane = ["PROD", "GRAY", "blue"][(number % 3) as usize];
            let mut headers = vec![("gray", lane)];
            if number % 10 == 0 {
                headers.push(("panic", "1"));
            }
            let answer = router.clone().oneshot(request(&headers));
            requests.spawn(async move {
                let body = answer.await.unwrap().into_body().collect().await.unwrap();
                (lane, body.to_bytes())
            });
        }
        let mut panicked = 0;
        while let Some(done) = requests.join_next().await {
            match done {
                Ok((lane, body)) => assert_eq!(body, lane),
                Err(error) => {
                    assert!(error.is_panic());
                    panicked += 1;
                }
            }
        }
        assert_eq!(panicked, 100);
        // Nothing is left on the workers either.
        let mut after = JoinSet::new();
        for _ in 0..100 {
            after.spawn(async { (std::thread::current().id(), current_status()) });
            after.spawn_blocking(|| (std::thread::current().id(), current_status()));
        }
        let mut threads = std::collections::HashSet::new();
        while let Some(seen) = after.join_next().await {
            let (thread, status) = seen.unwrap();
            assert_eq!(status, None);
            threads.insert(thread);
        }
        assert!(threads.len() > 2, "only {} threads were looked at", threads.len());
    }

    /// Whatever becomes of a request, nothing of its lane stays with the task that served it.
    #[tokio::test]
    async fn nothing_is_left_after_an_error_or_a_request_that_is_dropped() {
        let failing = tower::service_fn(async |_: Request<Body>| {
            assert_eq!(seen(), "blue");
            Err::<Response<Body>, _>("on purpose")
        });
        let gray = layer().0;
        let failed = gray.layer(failing).oneshot(request(&[("gray", "blue")])).await;
        assert_eq!((failed.unwrap_err(), current_status()), ("on purpose", None));

        let waiting = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let mut serving = Box::pin(gray.layer(waiting).oneshot(request(&[("gray", "blue")])));
        assert!(futures_util::poll!(serving.as_mut()).is_pending());
        assert_eq!(current_status(), None);
        drop(serving);
        assert_eq!(current_status(), None);

        let streaming = tower::service_fn(async |_: Request<Body>| {
            let forever = stream::pending::<Result<String, Infallible>>();
            Ok::<_, Infallible>(Response::new(Body::from_stream(forever)))
        });
        let answer = gray.layer(streaming).oneshot(request(&[("gray", "blue")])).await.unwrap();
        let mut body = Box::pin(answer.into_body().collect());
        assert!(futures_util::poll!(body.as_mut()).is_pending());
        drop(body);
        assert_eq!(current_status(), None);
    }

    #[tokio::test]
    async fn an_answer_is_streamed_in_the_lane_of_its_request() {
        let stream = get(async || {
            let ticks = stream::unfold(0, async |tick| {
                tokio::time::sleep(Duration::from_millis(1)).await;
                (tick < 3).then(|| (Ok::<_, Infallible>(format!("{} ", seen())), tick + 1))
            });
            Body::from_stream(ticks.boxed())
        });
        let router = Router::new().route("/", stream).layer(layer().0);
        let answer = router.oneshot(request(&[("gray", "blue")])).await.unwrap();
        // It is read by another task than the one that answered.
        let body = tokio::spawn(answer.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.to_bytes(), "blue blue blue ");
    }

    fn blue() -> GrayStatus {
        GrayStatus::Gray("blue".parse().unwrap())
    }

    #[track_caller]
    fn counted(edges: &Edges, from: &str, lane: GrayStatus) -> EdgeCounts {
        let edge = Edge { from: from.into(), to: "b".into(), lane };
        edges.counts().get(&edge).copied().unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_in_the_wrong_lane_is_counted_with_whom_it_came_from() {
        let (layer, edges) = layer();
        let router = Router::new().route("/", get(async || seen())).layer(layer);
        let ask = async |headers: &[(&'static str, &str)]| {
            let answer = router.clone().oneshot(request(headers)).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        assert_eq!(ask(&[("gray", "GRAY"), ("x-graylane-hop", "from=a; to=b")]).await, "GRAY");
        assert_eq!(ask(&[("gray", "ALL")]).await, "ALL");
        assert!(edges.counts().is_empty());
        // Another lane's request, by its caller's fallback: that is the caller's to count.
        let hop = ("x-graylane-hop", "from=a; to=b; fallback=base");
        assert_eq!(ask(&[("gray", "blue"), hop]).await, "blue");
        assert!(edges.counts().is_empty());

        ask(&[("gray", "PROD"), ("x-graylane-hop", "from=a; to=b")]).await;
        assert_eq!(counted(&edges, "a", GrayStatus::Prod).escapes, 1);
        // The caller itself forgot the tag, or somebody between, who was meant by the caller.
        assert_eq!(ask(&[("x-graylane-hop", "from=a; to=b")]).await, "GRAY");
        ask(&[("x-graylane-hop", "from=a; to=x"), ("gray", "Gray")]).await;
        ask(&[]).await;
        for from in ["a", "x", "unknown"] {
            assert_eq!(counted(&edges, from, GRAY).untagged, 1, "{from}");
        }
        // `x` was called in gray, and wrote base onto what it passed on, which may then be where it belongs.
        for (gray, lane) in [("PROD", GRAY), ("GRAY", blue())] {
            let hop = format!("from=a; to=x; lane={lane}");
            ask(&[("gray", gray), ("x-graylane-hop", &hop)]).await;
            assert_eq!(counted(&edges, "x", lane).escapes, 1, "{lane}");
        }
        // What was said to `x` explains nothing here: `x` passed it on, to an instance of its choice.
        ask(&[("gray", "blue"), ("x-graylane-hop", "from=a; to=x; fallback=base")]).await;
        assert_eq!(counted(&edges, "x", blue()).escapes, 2);
    }

    /// An orchestrator lost no tag; whoever calls in somebody's name did.
    #[tokio::test]
    async fn probes_of_health_are_not_counted() {
        let (layer, edges) = layer();
        let router = Router::new().fallback(async || seen()).layer(layer);
        let ask = async |path: &str, headers: &[(&'static str, &str)]| {
            let mut request = request(headers);
            *request.uri_mut() = path.parse().unwrap();
            router.clone().oneshot(request).await.unwrap();
        };
        for path in ["/metrics", "/healthz?full", "/actuator/health/liveness"] {
            ask(path, &[]).await;
        }
        assert!(edges.counts().is_empty(), "{:?}", edges.counts());
        ask("/metricsandmore", &[]).await;
        ask("/metrics", &[("x-graylane-hop", "from=a; to=b")]).await;
        for from in ["unknown", "a"] {
            assert_eq!(counted(&edges, from, GRAY).untagged, 1, "{from}");
        }
    }

    #[test]
    fn a_report_says_who_is_to_blame() {
        let incoming = layer().0.0;
        let expires = SystemTime::now() + Duration::from_mins(1);
        let tag = SignedTag { status: GRAY, expires, probe: true };
        let tag = TagKey::new("k", SECRET).unwrap().sign(&tag).unwrap();
        let report = |gray: Option<&'static str>, hop: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(TAG_HEADER, tag.clone());
            headers.insert("x-graylane-hop", HeaderValue::from_static(hop));
            headers.extend(gray.map(|gray| {
                (http::HeaderName::from_static("gray"), HeaderValue::from_static(gray))
            }));
            let hop = incoming.read("/", &headers).1.unwrap();
            (hop.escaped, hop.fallback, hop.lost_by)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(report(Some("GRAY"), "from=a; to=b"), (false, None, None));
        assert_eq!(report(Some("PROD"), "from=a; to=b"), (true, None, None));
        let fallback = report(Some("blue"), "from=a; to=b; fallback=base");
        assert_eq!(fallback, (false, text("base"), None));
        assert_eq!(report(Some("blue"), "from=a; to=x; fallback=base"), (true, None, None));
        assert_eq!(report(None, "from=a; to=x"), (false, None, text("x")));
        assert_eq!(report(None, "from=a; to=b"), (false, None, text("a")));
        assert_eq!(report(Some("GRAY"), "from=a; to=x; lane=PROD"), (false, None, text("x")));
        assert_eq!(report(Some("GRAY"), "from=a; to=x; lane=GRAY"), (false, None, None));
    }

    #[tokio::test]
    async fn only_who_has_a_key_gets_a_report() {
        let (layer, _) = layer();
        let handler = get(async || {
            let child = Hop { service: "c".to_owned(), ..Hop::default() };
            if let Some(probe) = gray_propagation::current().unwrap().probe.as_ref() {
                probe.add(child);
            }
        });
        let router = Router::new().route("/", handler).layer(layer);
        let report = async |secret: &[u8]| {
            let expires = SystemTime::now() + Duration::from_mins(1);
            let tag = SignedTag { status: GRAY, expires, probe: true };
            let tag = TagKey::new("k", secret).unwrap().sign(&tag).unwrap();
            let headers = [("gray", "GRAY"), ("x-graylane-tag", tag.to_str().unwrap())];
            let answer = router.clone().oneshot(request(&headers)).await.unwrap();
            answer.headers().get(PATH_HEADER).and_then(Hop::from_header)
        };
        let hop = report(SECRET).await.unwrap();
        assert_eq!((hop.service.as_str(), hop.version.as_deref()), ("b", Some("V2")));
        assert_eq!(hop.calls[0].service, "c");
        assert_eq!(report(b"another secret of thirty-two bytes").await, None);
    }
}
