use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The groups that are consumed over the connections of one [`MessageBroker`](crate::MessageBroker), each by one
/// consumer.
///
/// A broker of RocketMQ knows the members of a group by their connections: of two on one connection it
/// lists one (`ConsumerGroupInfo.updateChannel`), so that the other would be taken for gone while it handles
/// messages.
#[derive(Clone, Debug, Default)]
pub struct Seats(Arc<Mutex<BTreeSet<String>>>);

/// A group that is consumed, until this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    group: String,
}

impl Seats {
    /// Takes the seat of a group; `None` where it is taken.
    pub fn take(&self, group: &str) -> Option<Seat> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group.to_owned());
        new.then(|| Seat { seats: self.clone(), group: group.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_it_is_left() {
        let seats = Seats::default();
        let seat = seats.take("a").unwrap();
        assert!(seats.take("a").is_none());
        assert!(seats.take("b").is_some());
        drop(seat);
        assert!(seats.take("a").is_some());
    }
}
