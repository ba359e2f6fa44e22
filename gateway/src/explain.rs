//! Why a request is decided as it is, by the very code that decides it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gray_filters::{Explanation, Head, TrustedProxies};
use gray_lb::{Balancer, Directory, Fallback, Member, NoInstance, Want};
use gray_propagation::{Carriers, GRAY_HEADER, GrayStatus, HOP_HEADER};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use serde::{Deserialize, Serialize};

use crate::head::RequestTarget;
use crate::revision::Revision;
use crate::routes::Routes;
use crate::tags::{Chosen, TagPolicy};

/// A request that somebody asks about.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// Its method; GET where not given.
    #[serde(default = "get")]
    pub method: String,
    /// Its target: a path, or a whole URL.
    pub url: String,
    /// Its headers, as pairs.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    pub headers: Vec<(String, String)>,
    /// The address that it comes from: the client's, or that of a proxy that names the client;
    /// 127.0.0.1 where not given.
    #[serde(default = "loopback")]
    #[schema(value_type = String)]
    pub ip: IpAddr,
}

fn get() -> String {
    "GET".to_owned()
}

const fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

/// What would become of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The digest of the rules.
    pub revision: String,
    /// The client's address, by which it is decided.
    pub client: IpAddr,
    /// How its lane is decided.
    pub decision: Explanation,
    /// What became of a lane that its sender chose, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether that lane was taken for the verdict.
    #[serde(skip)]
    pub taken: bool,
    /// The route that takes it.
    pub route: Option<String>,
    /// The service it goes to.
    pub service: Option<String>,
    /// The version that the lane has there.
    pub version: Option<String>,
    /// The instances that may serve it.
    pub instances: Vec<String>,
    /// Their versions, each once: of base where it takes the lane's place.
    pub served: Vec<String>,
    /// The fallback that is needed.
    pub fallback: Option<&'static str>,
    /// Why it is not served.
    pub error: Option<String>,
    /// The headers that tell the next hop.
    pub writes: Vec<(String, String)>,
}

/// Why something is no request.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// The method is none.
    #[error("{0:?} is no method")]
    Method(String),
    /// The URL is none.
    #[error("{0:?} is no URL or path")]
    Url(String),
    /// The header is none.
    #[error("{0:?} is no header")]
    Header(String),
    /// The gateway decides nothing about it.
    #[error("the gateway refuses it with {status}: {why}", status = why.status().as_u16())]
    Refused {
        /// What it answers.
        why: crate::Error,
    },
}

/// What is needed to explain requests.
#[derive(Clone, Copy, Debug)]
pub struct Explainer<'a> {
    /// Where requests go.
    pub routes: &'a Routes,
    /// How they are decided.
    pub revision: &'a Revision,
    /// The instances.
    pub directory: &'a Directory,
    /// How the verdict is written.
    pub carriers: &'a Carriers,
    /// The proxies whose word about the client is believed.
    pub proxies: &'a TrustedProxies,
    /// Who may choose a lane.
    pub tags: &'a TagPolicy,
    /// How long a target may be, in bytes.
    pub max_target: usize,
}

impl Explainer<'_> {
    /// Explains a request.
    ///
    /// # Errors
    ///
    /// What is wrong with the request itself.
    pub fn explain(&self, asked: &Asked) -> Result<Answer, InvalidRequest> {
        let method = asked.method.parse::<Method>();
        let method = method.map_err(|_| InvalidRequest::Method(asked.method.clone()))?;
        let uri = asked.url.parse::<Uri>().map_err(|_| InvalidRequest::Url(asked.url.clone()))?;
        self.check(&asked.url, &method).map_err(|why| InvalidRequest::Refused { why })?;
        let mut headers = headers_of(&asked.headers)?;
        let peer = asked.ip.to_canonical();
        if let Some(host) = uri.authority().and_then(|it| HeaderValue::try_from(it.as_str()).ok()) {
            headers.insert(HOST, host);
        }
        let client = self.proxies.client(peer, &headers).address;
        crate::headers::strip_request(&mut headers, true);
        let head = Head {
            method: &method,
            path: uri.path(),
            query: uri.query(),
            target_host: uri.host(),
            headers: &headers,
            client,
        };
        let (verdict, mut decision) = self.revision.rules.explain(&head);
        let (tag, taken) = self.tag(peer, &headers);
        let status = taken.unwrap_or(verdict.status);
        if taken.is_some() {
            decision.status = status.to_string();
            decision.rule = None;
        }
        let mut answer = Answer {
            revision: self.revision.digest.clone(),
            client,
            decision,
            tag,
            taken: taken.is_some(),
            route: None,
            service: None,
            version: None,
            instances: Vec::new(),
            served: Vec::new(),
            fallback: None,
            error: None,
            writes: Vec::new(),
        };
        let hop = self.follow(&head, status, &mut answer);
        answer.writes = self.writes(status, hop, &headers);
        Ok(answer)
    }

    /// Refuses what is refused before anything is decided about it.
    fn check(&self, url: &str, method: &Method) -> Result<(), crate::Error> {
        use crate::Error;
        let target = RequestTarget::read(url, method).map_err(Error::BadRequest)?;
        if *method == Method::CONNECT {
            return Err(Error::Method(Method::CONNECT));
        }
        if target.path().len() + target.query().map_or(0, str::len) > self.max_target {
            return Err(Error::TargetTooLong);
        }
        Ok(())
    }

    /// Says what becomes of the lane that a request's sender chose, and which one is taken for the
    /// verdict.
    fn tag(&self, peer: IpAddr, headers: &HeaderMap) -> (Option<String>, Option<GrayStatus>) {
        let (chosen, refused) = self.tags.chosen(peer, headers);
        let refused = refused.map(|error| format!("refused: {error}"));
        let Some(Chosen { status, by, .. }) = chosen else { return (refused, None) };
        if self.revision.admits(status) {
            return (Some(format!("{by}: {status}")), Some(status));
        }
        (Some(format!("{by}, but {status} is no lane here")), None)
    }

    /// Says where the request goes from here; returns what the instance is told about the hop.
    fn follow(
        &self,
        head: &Head<'_>,
        status: GrayStatus,
        answer: &mut Answer,
    ) -> Option<HeaderValue> {
        if self.revision.awaited {
            answer.error = Some(crate::Error::NoRules.to_string());
            return None;
        }
        let Some(route) = self.routes.resolve(head) else {
            answer.error = Some(crate::Error::NoRoute.to_string());
            return None;
        };
        answer.route = Some(route.name.to_string());
        answer.service = Some(route.service.to_string());
        let lanes = self.revision.lanes.of(&route.service);
        answer.version = match status {
            GrayStatus::All => None,
            _ if !lanes.routed => None,
            GrayStatus::Prod => lanes.base.as_ref().map(ToString::to_string),
            GrayStatus::Gray(lane) => lanes.versions.get(&lane).map(ToString::to_string),
        };
        let Some(subsets) = self.directory.get(&route.service) else {
            answer.error = Some(NoInstance::UnknownService(route.service.clone()).to_string());
            return None;
        };
        let want = Want { service: &route.service, status, lanes, key: None, tried: &[] };
        let picked = Balancer::new(gray_config::live(self.directory.clone()).1).pick(&want);
        let hop = picked.as_ref().ok().map(|picked| route.hop(picked.fallback).clone());
        match picked {
            Ok(picked) => answer.fallback = picked.fallback.map(Fallback::as_str),
            Err(error) => answer.error = Some(error.to_string()),
        }
        let serving: Vec<&Arc<Member>> = match answer.fallback {
            Some("all") => subsets.any_but_foreign(status.lane(), lanes).collect(),
            Some("base") => subsets.of(GrayStatus::Prod, lanes).iter().collect(),
            _ => subsets.of(status, lanes).iter().collect(),
        };
        answer.instances = serving.iter().map(|it| it.instance().addr.to_string()).collect();
        let versions = serving.iter().filter_map(|it| it.instance().version.as_ref());
        let versions: BTreeSet<String> = versions.map(ToString::to_string).collect();
        answer.served = versions.into_iter().collect();
        hop
    }

    /// Returns what the next hop is told: each carrier, and whatever else becomes another by that.
    fn writes(
        &self,
        status: GrayStatus,
        hop: Option<HeaderValue>,
        came: &HeaderMap,
    ) -> Vec<(String, String)> {
        let mut headers = came.clone();
        self.carriers.inject(status, &mut headers);
        if let Some(hop) = hop {
            headers.insert(HOP_HEADER, hop);
        }
        let carriers: Vec<HeaderName> = self.carriers.names().chain([HOP_HEADER]).collect();
        let is_written = |name: &HeaderName, value: &HeaderValue| {
            carriers.contains(name) || !came.get_all(name).iter().any(|before| before == value)
        };
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let written = headers.iter().filter(|(name, value)| is_written(name, value));
        let mut written: Vec<_> =
            written.map(|(name, value)| (name.to_string(), text(value))).collect();
        // The lane first, then as they are called.
        written.sort_by_key(|(name, _)| (*name != GRAY_HEADER.as_str(), name.clone()));
        written
    }
}

fn headers_of(lines: &[(String, String)]) -> Result<HeaderMap, InvalidRequest> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let wrong = || InvalidRequest::Header(format!("{name}: {value}"));
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decision = &self.decision;
        writeln!(f, "lane      {}", decision.status)?;
        if let Some(tag) = &self.tag {
            writeln!(f, "tag       {tag}")?;
        }
        match (&decision.rule, decision.on) {
            (None, _) if self.taken => writeln!(f, "rule      none is asked, the tag decides")?,
            (Some(rule), _) => writeln!(f, "rule      {rule}")?,
            (None, true) => writeln!(f, "rule      none, so base serves")?,
            (None, false) => writeln!(f, "rule      gray release is off")?,
        }
        writeln!(f, "revision  {}", self.revision)?;
        writeln!(f, "client    {}", self.client)?;
        if let Some(user) = &decision.user {
            writeln!(f, "user      {user}")?;
        }
        if let Some(place) = &decision.place {
            let known: Vec<&str> =
                place.iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
            writeln!(f, "place     {}", known.join(", "))?;
        }
        for rule in &decision.rules {
            let word = if rule.hit { "hit" } else { "miss" };
            let why = rule.off.map(|why| format!(" ({why})")).unwrap_or_default();
            writeln!(f, "  {word:4} {} -> {}{why}", rule.name, rule.target)?;
            if let Some(when) = &rule.when {
                condition(f, when, 2)?;
            }
        }
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        writeln!(f, "route     {}", or_none(&self.route))?;
        writeln!(f, "service   {}", or_none(&self.service))?;
        writeln!(f, "version   {}", self.version.as_deref().unwrap_or("any"))?;
        writeln!(f, "instances {}", self.instances.join(", "))?;
        if let Some(fallback) = self.fallback {
            let served = self.served.join(", ");
            writeln!(f, "fallback  {fallback}: the lane has no instance, {served} serves")?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "error     {error}")?;
        }
        for (name, value) in &self.writes {
            writeln!(f, "writes    {name}: {value}")?;
        }
        Ok(())
    }
}

fn condition(
    f: &mut std::fmt::Formatter<'_>,
    report: &gray_filters::ConditionReport,
    depth: usize,
) -> std::fmt::Result {
    let mark = if report.holds { "+" } else { "-" };
    let seen = report.seen.as_ref().map(|seen| format!("   [{seen}]")).unwrap_or_default();
    writeln!(f, "{:width$}{mark} {}{seen}", "", report.condition, width = depth * 2 + 3)?;
    report.parts.iter().try_for_each(|part| condition(f, part, depth + 1))
}
