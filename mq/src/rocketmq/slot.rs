//! One connection to a server, made again when it has broken.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::time::Instant;

use super::RocketMqError;

/// How long a server is left alone after a connection to it was made, or was to be made: one that breaks
/// at once is as bad as none.
const REST: Duration = Duration::from_secs(1);

/// A connection, and which one it is.
type Numbered<T> = (u64, Arc<T>);

/// Why there is no connection, for all who have waited for it.
#[derive(Clone, Debug)]
struct Failure {
    address: String,
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    fn of(error: RocketMqError) -> Self {
        match error {
            RocketMqError::Connect { address, source } => {
                Self { address, kind: source.kind(), text: source.to_string() }
            }
            other => {
                Self { address: String::new(), kind: io::ErrorKind::Other, text: other.to_string() }
            }
        }
    }

    fn error(&self) -> RocketMqError {
        let source = io::Error::new(self.kind, self.text.clone());
        RocketMqError::Connect { address: self.address.clone(), source }
    }
}

type Making<T> = Shared<BoxFuture<'static, Result<Numbered<T>, Failure>>>;

/// Holds the newest connection. One is made at a time, by a task of its own, which nobody who waits for it
/// can hold up or cut short.
#[derive(Debug)]
pub(super) struct Slot<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    newest: Option<Numbered<T>>,
    number: u64,
    making: Option<Making<T>>,
    /// When the last attempt ended, and how where it failed.
    tried: Option<(Instant, Option<Failure>)>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let state = State { newest: None, number: 0, making: None, tried: None };
        Self(Arc::new(Mutex::new(state)))
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + Sync + 'static> Slot<T> {
    /// Returns the connection if it can be used, or one that is made now.
    ///
    /// # Errors
    ///
    /// Where none can be made, or the last was made less than a second ago; `address` is who is resting.
    pub(super) async fn get(
        &self,
        address: &str,
        is_usable: impl Fn(&T) -> bool,
        connect: impl FnOnce() -> BoxFuture<'static, Result<T, RocketMqError>>,
    ) -> Result<Numbered<T>, RocketMqError> {
        let making = {
            let mut state = lock(&self.0);
            if let Some(newest) = state.newest.as_ref().filter(|(_, newest)| is_usable(newest)) {
                return Ok(newest.clone());
            }
            match (&state.making, &state.tried) {
                (Some(making), _) => making.clone(),
                (None, Some((tried, failure))) if tried.elapsed() < REST => {
                    let broken = || RocketMqError::Broken { address: address.to_owned() };
                    return Err(failure.as_ref().map_or_else(broken, Failure::error));
                }
                (None, _) => {
                    let making = self.start(connect());
                    state.making = Some(making.clone());
                    making
                }
            }
        };
        making.await.map_err(|failure| failure.error())
    }

    fn start(&self, connect: BoxFuture<'static, Result<T, RocketMqError>>) -> Making<T> {
        let state = Arc::clone(&self.0);
        let made = tokio::spawn(async move {
            let made = connect.await.map_err(Failure::of);
            let mut state = lock(&state);
            state.making = None;
            state.tried = Some((Instant::now(), made.as_ref().err().cloned()));
            let made = made.map(Arc::new)?;
            state.number += 1;
            let newest = (state.number, made);
            state.newest = Some(newest.clone());
            drop(state);
            Ok(newest)
        });
        // It neither panics nor is it aborted, but with its runtime.
        let ended = |_| {
            let (address, text) = (String::new(), "the runtime has ended".to_owned());
            Err(Failure { address, kind: io::ErrorKind::Other, text })
        };
        made.map(move |made| made.unwrap_or_else(ended)).boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SLOW: Duration = Duration::from_secs(3);

    struct Case {
        slot: Slot<usize>,
        made: Arc<AtomicUsize>,
    }

    impl Case {
        fn new() -> Self {
            Self { slot: Slot::default(), made: Arc::default() }
        }

        /// Makes a connection in three seconds, or fails to.
        async fn get(&self, good: bool, usable: bool) -> Result<u64, RocketMqError> {
            let made = Arc::clone(&self.made);
            let connect = || {
                async move {
                    tokio::time::sleep(SLOW).await;
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    let refused = || RocketMqError::Connect {
                        address: "b:1".to_owned(),
                        source: io::ErrorKind::ConnectionRefused.into(),
                    };
                    good.then_some(number).ok_or_else(refused)
                }
                .boxed()
            };
            self.slot.get("b:1", |_| usable, connect).await.map(|(number, _)| number)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_one_attempt() {
        let case = Case::new();
        let began = Instant::now();
        let (one, other) = tokio::join!(case.get(false, true), case.get(false, true));
        assert_eq!(one.unwrap_err().to_string(), "b:1 cannot be reached");
        assert!(matches!(other, Err(RocketMqError::Connect { .. })));
        assert_eq!((began.elapsed(), case.made.load(Ordering::Relaxed)), (SLOW, 1));
        // Whoever comes now is told at once.
        assert!(case.get(true, true).await.is_err());
        assert_eq!(began.elapsed(), SLOW);
        tokio::time::sleep(REST).await;
        assert_eq!(case.get(true, true).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_waiting_does_not_end_the_attempt() {
        let case = Case::new();
        let impatient = tokio::time::timeout(SLOW / 3, case.get(true, true)).await;
        assert!(impatient.is_err());
        assert_eq!(case.get(true, true).await.unwrap(), 1);
        assert_eq!(case.made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_at_once_is_not_made_again_at_once() {
        let case = Case::new();
        case.get(true, true).await.unwrap();
        let error = case.get(true, false).await.unwrap_err();
        assert!(matches!(error, RocketMqError::Broken { .. }), "{error:?}");
        tokio::time::sleep(REST).await;
        assert_eq!(case.get(true, false).await.unwrap(), 2);
    }
}
