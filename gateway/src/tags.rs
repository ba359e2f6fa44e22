//! Tags: the lane that somebody who is trusted asks for, and the report of where it led.

use std::net::IpAddr;
use std::time::SystemTime;

use gray_filters::TrustedProxies;
use gray_propagation::{Carriers, GrayStatus, Hop, InvalidTag, Lines, Probe, TagKeys};
use http::HeaderValue;

use crate::field::{PATH, TAG};
use crate::head::HeadFields;
use crate::observe::Trail;

/// The name under which the gateway reports itself.
pub(crate) const GATEWAY: &str = "graylane";

/// Who may choose the lane of a request, which rules choose otherwise.
#[derive(Clone, Debug, Default)]
pub struct TagPolicy {
    /// Peers whose word is believed.
    pub trusted: TrustedProxies,
    /// Keys whose signatures are.
    pub keys: TagKeys,
}

/// A lane that somebody chose.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) status: GrayStatus,
    /// Why it is believed: `signed` or `trusted`.
    pub(crate) by: &'static str,
    /// The report that was asked for with it.
    pub(crate) probe: Option<Probe>,
}

impl TagPolicy {
    /// Returns the lane that a request's sender chose, if one who may choose did, and why its signed tag
    /// is not believed, if it has one that is not.
    pub(crate) fn chosen(
        &self,
        peer: IpAddr,
        headers: &impl Lines,
    ) -> (Option<Chosen>, Option<InvalidTag>) {
        let signed = if self.keys.is_empty() { None } else { headers.first(&TAG) };
        let signed = signed.and_then(|value| HeaderValue::from_bytes(value).ok());
        let signed = signed.map(|value| {
            let verified = self.keys.verify(&value, SystemTime::now());
            (value, verified)
        });
        let refused = match signed {
            Some((value, Ok(tag))) => {
                let probe = tag.probe.then(|| Probe::new(value));
                return (Some(Chosen { status: tag.status, by: "signed", probe }), None);
            }
            Some((_, Err(error))) => Some(error),
            None => None,
        };
        let status = self.trusted.trusts(peer).then(|| Carriers::default().extract(headers));
        let chosen = status.flatten().map(|status| Chosen { status, by: "trusted", probe: None });
        (chosen, refused)
    }
}

/// Takes a status that somebody who is trusted has chosen for the verdict, if it can be one here.
pub(crate) fn take_over(trail: &mut Trail, status: GrayStatus) {
    if trail.revision.admits(status) {
        trail.verdict.status = status;
        trail.verdict.rule = None;
    }
}

/// Removes what services reported from an answer, and puts the whole report there where one was
/// asked for.
pub(crate) fn report(headers: &mut HeadFields, trail: Option<&Trail>) {
    let reported = headers.first(&PATH).and_then(|it| HeaderValue::from_bytes(it).ok());
    if reported.is_some() {
        headers.remove(&PATH);
    }
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
        headers.insert(&PATH, value.as_bytes());
    }
}
