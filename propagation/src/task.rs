//! How a context stays with the task that serves a request, and with what that task starts.
//!
//! A context is there from the first poll of a scope to its last, and gone with it, whether it ends
//! well, with an error, by a panic or by being dropped. What runs beside the task takes the context
//! along: [`spawn`] and [`spawn_blocking`] do, [`in_current`] makes any future, stream or body do, and
//! [`Carried`] takes it through a channel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::{Context, GrayStatus};

tokio::task_local! {
    static CURRENT: Arc<Context>;
}

/// Returns the context of the request that is being served, if one is.
pub fn current() -> Option<Arc<Context>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Returns the status of the request that is being served, if one is.
pub fn current_status() -> Option<GrayStatus> {
    CURRENT.try_with(|context| context.status).ok()
}

/// Runs a future in a context.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use gray_propagation::{Context, GrayStatus, Lane, current_status, scope};
///
/// let gray = GrayStatus::Gray(Lane::GRAY);
/// scope(Context::of(gray), async { assert_eq!(current_status(), Some(gray)) }).await;
/// assert_eq!(current_status(), None);
/// # });
/// ```
pub fn scope<F: Future>(
    context: impl Into<Arc<Context>>,
    future: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(context.into(), future)
}

/// Runs a function in a context.
pub fn sync_scope<R>(context: impl Into<Arc<Context>>, function: impl FnOnce() -> R) -> R {
    CURRENT.sync_scope(context.into(), function)
}

/// Makes a future, stream or body keep the context of here and now, wherever it is polled.
///
/// For `JoinSet::spawn`, `select`, streams that an answer is made of, and whatever else is polled
/// somewhere else.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use gray_propagation::{Context, GrayStatus, Lane, current_status, in_current, scope};
/// use tokio::task::JoinSet;
///
/// let gray = GrayStatus::Gray(Lane::GRAY);
/// scope(Context::of(gray), async {
///     let mut set = JoinSet::new();
///     set.spawn(in_current(async { current_status() }));
///     assert_eq!(set.join_next().await.unwrap().unwrap(), Some(gray));
/// })
/// .await;
/// # });
/// ```
pub fn in_current<T>(inner: T) -> InContext<T> {
    InContext { inner: Some(inner), context: current() }
}

/// Spawns a future that keeps the context of here and now; `tokio::spawn` would lose it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use gray_propagation::{Context, GrayStatus, Lane, current_status, scope, spawn};
///
/// let gray = GrayStatus::Gray(Lane::GRAY);
/// scope(Context::of(gray), async {
///     assert_eq!(spawn(async { current_status() }).await.unwrap(), Some(gray));
///     assert_eq!(tokio::spawn(async { current_status() }).await.unwrap(), None);
/// })
/// .await;
/// # });
/// ```
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(in_current(future))
}

/// Runs a function that blocks, in the context of here and now.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use gray_propagation::{Context, GrayStatus, Lane, current_status, scope, spawn_blocking};
///
/// let gray = GrayStatus::Gray(Lane::GRAY);
/// scope(Context::of(gray), async {
///     assert_eq!(spawn_blocking(current_status).await.unwrap(), Some(gray));
/// })
/// .await;
/// # });
/// ```
pub fn spawn_blocking<F, R>(function: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let context = current();
    tokio::task::spawn_blocking(move || match context {
        Some(context) => sync_scope(context, function),
        None => function(),
    })
}

pin_project! {
    /// Something that is polled in a context; made by [`in_current`].
    #[derive(Clone, Debug)]
    pub struct InContext<T> {
        // Always there, until it is dropped.
        #[pin]
        inner: Option<T>,
        context: Option<Arc<Context>>,
    }

    impl<T> PinnedDrop for InContext<T> {
        // What is dropped half-way may start something that puts things right: in its own lane.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(context) = this.context.take() {
                sync_scope(context, || this.inner.set(None));
            }
        }
    }
}

impl<T> InContext<T> {
    /// Makes something be polled in this context.
    pub fn new(context: impl Into<Arc<Context>>, inner: T) -> Self {
        Self { inner: Some(inner), context: Some(context.into()) }
    }

    fn poll_in<R>(self: Pin<&mut Self>, poll: impl FnOnce(Pin<&mut T>) -> Poll<R>) -> Poll<R> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Pending };
        match this.context {
            Some(context) => sync_scope(Arc::clone(context), || poll(inner)),
            None => poll(inner),
        }
    }
}

impl<T: Future> Future for InContext<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<T::Output> {
        self.poll_in(|inner| inner.poll(cx))
    }
}

impl<T: Stream> Stream for InContext<T> {
    type Item = T::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<T::Item>> {
        self.poll_in(|inner| inner.poll_next(cx))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, None), Stream::size_hint)
    }
}

impl<T: Body> Body for InContext<T> {
    type Data = T::Data;
    type Error = T::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<T::Data>, T::Error>>> {
        self.poll_in(|inner| inner.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// A value that takes the context along, for channels: the receiver handles it in the context of
/// the sender.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use gray_propagation::{Carried, Context, GrayStatus, Lane, current_status, scope};
///
/// let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
/// let gray = GrayStatus::Gray(Lane::GRAY);
/// scope(Context::of(gray), async { sender.send(Carried::new("order 1")).await.unwrap() }).await;
/// let order = receiver.recv().await.unwrap();
/// order.handle(async |order| assert_eq!((order, current_status()), ("order 1", Some(gray)))).await;
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Carried<T> {
    value: T,
    context: Option<Arc<Context>>,
}

impl<T> Carried<T> {
    /// Takes the context of here and now along.
    pub fn new(value: T) -> Self {
        Self { value, context: current() }
    }

    /// Handles the value in the context that it came with.
    pub fn handle<F: Future>(self, handle: impl FnOnce(T) -> F) -> InContext<F> {
        let future = match &self.context {
            Some(context) => sync_scope(Arc::clone(context), || handle(self.value)),
            None => handle(self.value),
        };
        InContext { inner: Some(future), context: self.context }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use futures_util::StreamExt;
    use tokio::task::JoinSet;

    use super::*;
    use crate::{Lane, MessageCarrier};

    const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

    fn gray() -> Context {
        Context::of(GRAY)
    }

    #[tokio::test]
    async fn what_a_task_starts_keeps_its_lane() {
        scope(gray(), async {
            assert_eq!(spawn(async { current_status() }).await.unwrap(), Some(GRAY));
            assert_eq!(spawn_blocking(current_status).await.unwrap(), Some(GRAY));
            let mut set = JoinSet::new();
            set.spawn(in_current(async { current_status() }));
            assert_eq!(set.join_next().await.unwrap().unwrap(), Some(GRAY));
            let stream = in_current(futures_util::stream::iter([1, 2]).map(|_| current_status()));
            let seen = tokio::spawn(stream.collect::<Vec<_>>()).await.unwrap();
            assert_eq!(seen, [Some(GRAY), Some(GRAY)]);
        })
        .await;
        assert_eq!(current_status(), None);
    }

    /// Notes the lane in which it is dropped.
    struct Guard(std::sync::mpsc::Sender<Option<GrayStatus>>);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(current_status());
        }
    }

    #[tokio::test]
    async fn what_is_given_up_half_way_is_dropped_in_its_lane() {
        let (send, receive) = std::sync::mpsc::channel();
        let guard = Guard(send);
        let endless = InContext::new(gray(), async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), endless).await.is_err());
        assert_eq!(receive.recv().unwrap(), Some(GRAY));
        assert_eq!(current_status(), None);
    }

    #[tokio::test]
    async fn a_channel_carries_it_one_value_at_a_time() {
        let (send, mut receive) = tokio::sync::mpsc::channel(4);
        let receiver = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(carried) = receive.recv().await {
                let carried: Carried<u8> = carried;
                seen.push(carried.handle(async |_| current_status()).await);
                assert_eq!(current_status(), None);
            }
            seen
        });
        for status in [GRAY, GrayStatus::Prod] {
            scope(Context::of(status), async {
                send.send(Carried::new(1)).await.unwrap();
            })
            .await;
        }
        send.send(Carried::new(1)).await.unwrap();
        drop(send);
        assert_eq!(receiver.await.unwrap(), [Some(GRAY), Some(GrayStatus::Prod), None]);
    }

    #[tokio::test]
    async fn nothing_stays_behind_after_an_error_a_panic_or_a_drop() {
        let failed: Result<(), ()> = scope(gray(), async { Err(()) }).await;
        assert_eq!((failed, current_status()), (Err(()), None));

        let panicking = scope(gray(), async {
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panicking));
        assert!(caught.await.is_err());
        assert_eq!(current_status(), None);

        let endless = scope(gray(), std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(1), endless).await.is_err());
        assert_eq!(current_status(), None);
        assert_eq!(tokio::task::spawn_blocking(current_status).await.unwrap(), None);
    }

    async fn stays_in(status: GrayStatus) {
        for _ in 0..10 {
            assert_eq!(current_status(), Some(status));
            tokio::task::yield_now().await;
        }
        assert_eq!(spawn_blocking(current_status).await.unwrap(), Some(status));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_interleaved_tasks_see_only_their_own_lane() {
        let mut tasks = JoinSet::new();
        for number in 0..1_000_u32 {
            let lane: Lane = format!("lane-{number}").parse().unwrap();
            let status = GrayStatus::Gray(lane);
            tasks.spawn(scope(Context::of(status), async move {
                stays_in(status).await;
                scope(gray(), stays_in(GRAY)).await;
                stays_in(status).await;
                assert!(number % 10 != 0, "on purpose");
            }));
        }
        let (mut fine, mut panicked) = (0, 0);
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(()) => fine += 1,
                Err(error) => {
                    let panic = error.into_panic();
                    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
                    panicked += 1;
                }
            }
        }
        assert_eq!((fine, panicked), (900, 100));
        assert_eq!(current_status(), None);
    }

    /// Whether a message has a lane, and which, says only what it was produced in.
    async fn handle(number: usize) -> Result<(), ()> {
        let lane = match number % 3 {
            0 => None,
            1 => Some("GRAY".to_owned()),
            _ => Some(format!("lane-{}", number % 97)),
        };
        let expected = match &lane {
            None => GrayStatus::Prod,
            Some(lane) => GrayStatus::Gray(lane.to_lowercase().parse().unwrap()),
        };
        let properties: BTreeMap<_, _> =
            lane.map(|lane| ("gray".to_owned(), lane)).into_iter().collect();
        let handled = scope(MessageCarrier::default().extract(&properties), async {
            for _ in 0..=number % 4 {
                assert_eq!(current_status(), Some(expected));
                tokio::task::yield_now().await;
            }
            assert_eq!(current_status(), Some(expected));
            match number % 10 {
                7 => std::future::pending().await,
                8 => Err(()),
                9 if number % 1_000 == 999 => panic!("on purpose"),
                _ => Ok(()),
            }
        });
        let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(handled));
        let mut caught = std::pin::pin!(caught);
        // Some are given up half way.
        let polls = async {
            for _ in 0..8 {
                if let Poll::Ready(caught) = futures_util::poll!(caught.as_mut()) {
                    return caught.unwrap_or(Err(()));
                }
                assert_eq!(current_status(), None);
                tokio::task::yield_now().await;
            }
            Err(())
        };
        polls.await
    }

    /// Invariant M3: on one worker, and even in one task, no message has the lane of the one before, or of
    /// one beside it.
    #[tokio::test]
    async fn a_hundred_thousand_messages_on_one_worker_keep_their_lanes() {
        let mut handled = futures_util::stream::iter(0..100_000).map(handle).buffer_unordered(64);
        let (mut fine, mut failed) = (0, 0);
        while let Some(result) = handled.next().await {
            assert_eq!(current_status(), None);
            *(if result.is_ok() { &mut fine } else { &mut failed }) += 1;
        }
        assert_eq!((fine, failed), (79_900, 20_100));
    }
}
