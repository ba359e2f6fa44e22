//! The W3C `traceparent` header: made where a request came without one.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::{FieldName, Fields};

/// The header of W3C Trace Context that names the trace and its parent span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The header of W3C Trace Context that vendors add to.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

static PARENT: FieldName = FieldName::from_static("traceparent");
static STATE: FieldName = FieldName::from_static("tracestate");

/// Returns the `traceparent` that came, if exactly one came and it is well-formed (W3C Trace Context,
/// section 3.2.2).
pub(crate) fn of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let line = lines.next()?;
    (lines.next().is_none() && is_valid(line.as_bytes())).then_some(line)
}

/// Tells whether this is a `traceparent`: of version 00, or of a later one, which may say more.
pub(crate) fn is_valid(text: &[u8]) -> bool {
    let hex = |part: &[u8], digits: usize| {
        part.len() == digits && part.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &[u8]| part.iter().all(|it| *it == b'0');
    let mut parts = text.split(|it| *it == b'-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    hex(version, 2)
        && version != b"ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(span, 16)
        && !zero(span)
        && hex(flags, 2)
        && (version != b"00" || parts.next().is_none())
}

/// Adds an unsampled `traceparent` where there is none that can be used; what cannot is taken away
/// (W3C Trace Context, section 4.3).
pub(crate) fn ensure(headers: &mut impl Fields) {
    if headers.line(&PARENT, 1).is_none() && headers.first(&PARENT).is_some_and(is_valid) {
        return;
    }
    // The vendors' state belongs to the trace that it came with.
    headers.drop_all(&PARENT);
    headers.drop_all(&STATE);
    let (trace, span) = (unique(), unique());
    let text = format!("00-{:032x}-{:016x}-00", trace.max(1), low(span).max(1));
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.set(&PARENT, value);
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

    #[test]
    fn what_is_malformed_is_none() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_valid(good.as_bytes()));
        assert!(is_valid(good.replacen("00", "cc", 1).as_bytes()));
        assert!(is_valid((good.replacen("00", "01", 1) + "-more").as_bytes()));
        for bad in [
            "",
            "00",
            "00-1-2-00",
            &good.replacen("00", "ff", 1),
            &good.to_uppercase(),
            &format!("{good}-more"),
            &format!("{good} "),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &good.replace("b7ad6b7169203331", "b7ad6b716920333"),
            &good.replace("-01", "-1"),
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_malformed_one_is_replaced_and_its_state_goes() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("nonsense"));
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        ensure(&mut headers);
        assert!(of(&headers).is_some());
        assert!(!headers.contains_key(TRACESTATE));
        let made = headers[TRACEPARENT].clone();
        headers.append(TRACEPARENT, made);
        assert!(of(&headers).is_none(), "two are as good as none");
    }
}
