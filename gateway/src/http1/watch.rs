use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// A timer that is set anew far oftener than it ends: what it costs to set is paid when it ends, or is to
/// end earlier than before.
#[derive(Debug, Default)]
pub(crate) struct Watch(Option<Pin<Box<Sleep>>>);

impl Watch {
    /// Ends at a moment, which may be another one each time.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_at_the_moment_that_was_named_last() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let mut at = async |seconds| {
            let until = start + Duration::from_secs(seconds);
            poll_fn(|cx| watch.poll_until(cx, until)).await;
            start.elapsed().as_secs()
        };
        assert_eq!(at(5).await, 5);
        // It has ended before, and is set to a later moment, then to an earlier one.
        assert_eq!(at(20).await, 20);
        assert_eq!(at(10).await, 20);
        let mut watch = Watch::default();
        let far = Instant::now() + Duration::from_secs(100);
        let pending = poll_fn(|cx| watch.poll_until(cx, far));
        assert!(tokio::time::timeout(Duration::from_secs(1), pending).await.is_err());
        let soon = Instant::now() + Duration::from_secs(1);
        poll_fn(|cx| watch.poll_until(cx, soon)).await;
        assert_eq!(Instant::now(), soon);
    }
}
