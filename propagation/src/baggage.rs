//! The member `gray` of the W3C `baggage` header.
//!
//! Source: W3C Baggage, section 3.2 (a list of `key=value;property` members, several lines allowed).

use http::header::{HeaderMap, HeaderValue};

use crate::{FieldName, Fields, lines, visible};

pub(crate) static BAGGAGE: FieldName = FieldName::from_static("baggage");
const MEMBER: &str = "gray";

/// The longest header that is passed on (W3C Baggage, section 3.3.2).
const MAX_BAGGAGE: usize = 8192;

/// Returns the members that are not ours, as one line.
pub(crate) fn others(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(&*BAGGAGE).iter();
    let first = lines.next()?;
    // Most have one line without our member, which is passed on as it came.
    let text = first.to_str().ok().filter(|_| lines.next().is_none());
    if text.is_some_and(|text| !text.is_empty() && !text.split(',').any(is_ours)) {
        return Some(first.clone()).filter(|line| line.len() <= MAX_BAGGAGE);
    }
    let lines = headers.get_all(&*BAGGAGE).iter().filter_map(|line| line.to_str().ok());
    let mut others = String::new();
    for member in lines.flat_map(|line| line.split(',')).map(str::trim) {
        if member.is_empty() || is_ours(member) {
            continue;
        }
        if !others.is_empty() {
            others.push(',');
        }
        others.push_str(member);
    }
    let fits = !others.is_empty() && others.len() <= MAX_BAGGAGE;
    if fits { others.try_into().ok() } else { None }
}

/// Returns the value of our member.
pub(crate) fn ours(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(&*BAGGAGE).iter().filter_map(|line| line.to_str().ok());
    let mut members = lines.flat_map(|line| line.split(',')).map(str::trim);
    let (_, value) = members.find(|member| is_ours(member))?.split_once('=')?;
    // Of two nobody can say which one was meant.
    if members.any(is_ours) {
        return None;
    }
    Some(value.split(';').next().unwrap_or_default().trim().to_owned())
}

/// Adds members that are not there yet, as far as the header may grow.
pub(crate) fn add(headers: &mut HeaderMap, members: Option<&HeaderValue>) {
    let Some(members) = members.and_then(|members| members.to_str().ok()) else { return };
    let present: Vec<String> = headers
        .get_all(&*BAGGAGE)
        .iter()
        .filter_map(|it| Some(it.to_str().ok()?.to_owned()))
        .collect();
    let key = |member: &str| member.split(['=', ';']).next().unwrap_or_default().trim().to_owned();
    let known: Vec<String> = present.iter().flat_map(|line| line.split(',')).map(key).collect();
    let new = members.split(',').map(str::trim).filter(|it| !known.contains(&key(it)));
    let all: Vec<&str> = present.iter().map(String::as_str).chain(new).collect();
    let joined = all.join(",");
    if joined.len() <= MAX_BAGGAGE
        && let Ok(value) = HeaderValue::try_from(joined)
        && !value.is_empty()
    {
        headers.insert(&*BAGGAGE, value);
    }
}

/// Sets or removes our member; all others are kept in their order.
pub(crate) fn set(headers: &mut impl Fields, lane: Option<&str>) {
    if lane.is_none() && !headers.has(&BAGGAGE) {
        return;
    }
    let ours = lane.map(|lane| format!("{MEMBER}={lane}"));
    let others = lines(headers, &BAGGAGE).filter_map(visible);
    let others = others.flat_map(|line| line.split(',')).map(str::trim);
    let others = others.filter(|member| !member.is_empty() && !is_ours(member));
    let mut all: Vec<&str> = others.chain(ours.as_deref()).collect();
    if let Some(ours) = &ours {
        // There is room for ours in any case; what came last goes first.
        let mut left = (MAX_BAGGAGE + 1).saturating_sub(ours.len() + 1);
        let fits = all.iter().take(all.len() - 1).take_while(|member| {
            left.checked_sub(member.len() + 1).map(|less| left = less).is_some()
        });
        let fits = fits.count();
        all.drain(fits..all.len() - 1);
    }
    let joined = all.join(",");
    match HeaderValue::try_from(joined) {
        Ok(value) if !value.is_empty() => headers.set(&BAGGAGE, value),
        _ => headers.drop_all(&BAGGAGE),
    }
}

fn is_ours(member: &str) -> bool {
    let member = member.trim_start();
    let key = member.get(..MEMBER.len()).filter(|key| key.eq_ignore_ascii_case(MEMBER));
    let behind = key.and_then(|key| member.get(key.len()..)).map(str::trim_start);
    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(['=', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&'static str], lane: Option<&str>, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&*BAGGAGE, HeaderValue::from_static(line));
        }
        set(&mut headers, lane);
        assert_eq!(headers.get(&*BAGGAGE).map(|value| value.to_str().unwrap()), expected);
        assert!(headers.get_all(&*BAGGAGE).iter().count() <= 1);
    }

    #[test]
    fn there_is_room_for_our_member() {
        let ours = "gray=blue";
        let name = http::HeaderName::from_static("baggage");
        for (length, kept) in [(8191, false), (8182, true), (8183, false), (20, true)] {
            let mut headers = HeaderMap::new();
            let other = format!("a={}", "x".repeat(length - 2));
            headers.insert(&name, HeaderValue::try_from(&other).unwrap());
            set(&mut headers, Some("blue"));
            let expected = if kept { format!("{other},{ours}") } else { ours.to_owned() };
            assert_eq!(headers[&name], expected, "{length}");
            assert!(headers[&name].len() <= MAX_BAGGAGE);
        }
        // What came first stays.
        let mut headers = HeaderMap::new();
        let two = format!("a=1,b={}", "x".repeat(8190));
        headers.insert(&name, HeaderValue::try_from(two).unwrap());
        set(&mut headers, Some("blue"));
        assert_eq!(headers[&name], "a=1,gray=blue");
        // What is too long is passed on by nobody.
        let mut headers = HeaderMap::new();
        let long = format!("a={}", "x".repeat(MAX_BAGGAGE));
        headers.insert(&name, HeaderValue::try_from(&long).unwrap());
        assert_eq!(others(&headers), None);
        let mut short = HeaderMap::new();
        short.insert(&name, HeaderValue::from_static("b=2"));
        add(&mut short, headers.get(&name));
        assert_eq!(short[&name], "b=2");
    }

    #[test]
    fn what_is_not_ours_is_passed_on_as_it_came() {
        for (lines, expected) in [
            (&["a=1;p, b=2"][..], Some("a=1;p, b=2")),
            (&["a=1, gray=x"], Some("a=1")),
            (&["gray ; p, a=1"], Some("a=1")),
            (&["graye=1"], Some("graye=1")),
            (&["gray"], None),
            (&[""], None),
            (&["a=1", "b=2"], Some("a=1,b=2")),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&*BAGGAGE, HeaderValue::from_static(line));
            }
            let others = others(&headers);
            let text = others.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(text, expected, "{lines:?}");
        }
    }

    #[test]
    fn keeps_other_members() {
        check(&[], Some("blue"), Some("gray=blue"));
        check(&[], None, None);
        check(&["a=1;p, b=2"], Some("blue"), Some("a=1;p,b=2,gray=blue"));
        check(&["gray=x;p,a=1", "GRAY = y"], Some("blue"), Some("a=1,gray=blue"));
        check(&["gray=x"], None, None);
        check(&["grayish=1"], None, Some("grayish=1"));
    }
}
