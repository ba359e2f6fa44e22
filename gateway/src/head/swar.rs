//! Eight bytes of a text at once, as one number.

/// A number of eight bytes, each of them 1.
const EACH: u64 = u64::MAX / 255;

/// Returns the highest bit of each byte that is a control character; of those behind the first it may be set
/// although they are none.
#[inline]
pub(super) const fn controls(word: u64) -> u64 {
    let below = word.wrapping_sub(EACH * 0x20) & !word;
    let delete = word ^ (EACH * 0x7f);
    (below | (delete.wrapping_sub(EACH) & !delete)) & (EACH * 0x80)
}
