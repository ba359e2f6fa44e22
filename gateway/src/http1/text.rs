use std::cell::RefCell;

thread_local! {
    /// The memory of texts that are no more, for the next ones of this thread.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What is to be written to a connection, in memory that its thread uses again and again.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
}

impl Text {
    /// Nothing, with room for so many bytes.
    pub(super) fn with_capacity(size: usize) -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        let mut bytes = spare.ok().flatten().unwrap_or_default();
        bytes.reserve(size);
        Self { bytes, written: 0 }
    }

    /// Adds bytes behind all others.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what has not been written yet.
    #[inline]
    pub(super) fn left(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Tells whether there is nothing left of it.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.written
    }

    /// Takes note of so many bytes that have been written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        /// How many are kept, and how large they may be: so much memory a thread has for nothing.
        const MOST: (usize, usize) = (4, 16 << 10);
        if self.bytes.capacity() == 0 || self.bytes.capacity() > MOST.1 {
            return;
        }
        self.bytes.clear();
        let memory = std::mem::take(&mut self.bytes);
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST.0 {
                spare.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_used_again_has_nothing_of_what_was_there() {
        for number in 0..9_usize {
            let mut text = Text::with_capacity(64);
            assert!(text.is_empty() && text.left().is_empty());
            text.push(b"secret");
            text.advance(number % 6);
            assert_eq!(text.left(), b"secret".get(number % 6..).unwrap());
        }
        let mut text = Text::with_capacity(1);
        text.push(b"ab");
        text.advance(2);
        text.push(b"c");
        assert_eq!(text.left(), b"c");
    }
}
