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
    running: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    size: usize,
    ended: bool,
}

impl Progress {
    pub(super) const fn new(next: u64) -> Self {
        Self { next, pulled: VecDeque::new(), running: 0, bytes: 0 }
    }

    /// Takes note of a message that was pulled; `false` where it was before.
    pub(super) fn begin(&mut self, offset: u64, size: usize) -> bool {
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        self.pulled.push_back(Entry { offset, size, ended: false });
        self.running += 1;
        self.bytes += size;
        true
    }

    /// Takes note that a message has ended.
    pub(super) fn end(&mut self, offset: u64) {
        let place = self.pulled.binary_search_by_key(&offset, |pulled| pulled.offset);
        let pulled = place.ok().and_then(|place| self.pulled.get_mut(place));
        if let Some(pulled) = pulled.filter(|pulled| !pulled.ended) {
            pulled.ended = true;
            self.running -= 1;
            self.bytes -= pulled.size;
        }
        while self.pulled.front().is_some_and(|pulled| pulled.ended) {
            self.pulled.pop_front();
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

    /// How many messages have not ended, and how many bytes they take.
    pub(super) const fn running(&self) -> (usize, usize) {
        (self.running, self.bytes)
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
