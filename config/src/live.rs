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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// A value whose parts agree for as long as it lives.
    struct Set {
        numbers: [usize; 64],
        freed: AtomicBool,
        alive: Arc<AtomicUsize>,
    }

    impl Set {
        fn new(number: usize, alive: &Arc<AtomicUsize>) -> Self {
            alive.fetch_add(1, Ordering::Relaxed);
            let freed = AtomicBool::new(false);
            Self { numbers: [number; 64], freed, alive: Arc::clone(alive) }
        }

        #[track_caller]
        fn number(&self) -> usize {
            assert!(!self.freed.load(Ordering::Relaxed), "read after it was freed");
            let first = self.numbers[0];
            assert!(self.numbers.iter().all(|number| *number == first), "torn");
            first
        }
    }

    impl Drop for Set {
        fn drop(&mut self) {
            self.freed.store(true, Ordering::Relaxed);
            self.numbers = [usize::MAX; 64];
            self.numbers[1] = 0;
            self.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }

    const SETS: usize = 20_000;

    /// Reads until the last set comes: held for a while, or borrowed for a moment.
    fn read(reader: &Live<Set>, held: bool) {
        let mut last = 0;
        while last < SETS {
            let number = if held {
                let set = reader.load();
                std::thread::yield_now();
                set.number()
            } else {
                reader.peek().number()
            };
            assert!(number >= last, "{number} after {last}");
            last = number;
        }
    }

    #[test]
    fn no_reader_sees_a_torn_or_freed_value_or_goes_back() {
        let alive = Arc::new(AtomicUsize::new(0));
        let (publisher, reader) = live(Set::new(0, &alive));
        std::thread::scope(|scope| {
            for number in 0..4 {
                let reader = reader.clone();
                scope.spawn(move || read(&reader, number % 2 == 0));
            }
            for number in 1..=SETS {
                publisher.publish(Set::new(number, &alive));
            }
        });
        assert_eq!(alive.load(Ordering::Relaxed), 1, "sets that nobody reads are still there");
    }
}
