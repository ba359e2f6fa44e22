use std::task::{Context as TaskContext, Poll};

use gray_propagation::{Carriers, Context, current};
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

/// Writes the lane of the request that is being served onto calls that go where they are told to,
/// for any HTTP client that speaks tower.
///
/// Neither a signed tag nor baggage leaves with it, since the call may go anywhere. Where the instance
/// is to be picked by its lane too, use `GrayClient` or `GrayChannel`.
#[derive(Clone, Debug, Default)]
pub struct PropagateLayer {
    carriers: Carriers,
}

impl PropagateLayer {
    /// Writes these carriers.
    pub const fn new(carriers: Carriers) -> Self {
        Self { carriers }
    }
}

/// The client that [`PropagateLayer`] makes.
#[derive(Clone, Debug)]
pub struct Propagate<S> {
    inner: S,
    carriers: Carriers,
}

impl<S> Layer<S> for PropagateLayer {
    type Service = Propagate<S>;

    fn layer(&self, inner: S) -> Propagate<S> {
        Propagate { inner, carriers: self.carriers.clone() }
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
        if let Some(context) = current() {
            // Nobody knows where the call goes: what is meant for our own services stays here.
            let lane = Context { baggage: None, probe: None, ..Context::clone(&context) };
            self.carriers.write(&lane, request.headers_mut());
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
        let gray = Context::of(GrayStatus::Gray(Lane::GRAY));
        let inside = scope(gray, client.oneshot(Request::new(()))).await.unwrap();
        assert_eq!(inside.unwrap(), "GRAY");
    }
}
