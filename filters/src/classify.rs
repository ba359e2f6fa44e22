use std::sync::Arc;
use std::task::{Context, Poll};

use gray_config::Live;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Head, RuleSet, Verdict};

/// Applies [`Classify`].
#[derive(Debug)]
pub struct ClassifyLayer<R> {
    revision: Live<R>,
}

impl<R: AsRef<RuleSet>> ClassifyLayer<R> {
    /// Classifies by the revision that is live when a request arrives.
    pub const fn new(revision: Live<R>) -> Self {
        Self { revision }
    }
}

impl<S, R> Layer<S> for ClassifyLayer<R> {
    type Service = Classify<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Classify { revision: self.revision.clone(), inner }
    }
}

/// What a request carries from its classification to its end: the verdict, and the one revision it
/// was decided by.
#[derive(Debug)]
pub struct Classified<R> {
    /// What was decided.
    pub verdict: Verdict,
    /// The revision, to be used for everything that follows.
    pub revision: Arc<R>,
}

impl<R> Clone for Classified<R> {
    fn clone(&self) -> Self {
        Self { verdict: self.verdict, revision: Arc::clone(&self.revision) }
    }
}

/// What is classified: a request, however it is kept.
pub trait Subject<R> {
    /// Returns what rules may look at.
    fn head(&self) -> Head<'_>;

    /// Takes note of what was decided.
    fn decided(&mut self, classified: Classified<R>);
}

impl<R, T: Subject<R>> Subject<R> for &mut T {
    fn head(&self) -> Head<'_> {
        T::head(self)
    }

    fn decided(&mut self, classified: Classified<R>) {
        T::decided(self, classified);
    }
}

/// Attaches a [`Classified`] to each request.
///
/// It loads the revision once; nothing that happens to the request later looks at another one.
#[derive(Debug)]
pub struct Classify<S, R> {
    revision: Live<R>,
    inner: S,
}

impl<S: Clone, R> Clone for Classify<S, R> {
    fn clone(&self) -> Self {
        Self { revision: self.revision.clone(), inner: self.inner.clone() }
    }
}

impl<S, R, T> Service<T> for Classify<S, R>
where
    S: Service<T>,
    R: AsRef<RuleSet> + Send + Sync + 'static,
    T: Subject<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: T) -> Self::Future {
        let revision = self.revision.load();
        let rules: &RuleSet = (*revision).as_ref();
        let verdict = rules.classify(&request.head());
        request.decided(Classified { verdict, revision });
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use gray_propagation::GrayStatus;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::Senses;

    impl AsRef<Self> for RuleSet {
        fn as_ref(&self) -> &Self {
            self
        }
    }

    #[derive(Default)]
    struct Asked {
        method: http::Method,
        headers: http::HeaderMap,
        classified: Option<Classified<RuleSet>>,
    }

    impl Subject<RuleSet> for Asked {
        fn head(&self) -> Head<'_> {
            let client = std::net::Ipv4Addr::LOCALHOST.into();
            let (method, headers) = (&self.method, &self.headers);
            Head { method, path: "/", query: None, target_host: None, headers, client }
        }

        fn decided(&mut self, classified: Classified<RuleSet>) {
            self.classified = Some(classified);
        }
    }

    #[tokio::test]
    async fn a_request_keeps_the_revision_it_was_decided_by() {
        let (publisher, rules) = gray_config::live(RuleSet::off());
        let seen = service_fn(async |asked: Asked| Ok::<_, Infallible>(asked.classified.unwrap()));
        let layer = ClassifyLayer::new(rules);

        let classified = layer.layer(seen).oneshot(Asked::default()).await.unwrap();
        publisher.publish(RuleSet::new(Vec::new(), gray_config::live(Senses::default()).1));

        assert_eq!(classified.verdict.status, GrayStatus::All);
        assert!(!classified.revision.is_on());
    }
}
