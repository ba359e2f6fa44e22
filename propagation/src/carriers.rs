use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    Context, FieldName, Fields, GrayStatus, Lane, Lines, Probe, TAG_HEADER, TRACEPARENT,
    TRACESTATE, baggage, field, traceparent, visible,
};

/// The header that carries a [`GrayStatus`] from hop to hop.
pub const GRAY_HEADER: HeaderName = HeaderName::from_static("gray");

/// The tag of Alibaba MSE's agents: never let in, even where it is not written.
static MSE_TAG: FieldName = FieldName::from_static("x-mse-tag");

/// What is never let in, whatever is written.
static OWN: [&FieldName; 4] = [&field::GRAY, &MSE_TAG, &field::HOP, &field::TAG];

/// The header names that together carry one verdict to the next hop.
///
/// The `gray` header always does. Extra headers carry the name of the lane (`x-mse-tag: gray`) and
/// are absent where there is none, as the agents that read them expect. With baggage switched on,
/// the W3C `baggage` member `gray` carries it as well.
#[derive(Clone, Debug, Default)]
pub struct Carriers {
    extra: Vec<FieldName>,
    baggage: bool,
}

impl Carriers {
    /// Adds header names that carry the lane's name beside the `gray` header.
    #[must_use]
    pub fn with_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let others = names.into_iter().filter(|name| *name != GRAY_HEADER);
        self.extra.extend(others.map(FieldName::from));
        self
    }

    /// Adds the member `gray` of the W3C `baggage` header.
    #[must_use]
    pub const fn with_baggage(mut self) -> Self {
        self.baggage = true;
        self
    }

    /// Writes the status onto every carrier, replacing whatever was there.
    ///
    /// With baggage, a `traceparent` is made where none came, since tracers that find none drop the
    /// baggage of the request (seen with the OpenTelemetry agents).
    pub fn inject(&self, status: GrayStatus, headers: &mut impl Fields) {
        self.strip(headers);
        headers.set(&field::GRAY, status.to_header_value());
        let tag = status.lane().map(Lane::as_str);
        for name in &self.extra {
            if let Some(Ok(value)) = tag.map(HeaderValue::from_str) {
                headers.set(name, value);
            }
        }
        if self.baggage {
            baggage::set(headers, tag);
            if tag.is_some() {
                traceparent::ensure(headers);
            }
        }
    }

    /// Reads the status that the previous hop sent in the `gray` header.
    ///
    /// Two lines are as good as none: nobody can say which one was meant.
    pub fn extract(&self, headers: &impl Lines) -> Option<GrayStatus> {
        if headers.line(&field::GRAY, 1).is_some() {
            return None;
        }
        visible(headers.first(&field::GRAY)?)?.parse().ok()
    }

    /// Reads what came with a call; `own` is the status where it came with no tag, or a malformed
    /// one, and is told as `false`.
    ///
    /// The first carrier that is there decides: the `gray` header, the extra headers, baggage. A
    /// well-formed lane is carried on even where nobody here knows it.
    pub fn read(&self, headers: &HeaderMap, own: GrayStatus) -> (Context, bool) {
        let tagged = if headers.contains_key(GRAY_HEADER) {
            self.extract(headers)
        } else {
            self.extract_lane(headers)
        };
        // What cannot be used is not passed on, nor what vendors added to it.
        let trace = traceparent::of(headers);
        let context = Context {
            status: tagged.unwrap_or(own),
            traceparent: trace.cloned(),
            tracestate: trace.and_then(|_| joined(&headers.get_all(TRACESTATE))),
            baggage: baggage::others(headers),
            probe: None,
        };
        (context, tagged.is_some())
    }

    /// Writes a context onto a call: its status over what was there, the rest only where the
    /// application, or its tracer, has not written it.
    pub fn write(&self, context: &Context, headers: &mut HeaderMap) {
        if let Some(trace) = &context.traceparent
            && !headers.contains_key(TRACEPARENT)
        {
            headers.insert(TRACEPARENT, trace.clone());
            if let Some(state) = &context.tracestate {
                headers.insert(TRACESTATE, state.clone());
            }
        }
        baggage::add(headers, context.baggage.as_ref());
        self.inject(context.status, headers);
        if let Some(tag) = context.probe.as_ref().map(Probe::tag) {
            headers.insert(TAG_HEADER, tag.clone());
        }
    }

    /// Reads the lane that carriers beside the `gray` header name.
    fn extract_lane(&self, headers: &HeaderMap) -> Option<GrayStatus> {
        let named = self.extra.iter().find(|name| headers.contains_key(&***name));
        // As of the `gray` header: of two lines nobody can say which one was meant.
        if named.is_some_and(|name| headers.get_all(&**name).iter().nth(1).is_some()) {
            return None;
        }
        let named = named.and_then(|name| headers.get(&**name));
        let named = named.and_then(|value| value.to_str().ok().map(str::to_owned));
        let lane = named.or_else(|| baggage::ours(headers).filter(|_| self.baggage))?;
        lane.parse().ok().map(GrayStatus::Gray)
    }

    /// Returns the names of the headers that carry the verdict.
    pub fn names(&self) -> impl Iterator<Item = HeaderName> {
        std::iter::once(GRAY_HEADER).chain(self.extra.iter().map(|name| (**name).clone()))
    }

    /// Removes every carrier, and every name that an upstream could take for one.
    ///
    /// CGI-like servers read `x_mse_tag` as `x-mse-tag`, so aliases with underscores go too.
    pub fn strip(&self, headers: &mut impl Fields) {
        if headers.has(&baggage::BAGGAGE) {
            baggage::set(headers, None);
        }
        // Few messages have any.
        let some = headers.may_have_any(OWN) || headers.may_have_any(&self.extra);
        if some || headers.may_have_underscores() {
            headers.keep(|name| !self.is_carrier(name));
        }
    }

    fn is_carrier(&self, name: &[u8]) -> bool {
        let is = |other: &FieldName| name == other.as_bytes();
        OWN.into_iter().any(is) || self.extra.iter().any(is) || self.is_alias(name)
    }

    fn is_alias(&self, name: &[u8]) -> bool {
        // Names are so short that a loop is fastest.
        if !name.contains(&b'_') {
            return false;
        }
        let plain = String::from_utf8_lossy(name).replace('_', "-");
        let plain = plain.trim_matches('-');
        let own = [&MSE_TAG, &field::HOP, &field::TAG];
        own.iter().any(|name| name.as_str() == plain)
            || self.names().any(|carrier| carrier.as_str() == plain)
    }
}

/// Joins the lines of a list that may stand in several (RFC 9110, section 5.3).
fn joined(lines: &http::header::GetAll<'_, HeaderValue>) -> Option<HeaderValue> {
    let first = lines.iter().next()?;
    // One line is by far the usual, and is not copied.
    if lines.iter().nth(1).is_none() {
        return Some(first.clone());
    }
    let all: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    all.join(&b","[..]).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carriers() -> Carriers {
        Carriers::default().with_headers([HeaderName::from_static("x-mse-tag")]).with_baggage()
    }

    #[test]
    fn overwrites_everything_a_client_forged() {
        let mut headers = HeaderMap::new();
        for name in ["gray", "x-mse-tag", "x_mse_tag", "gray_", "_gray"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("GRAY"));
        }
        headers.append(GRAY_HEADER, HeaderValue::from_static("blue"));
        headers.append("baggage", HeaderValue::from_static("gray=gray,user=7"));

        carriers().inject(GrayStatus::Prod, &mut headers);

        assert_eq!(headers.len(), 2);
        assert_eq!(headers[GRAY_HEADER], "PROD");
        assert_eq!(headers["baggage"], "user=7");
    }

    #[test]
    fn lets_no_known_tag_in_even_where_it_is_not_written() {
        let mut headers = HeaderMap::new();
        headers.insert(&*MSE_TAG, HeaderValue::from_static("gray"));
        headers.insert("baggage", HeaderValue::from_static("gray=gray"));

        Carriers::default().inject(GrayStatus::Prod, &mut headers);

        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn writes_the_lane_onto_every_carrier() {
        let mut headers = HeaderMap::new();

        carriers().inject(GrayStatus::Gray(Lane::GRAY), &mut headers);

        assert_eq!(headers[GRAY_HEADER], "GRAY");
        assert_eq!(headers["x-mse-tag"], "gray");
        assert_eq!(headers["baggage"], "gray=gray");
        assert!(headers.contains_key("traceparent"));
    }

    /// Two `gray` lines are none, and so are two of any other carrier.
    #[test]
    fn two_lines_of_a_carrier_are_none() {
        let blue = GrayStatus::Gray("blue".parse().unwrap());
        for (name, lines) in
            [("x-mse-tag", ["gray", "blue"]), ("baggage", ["gray=gray", "gray=blue"])]
        {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_static(lines[1]));
            assert_eq!(carriers().read(&headers, GrayStatus::Prod).0.status, blue, "{name}");
            headers.append(name, HeaderValue::from_static(lines[0]));
            let (context, tagged) = carriers().read(&headers, GrayStatus::Prod);
            assert_eq!((context.status, tagged), (GrayStatus::Prod, false), "{name}");
        }
    }

    #[test]
    fn a_call_without_a_tag_stays_in_its_own_lane() {
        let gray = GrayStatus::Gray(Lane::GRAY);
        let check = |lines: &[(&'static str, &'static str)], expected: GrayStatus, tagged| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let (context, came) = carriers().read(&headers, gray);
            assert_eq!((context.status, came), (expected, tagged), "{lines:?}");
        };
        let blue = GrayStatus::Gray("blue".parse().unwrap());
        check(&[], gray, false);
        check(&[("gray", "Gray")], gray, false);
        check(&[("gray", "PROD"), ("gray", "PROD")], gray, false);
        check(&[("gray", "PROD"), ("x-mse-tag", "blue")], GrayStatus::Prod, true);
        check(&[("gray", "blue")], blue, true);
        check(&[("x-mse-tag", "blue")], blue, true);
        check(&[("baggage", "user=7,gray=blue;p")], blue, true);
        check(&[("x-mse-tag", "a b")], gray, false);
    }

    #[test]
    fn a_context_survives_a_hop() {
        const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert("gray", HeaderValue::from_static("GRAY"));
        headers.insert(TRACEPARENT, HeaderValue::from_static(TRACE));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.insert("baggage", HeaderValue::from_static("user=7,gray=blue"));
        let (context, _) = carriers().read(&headers, GrayStatus::Prod);

        let mut next = HeaderMap::new();
        next.insert("baggage", HeaderValue::from_static("own=1"));
        carriers().write(&context, &mut next);
        assert_eq!(next[GRAY_HEADER], "GRAY");
        assert_eq!(next[TRACEPARENT], TRACE);
        assert_eq!(next[TRACESTATE], "a=1");
        assert_eq!(next["baggage"], "own=1,user=7,gray=gray");

        // A tracer that has written its own span knows better.
        let mut traced = HeaderMap::new();
        traced.insert(TRACEPARENT, HeaderValue::from_static(OWN));
        carriers().write(&context, &mut traced);
        assert_eq!(traced[TRACEPARENT], OWN);
        assert!(!traced.contains_key(TRACESTATE));

        // Of several lines all are passed on (W3C Trace Context, section 3.3).
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let (context, _) = carriers().read(&headers, GrayStatus::Prod);
        assert_eq!(context.tracestate.unwrap(), "a=1,b=2");

        // What is no trace is not passed on, nor what belongs to it.
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-1-2-01"));
        let (context, _) = carriers().read(&headers, GrayStatus::Prod);
        assert_eq!((context.traceparent, context.tracestate), (None, None));
    }

    #[test]
    fn two_lines_are_as_good_as_none() {
        let mut headers = HeaderMap::new();
        headers.append(GRAY_HEADER, HeaderValue::from_static("GRAY"));
        assert_eq!(Carriers::default().extract(&headers), Some(GrayStatus::Gray(Lane::GRAY)));
        headers.append(GRAY_HEADER, HeaderValue::from_static("GRAY"));
        assert_eq!(Carriers::default().extract(&headers), None);
    }
}
