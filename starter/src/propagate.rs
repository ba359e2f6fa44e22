use std::task::{Context as TaskContext, Poll};

use gray_propagation::{Carriers, Context, HOP_HEADER, HopTag, current};
use http::{HeaderValue, Request};
use tower_layer::Layer;
use tower_service::Service;

use crate::lanes::OwnLane;

/// Writes the lane of the request that is being served onto calls that go where they are told to,
/// for any HTTP client that speaks tower.
///
/// Outside of any request it writes the copy's own lane, where it was made by a
/// [`Starter`](crate::Starter::propagate), and nothing otherwise.
///
/// Neither a signed tag nor baggage leaves with it, since the call may go anywhere. Where the instance
/// is to be picked by its lane too, use `GrayClient` or `GrayChannel`.
///
/// ```
/// use gray_starter::{Carriers, Context, GrayStatus, Lane, PropagateLayer, scope};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // Whatever sends requests: hyper-util's client, for example.
/// let client = service_fn(async |request: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(request.headers()["gray"].clone()))
/// });
/// let client = ServiceBuilder::new().layer(PropagateLayer::new(Carriers::default())).service(client);
/// let call = client.oneshot(Request::new(()));
/// let told = scope(Context::of(GrayStatus::Gray(Lane::GRAY)), call).await.unwrap();
/// assert_eq!(told.body(), "GRAY");
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PropagateLayer {
    carriers: Carriers,
    hop: Option<HeaderValue>,
    own: Option<OwnLane>,
}

impl PropagateLayer {
    /// Writes these carriers.
    pub const fn new(carriers: Carriers) -> Self {
        Self { carriers, hop: None, own: None }
    }

    /// Says whom calls are from, so that a service which they come to in the wrong lane can name it.
    #[must_use]
    pub fn from_service(self, service: &str) -> Self {
        let hop = HopTag { from: service.to_owned(), ..HopTag::default() };
        Self { hop: hop.to_header(), ..self }
    }

    /// Writes this copy's own lane on calls outside of any request.
    pub(crate) fn with_own(self, own: OwnLane) -> Self {
        Self { own: Some(own), ..self }
    }
}

/// The client that [`PropagateLayer`] makes.
#[derive(Clone, Debug)]
pub struct Propagate<S> {
    inner: S,
    layer: PropagateLayer,
}

impl<S> Layer<S> for PropagateLayer {
    type Service = Propagate<S>;

    fn layer(&self, inner: S) -> Propagate<S> {
        Propagate { inner, layer: self.clone() }
    }
}

impl<S, B> Service<Request<B>> for Propagate<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let PropagateLayer { carriers, hop, own } = &self.layer;
        // A job that runs outside of any request is one of this copy's own lane.
        let own = || {
            let own = own.as_ref().filter(|own| own.is_known());
            own.map(|own| Context::of(own.status()).into())
        };
        if let Some(context) = current().or_else(own) {
            // Nobody knows where the call goes.
            carriers.write(&context.for_strangers(), request.headers_mut());
            match hop {
                Some(hop) => request.headers_mut().insert(HOP_HEADER, hop.clone()),
                // What was said of the hop before is not true of this one.
                None => request.headers_mut().remove(HOP_HEADER),
            };
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use gray_propagation::{GrayStatus, Lane, scope};
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_call_carries_the_lane_of_the_request_that_is_served() {
        let echo = service_fn(async |request: Request<()>| {
            let gray = request.headers().get("gray").cloned();
            Ok::<_, std::convert::Infallible>(gray)
        });
        let client = PropagateLayer::default().layer(echo);
        let outside = client.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(outside, None);
        let properties = crate::StarterProperties {
            service: "a".to_owned(),
            lane: Some("gray".to_owned()),
            base: Some("V1".to_owned()),
            registry: Some("/none.yaml".into()),
            ..crate::StarterProperties::default()
        };
        let job = crate::Starter::start(properties).unwrap().propagate().layer(echo);
        assert_eq!(job.oneshot(Request::new(())).await.unwrap().unwrap(), "GRAY");
        let gray = Context::of(GrayStatus::Gray(Lane::GRAY));
        let inside = scope(gray, client.oneshot(Request::new(()))).await.unwrap();
        assert_eq!(inside.unwrap(), "GRAY");
    }

    #[tokio::test]
    async fn a_call_says_whom_it_is_from_and_not_what_was_said_before() {
        let echo = service_fn(async |request: Request<()>| {
            Ok::<_, std::convert::Infallible>(HopTag::extract(request.headers()))
        });
        let gray = || Context::of(GrayStatus::Gray(Lane::GRAY));
        let ask = async |layer: PropagateLayer| {
            let mut request = Request::new(());
            let stale = "from=z; to=y; fallback=base";
            request.headers_mut().insert(HOP_HEADER, HeaderValue::from_static(stale));
            scope(gray(), layer.layer(echo).oneshot(request)).await.unwrap()
        };
        assert_eq!(ask(PropagateLayer::default()).await, None);
        let hop = ask(PropagateLayer::default().from_service("a")).await.unwrap();
        assert_eq!((hop.from.as_str(), hop.to.as_str(), hop.fallback), ("a", "", None));
    }
}
