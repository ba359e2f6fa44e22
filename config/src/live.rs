use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

/// Splits a value into its one writer and any number of readers.
///
/// ```
/// let (publisher, rules) = gray_config::live(1);
/// publisher.publish(2);
/// assert_eq!(*rules.load(), 2);
/// ```
pub fn live<T>(initial: T) -> (Publisher<T>, Live<T>) {
    let value = Arc::new(ArcSwap::from_pointee(initial));
    (Publisher(Arc::clone(&value)), Live(value))
}

/// Reads a value that is replaced as a whole.
#[derive(Debug)]
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// Returns the current value, which stays the same for as long as it is held.
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Borrows the current value for a moment, without touching its reference count.
    ///
    /// Not to be held across an `.await`: the number of such borrows per thread is limited.
    pub fn peek(&self) -> Guard<Arc<T>> {
        self.0.load()
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Replaces the value that its [`Live`] readers see.
///
/// It cannot be cloned: two writers would overwrite each other's work.
#[derive(Debug)]
pub struct Publisher<T>(Arc<ArcSwap<T>>);

impl<T> Publisher<T> {
    /// Replaces the value.
    pub fn publish(&self, value: T) {
        self.0.store(Arc::new(value));
    }

    /// Returns the value that readers see now.
    pub fn current(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Makes one more reader.
    pub fn reader(&self) -> Live<T> {
        Live(Arc::clone(&self.0))
    }
}
