use std::collections::VecDeque;

/// How far the messages of one queue have been handled.
///
/// Messages end in any order, and an offset may be committed only when everything below it has ended:
/// what a broker is told is what a group never sees again.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// From which offset on nothing has been pulled yet.
    next: u64,
    /// What has been pulled, in the order of its offsets, from the first on that has not ended.
    pulled: VecDeque<Entry>,
    running: Load,
    held: Load,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    size: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is being handled, or is about to be.
    Running,
    /// It waits for it to be known whose it is.
    Held,
    Ended,
}

/// How many messages, and how many bytes they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Progress {
    pub(super) const fn new(next: u64) -> Self {
        let none = Load { count: 0, bytes: 0 };
        Self { next, pulled: VecDeque::new(), running: none, held: none }
    }

    /// Takes note of a message that was pulled; `false` where it was before.
    pub(super) fn begin(&mut self, offset: u64, size: usize) -> bool {
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        self.pulled.push_back(Entry { offset, size, state: State::Running });
        self.running.add(size);
        true
    }

    /// Takes note that it is not known yet whose a message is.
    pub(super) fn hold(&mut self, offset: u64) {
        self.put(offset, State::Held);
    }

    /// Takes note that a message that was held is not any more.
    pub(super) fn resume(&mut self, offset: u64) {
        self.put(offset, State::Running);
    }

    /// Takes note that a message has ended.
    pub(super) fn end(&mut self, offset: u64) {
        self.put(offset, State::Ended);
        while self.pulled.front().is_some_and(|pulled| pulled.state == State::Ended) {
            self.pulled.pop_front();
        }
    }

    fn put(&mut self, offset: u64, state: State) {
        let place = self.pulled.binary_search_by_key(&offset, |pulled| pulled.offset);
        let pulled = place.ok().and_then(|place| self.pulled.get_mut(place));
        let Some(pulled) = pulled else { return };
        match pulled.state {
            State::Running => self.running.remove(pulled.size),
            State::Held => self.held.remove(pulled.size),
            State::Ended => return,
        }
        pulled.state = state;
        match state {
            State::Running => self.running.add(pulled.size),
            State::Held => self.held.add(pulled.size),
            State::Ended => {}
        }
    }

    /// Takes note that there is nothing for this group below an offset that has not been pulled.
    pub(super) fn reach(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// From which offset on to pull.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Below this offset everything has ended.
    pub(super) fn committable(&self) -> u64 {
        self.pulled.front().map_or(self.next, |pulled| pulled.offset)
    }

    /// How many messages were pulled from the first on that has not ended.
    pub(super) fn span(&self) -> usize {
        self.pulled.len()
    }

    /// How many messages have not ended, without those that are held, and how many bytes they take.
    pub(super) const fn running(&self) -> (usize, usize) {
        (self.running.count, self.running.bytes)
    }

    /// How many bytes the messages take that are held.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held.bytes
    }
}

impl Load {
    const fn add(&mut self, size: usize) {
        self.count += 1;
        self.bytes += size;
    }

    const fn remove(&mut self, size: usize) {
        self.count -= 1;
        self.bytes -= size;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_has_ended_without_a_gap_is_committed() {
        let mut progress = Progress::new(10);
        for offset in [10, 12, 15] {
            assert!(progress.begin(offset, 100));
        }
        assert!(!progress.begin(12, 100));
        assert_eq!((progress.committable(), progress.running()), (10, (3, 300)));
        progress.end(12);
        assert_eq!(progress.committable(), 10);
        progress.end(10);
        // 11 was left out by the broker, and 13 and 14 too.
        assert_eq!(progress.committable(), 15);
        progress.reach(40);
        assert_eq!(progress.committable(), 15);
        progress.end(15);
        assert_eq!((progress.committable(), progress.next(), progress.running()), (40, 40, (0, 0)));
    }

    #[test]
    fn what_is_held_has_not_ended_and_does_not_run() {
        let mut progress = Progress::new(0);
        for offset in 0..3 {
            assert!(progress.begin(offset, 10));
        }
        for _ in 0..2 {
            progress.hold(0);
            assert_eq!((progress.running(), progress.held_bytes()), ((2, 20), 10));
        }
        progress.end(1);
        assert_eq!((progress.committable(), progress.span(), progress.running()), (0, 3, (1, 10)));
        progress.resume(0);
        assert_eq!((progress.running(), progress.held_bytes()), ((2, 20), 0));
        progress.hold(0);
        progress.end(0);
        // What has ended is not held again.
        progress.hold(1);
        assert_eq!(
            (progress.committable(), progress.running(), progress.held_bytes()),
            (2, (1, 10), 0)
        );
    }

    proptest! {
        /// Against the definition: everything below the committed offset has ended.
        #[test]
        fn nothing_that_runs_is_committed(steps in prop::collection::vec((any::<bool>(), 0_u64..30), 1..200)) {
            let mut progress = Progress::new(0);
            let (mut running, mut next) = (BTreeSet::new(), 0);
            for (begins, value) in steps {
                if begins {
                    let offset = next + value % 3;
                    prop_assert!(progress.begin(offset, 1));
                    running.insert(offset);
                    next = offset + 1;
                } else if let Some(offset) = running.iter().nth(usize::try_from(value).unwrap()).copied() {
                    running.remove(&offset);
                    progress.end(offset);
                }
                let expected = running.first().copied().unwrap_or(next);
                prop_assert_eq!(progress.committable(), expected);
            }
        }
    }
}
