use std::collections::BTreeSet;
use std::sync::Arc;

use gray_config::{Faults, KeyPath};
use gray_filters::Head;
use gray_lb::{Fallback, ServiceName};
use gray_propagation::HopTag;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method};
use regex::Regex;

use crate::head::is_host;
use crate::properties::{
    HostPolicy, PathProperties, RouteMatchProperties, RouteProperties, TimeoutProperties,
};
use crate::tags::GATEWAY;

/// Where requests go.
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// The service.
    pub service: ServiceName,
    /// Which host the instance is told was asked for.
    pub host: HostPolicy,
    /// How long things may take.
    pub timeouts: TimeoutProperties,
    matcher: Matcher,
    strip_prefix: Option<String>,
    add_prefix: Option<String>,
    hops: Hops,
}

/// What each request of a route tells its instance about the hop, written once.
#[derive(Debug)]
struct Hops {
    plain: HeaderValue,
    base: HeaderValue,
    all: HeaderValue,
}

impl Hops {
    fn new(service: &str) -> Self {
        let to = |fallback: Option<Fallback>| {
            let fallback = fallback.map(|fallback| fallback.as_str().to_owned());
            // The instance is the next: nobody stands between.
            let lane = None;
            let tag = HopTag { from: GATEWAY.to_owned(), to: service.to_owned(), fallback, lane };
            tag.to_header().unwrap_or_else(|| HeaderValue::from_static(""))
        };
        Self { plain: to(None), base: to(Some(Fallback::Base)), all: to(Some(Fallback::All)) }
    }
}

#[derive(Debug)]
struct Matcher {
    host: Option<String>,
    path: Option<PathMatch>,
    methods: Vec<Method>,
}

#[derive(Debug)]
enum PathMatch {
    Prefix(String),
    Exact(String),
    Regex(Regex),
}

/// Maps requests to routes; the first that takes a request counts.
#[derive(Debug, Default)]
pub struct Routes(Vec<Arc<Route>>);

impl Routes {
    /// Reads the routes, noting what is wrong with them.
    pub fn new(
        properties: &[RouteProperties],
        timeouts: TimeoutProperties,
        at: &KeyPath,
        faults: &mut Faults,
    ) -> Self {
        let mut names = BTreeSet::new();
        let mut routes = Vec::new();
        for (index, one) in properties.iter().enumerate() {
            let at = at.index(index);
            let name = one.name.as_deref().unwrap_or(&one.service);
            if one.service.is_empty() {
                faults.error(&at.key("service"), "a route needs a service");
            }
            if !names.insert(name) {
                let message = format!("a second route is named `{name}`; give it a `name`");
                faults.error(&at, message);
            }
            let matcher = Matcher::new(&one.matches, &at.key("match"), faults);
            check_prefix(one.strip_prefix.as_deref(), &at.key("stripPrefix"), faults);
            check_prefix(one.add_prefix.as_deref(), &at.key("addPrefix"), faults);
            if let HostPolicy::Name(name) = &one.host
                && name.parse::<Authority>().is_err()
            {
                faults.error(&at.key("host").key("name"), format!("`{name}` is no host"));
            }
            routes.push(Arc::new(Route {
                name: name.into(),
                service: ServiceName::new(one.service.as_str()),
                host: one.host.clone(),
                timeouts: one.timeouts.map_or(timeouts, |own| own.over(timeouts)),
                matcher,
                strip_prefix: one.strip_prefix.clone(),
                add_prefix: one.add_prefix.clone(),
                hops: Hops::new(&one.service),
            }));
        }
        Self(routes)
    }

    /// Finds the route of a request.
    pub fn resolve(&self, head: &Head<'_>) -> Option<&Arc<Route>> {
        self.0.iter().find(|route| route.matcher.takes(head))
    }

    /// Returns all routes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter()
    }

    /// Returns the services that routes lead to, each once.
    pub fn services(&self) -> BTreeSet<ServiceName> {
        self.0.iter().map(|route| route.service.clone()).collect()
    }
}

impl Route {
    /// Returns what the instance is told about the hop.
    pub(crate) const fn hop(&self, fallback: Option<Fallback>) -> &HeaderValue {
        match fallback {
            None | Some(Fallback::Fail) => &self.hops.plain,
            Some(Fallback::Base) => &self.hops.base,
            Some(Fallback::All) => &self.hops.all,
        }
    }

    /// Returns what the instance is asked for, byte by byte what the client asked for but for the
    /// prefixes; `None` where nothing changes.
    pub fn rewrite(&self, text: &str) -> Option<PathAndQuery> {
        // The whole server has no path that could be changed (RFC 9112, section 3.2.4).
        if (self.strip_prefix.is_none() && self.add_prefix.is_none()) || text == "*" {
            return None;
        }
        let strip = self.strip_prefix.as_deref().map(|prefix| prefix.trim_end_matches('/'));
        let rest = strip.and_then(|prefix| below(text, prefix)).unwrap_or(text);
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let add = self.add_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("{add}{slash}{rest}").parse().ok()
    }
}

/// Returns what stands behind a prefix that ends with a segment.
fn below<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

fn check_prefix(prefix: Option<&str>, at: &KeyPath, faults: &mut Faults) {
    if prefix.is_some_and(|prefix| !prefix.starts_with('/') || prefix.contains(['?', '#', ' '])) {
        faults.error(at, "a prefix begins with `/` and has no `?`, `#` or blank");
    }
}

impl Matcher {
    fn new(properties: &RouteMatchProperties, at: &KeyPath, faults: &mut Faults) -> Self {
        let mut methods = Vec::new();
        for (index, text) in properties.methods.iter().enumerate() {
            let method = text.parse::<Method>().map_err(|_| format!("`{text}` is no method"));
            methods.extend(faults.check(&at.key("methods").index(index), method));
        }
        if let Some(host) = properties.host.as_deref().filter(|host| !is_pattern(host)) {
            let message =
                format!("{host:?} is no host's name, nor `*` and the end of one; it has no port");
            faults.error(&at.key("host"), message);
        }
        let at = at.key("path");
        let path = properties.path.as_ref().and_then(|path| match path {
            PathProperties::Prefix(prefix) => {
                check_prefix(Some(prefix), &at.key("prefix"), faults);
                Some(PathMatch::Prefix(prefix.trim_end_matches('/').to_owned()))
            }
            PathProperties::Exact(path) => {
                check_prefix(Some(path), &at.key("exact"), faults);
                Some(PathMatch::Exact(path.clone()))
            }
            PathProperties::Regex(pattern) => {
                let compiled = Regex::new(&format!("^(?:{pattern})$"));
                let compiled = compiled.map_err(|error| {
                    error.to_string().lines().last().unwrap_or_default().to_owned()
                });
                faults.check(&at.key("regex"), compiled).map(PathMatch::Regex)
            }
        });
        let host = properties.host.as_deref().map(str::to_ascii_lowercase);
        Self { host, path, methods }
    }

    fn takes(&self, head: &Head<'_>) -> bool {
        let Head { method, path, .. } = *head;
        (self.methods.is_empty() || self.methods.contains(method))
            && self
                .host
                .as_deref()
                .is_none_or(|pattern| head.host().is_some_and(|it| host_fits(pattern, it)))
            && match &self.path {
                None => true,
                Some(PathMatch::Prefix(prefix)) => below(path, prefix).is_some(),
                Some(PathMatch::Exact(exact)) => path == exact,
                Some(PathMatch::Regex(pattern)) => pattern.is_match(path),
            }
    }
}

/// Tells whether there is a host, as it is compared, that fits a pattern.
fn is_pattern(pattern: &str) -> bool {
    let Some(end) = pattern.strip_prefix('*') else {
        return is_host(pattern.as_bytes()) && !pattern.contains('*') && without_port(pattern);
    };
    end.is_empty() || (is_host(end.as_bytes()) && !end.contains(['*', ':']))
}

/// A colon stands in addresses of version 6 only.
fn without_port(host: &str) -> bool {
    host.ends_with(']') || !host.contains(':')
}

fn host_fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            let start = host.len().checked_sub(suffix.len()).filter(|start| *start > 0);
            start
                .and_then(|start| host.get(start..))
                .is_some_and(|it| it.eq_ignore_ascii_case(suffix))
        }
        None => host.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(yaml: &str) -> (Routes, Vec<String>) {
        let document = gray_config::Document::parse("r", yaml).unwrap();
        let mut faults = Faults::default();
        let root = KeyPath::ROOT;
        let properties: Vec<RouteProperties> = document.read(&root, &mut faults).unwrap();
        let routes = Routes::new(&properties, TimeoutProperties::default(), &root, &mut faults);
        (routes, faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect())
    }

    #[track_caller]
    fn check(matches: &str, request: &str, expected: bool) {
        let (routes, faults) = routes(&format!("[{{service: a, match: {matches}}}]"));
        assert_eq!(faults, [""; 0]);
        let words: Vec<&str> = request.split(' ').collect();
        let method: Method = words[0].parse().unwrap();
        let (path, headers) = (words[1], http::HeaderMap::new());
        let (target_host, client) = (words.get(2).copied(), std::net::Ipv4Addr::LOCALHOST.into());
        let head =
            Head { method: &method, path, query: None, target_host, headers: &headers, client };
        let found = routes.resolve(&head);
        assert_eq!(found.is_some(), expected, "{matches} for {request}");
    }

    #[test]
    fn takes_what_fits() {
        check("{path: {prefix: /order}}", "GET /order", true);
        check("{path: {prefix: /order}}", "GET /order/1", true);
        check("{path: {prefix: /order/}}", "GET /order/1", true);
        check("{path: {prefix: /order}}", "GET /orders", false);
        check("{path: {prefix: /}}", "GET /x", true);
        check("{path: {exact: /a}}", "GET /a/", false);
        check("{path: {regex: '/v[0-9]+/.*'}}", "GET /v2/x", true);
        check("{path: {regex: '/v[0-9]+'}}", "GET /x/v2", false);
        check("{methods: [GET, HEAD]}", "POST /", false);
        check("{host: '*.example.com'}", "GET / API.example.com", true);
        check("{host: '*.example.com'}", "GET / .example.com", false);
        check("{host: example.com}", "GET / other.com", false);
        check("{host: example.com}", "GET /", false);
    }

    #[track_caller]
    fn check_rewrite(route: &str, target: &str, expected: &str) {
        let (routes, _) = routes(&format!("[{{service: a, {route}}}]"));
        let target: PathAndQuery = target.parse().unwrap();
        let rewritten = routes.0[0].rewrite(target.as_str()).unwrap_or(target);
        assert_eq!(rewritten.as_str(), expected);
    }

    #[test]
    fn rewrites_the_front_and_nothing_else() {
        check_rewrite("stripPrefix: /api", "/api/a/%2e%2e/b?c=%20", "/a/%2e%2e/b?c=%20");
        check_rewrite("stripPrefix: /api", "/api", "/");
        check_rewrite("stripPrefix: /api", "/api?x", "/?x");
        check_rewrite("stripPrefix: /api", "/apis", "/apis");
        check_rewrite("stripPrefix: /api, addPrefix: /v1/", "/api/a", "/v1/a");
        check_rewrite("addPrefix: /v1", "//a", "/v1//a");
        check_rewrite("stripPrefix: /v1, addPrefix: /v1", "*", "*");
    }

    #[test]
    fn names_what_is_wrong() {
        let (_, faults) = routes(
            "[{service: a}, {service: a}, {service: '', match: {path: {regex: '('}, methods: [' ']}, \
             stripPrefix: x, host: {name: 'a b'}}]",
        );
        assert_eq!(faults.len(), 6, "{faults:?}");
    }
}
