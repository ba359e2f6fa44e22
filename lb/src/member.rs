use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Instance;

/// An instance among others that may serve the same requests.
#[derive(Debug)]
pub struct Member {
    instance: Instance,
    in_flight: AtomicUsize,
}

impl Member {
    /// An instance without any request yet.
    pub const fn new(instance: Instance) -> Self {
        Self { instance, in_flight: AtomicUsize::new(0) }
    }

    /// Returns the instance.
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Returns how many requests it is serving now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request that a [`Member`] is serving.
#[derive(Debug)]
pub struct InFlight(Arc<Member>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_is_serving() {
        let member = Arc::new(Member::new(Instance::new(([127, 0, 0, 1], 1).into())));
        let one = member.begin();
        let other = member.begin();
        assert_eq!(member.in_flight(), 2);
        drop((one, other));
        assert_eq!(member.in_flight(), 0);
    }
}
