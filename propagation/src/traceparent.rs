//! The W3C `traceparent` header: made where a request came without one.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The header of W3C Trace Context that names the trace and its parent span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The header of W3C Trace Context that vendors add to.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Adds an unsampled `traceparent` where there is none (W3C Trace Context, section 3.2).
pub(crate) fn ensure(headers: &mut HeaderMap) {
    if headers.contains_key(TRACEPARENT) {
        return;
    }
    let (trace, span) = (unique(), unique());
    let text = format!("00-{:032x}-{:016x}-00", trace.max(1), low(span).max(1));
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(TRACEPARENT, value);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a span id is the lower half")]
const fn low(number: u128) -> u64 {
    number as u64
}

/// A number that no other call in this process returns, and no other process is likely to.
fn unique() -> u128 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    xxh3_128_with_seed(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes(), *SEED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_one_only_where_none_came() {
        let mut headers = HeaderMap::new();
        ensure(&mut headers);
        let made = headers[TRACEPARENT].clone();
        assert_eq!(made.len(), 55);
        ensure(&mut headers);
        assert_eq!(headers[TRACEPARENT], made);
        assert_ne!(unique(), unique());
    }
}
