//! Signed tags: the lane that somebody with a key asks for, and the report of where it led.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use gray_filters::Classified;
use gray_propagation::{GrayStatus, Hop, PATH_HEADER, Probe, SignedTag, TAG_HEADER, TagKeys};
use http::{HeaderMap, Request};

use crate::metrics::Metrics;
use crate::observe::Trail;
use crate::revision::Revision;

/// The name under which the gateway reports itself.
pub(crate) const GATEWAY: &str = "graylane";

/// Returns the tag of a request, if it carries one that can be believed.
pub(crate) fn signed_tag(
    keys: &TagKeys,
    headers: &HeaderMap,
    metrics: &Metrics,
) -> Option<(SignedTag, Option<Probe>)> {
    if keys.is_empty() {
        return None;
    }
    let value = headers.get(TAG_HEADER)?;
    match keys.verify(value, SystemTime::now()) {
        Ok(tag) => Some((tag, tag.probe.then(|| Probe::new(value.clone())))),
        Err(error) => {
            tracing::debug!(%error, "signed tag refused");
            metrics.refused_tags.fetch_add(1, Relaxed);
            None
        }
    }
}

/// Takes a status that somebody who is trusted has reached for the verdict, if it can be one here.
pub(crate) fn take_over<B>(request: &mut Request<B>, status: GrayStatus) {
    if let Some(classified) = request.extensions_mut().get_mut::<Classified<Revision>>()
        && classified.revision.admits(status)
    {
        classified.verdict.status = status;
        classified.verdict.rule = None;
    }
}

/// Removes what services reported from an answer, and puts the whole report there where one was
/// asked for.
pub(crate) fn report(headers: &mut HeaderMap, trail: Option<&Trail>) {
    let reported = headers.remove(PATH_HEADER);
    let Some(trail) = trail.filter(|trail| trail.probe.is_some()) else { return };
    let mut calls = Vec::new();
    if let (Some(route), Some(picked)) = (&trail.route, &trail.picked) {
        let version = picked.member.instance().version.as_ref();
        let named = Hop {
            service: route.service.to_string(),
            version: version.map(ToString::to_string),
            asked: Some(trail.verdict.status.to_string()),
            fallback: picked.fallback.map(|fallback| fallback.as_str().to_owned()),
            ..Hop::default()
        };
        calls.push(named.answered_by(reported.as_ref().and_then(Hop::from_header)));
    }
    let own = Hop {
        service: GATEWAY.to_owned(),
        asked: Some(trail.verdict.status.to_string()),
        calls,
        ..Hop::default()
    };
    if let Some(value) = own.to_header() {
        headers.insert(PATH_HEADER, value);
    }
}
