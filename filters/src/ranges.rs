/// Sorted ranges of numbers that neither overlap nor touch, with an index by the bits that tell them
/// apart: those behind what all have in common, and so many that a value of them leaves a few ranges.
#[derive(Clone, Default)]
pub(crate) struct Ranges<T> {
    sorted: Vec<(T, T)>,
    /// For each value of those bits, the first range that ends there or later; one more for the end.
    index: Vec<u32>,
    /// How many of those bits there are, and how many stand behind them.
    bits: u32,
    shift: u32,
}

/// An address as a number.
pub(crate) trait Number: Copy + Ord {
    /// The most bits of an index: what fits in a quarter of a megabyte, or in a whole one where the
    /// ranges are so long that few of them are read at once.
    const MAX_BITS: u32;

    fn successor(self) -> Option<Self>;

    /// How many bits are left behind those that two numbers begin with in common.
    fn differing(self, other: Self) -> u32;

    /// So many bits, behind which there are so many.
    fn slot(self, bits: u32, shift: u32) -> usize;
}

macro_rules! number {
    ($type:ty, $bits:literal) => {
        impl Number for $type {
            const MAX_BITS: u32 = $bits;

            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn differing(self, other: Self) -> u32 {
                Self::BITS - (self ^ other).leading_zeros()
            }

            #[allow(clippy::cast_possible_truncation, reason = "what is cut off is masked")]
            fn slot(self, bits: u32, shift: u32) -> usize {
                (self >> shift) as usize & ((1 << bits) - 1)
            }
        }
    };
}

number!(u32, 16);
number!(u64, 18);
number!(u128, 18);

impl<T: Number> Ranges<T> {
    /// Takes ranges by their first and last numbers, in any order.
    pub(crate) fn new(ranges: Vec<(T, T)>) -> Self {
        let sorted = merge(ranges);
        let (Some((first, _)), Some((_, last))) = (sorted.first(), sorted.last()) else {
            return Self { sorted, index: Vec::new(), bits: 0, shift: 0 };
        };
        let differing = first.differing(*last);
        let few = sorted.len().ilog2().saturating_sub(1);
        let bits = few.clamp(1, T::MAX_BITS).min(differing);
        let shift = differing - bits;
        let mut index = Vec::with_capacity((1 << bits) + 1);
        for (position, (_, end)) in sorted.iter().enumerate() {
            // Every slot up to the one that it ends in begins with it, unless with an earlier one.
            let slots = end.slot(bits, shift) + 1;
            index.resize(slots.max(index.len()), u32::try_from(position).unwrap_or(u32::MAX));
        }
        index.resize((1 << bits) + 1, u32::try_from(sorted.len()).unwrap_or(u32::MAX));
        Self { sorted, index, bits, shift }
    }

    /// How much memory it takes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<(T, T)>() + self.index.capacity() * size_of::<u32>()
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (T, T)> {
        self.sorted.iter().copied()
    }

    /// Tells whether all of a range is covered. Ranges never touch, so that one of them covers it.
    pub(crate) fn covers(&self, start: T, end: T) -> bool {
        let position = self.sorted.partition_point(|(_, last)| *last < end);
        self.sorted.get(position).is_some_and(|(first, _)| *first <= start)
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|(start, end)| other.covers(start, end))
    }

    /// Tells whether a number is in one of them.
    pub(crate) fn contains(&self, address: T) -> bool {
        let (Some((first, _)), Some((_, last))) = (self.sorted.first(), self.sorted.last()) else {
            return false;
        };
        if address < *first || address > *last {
            return false;
        }
        let slot = address.slot(self.bits, self.shift);
        let (Some(from), Some(to)) = (self.index.get(slot), self.index.get(slot + 1)) else {
            return false;
        };
        // The range that reaches into the next slot is the last candidate.
        let to = (*to as usize + 1).min(self.sorted.len());
        let ranges = self.sorted.get(*from as usize..to).unwrap_or_default();
        let position = ranges.partition_point(|(_, end)| *end < address);
        ranges.get(position).is_some_and(|(start, _)| *start <= address)
    }
}

/// Sorts ranges and joins those that overlap or touch.
pub(crate) fn merge<T: Number>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if last.successor().is_none_or(|next| start <= next) => {
                *last = end.max(*last);
            }
            _ => merged.push((start, end)),
        }
    }
    merged.shrink_to_fit();
    merged
}
