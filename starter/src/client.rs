use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gray_lb::{NoInstance, ServedLanes, ServiceName};
use gray_propagation::{Context, current};
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;

use crate::outgoing::{ATTEMPTS, Outgoing};

/// Calls services by their names, in the lane of the request that is being served.
///
/// ```no_run
/// # async fn example(client: gray_starter::GrayClient) -> Result<(), Box<dyn std::error::Error>> {
/// let user = client.get("http://user-app/user/1").send().await?.text().await?;
/// # Ok(())
/// # }
/// ```
///
/// An instance that cannot be reached is replaced by another one of the lane, and so is one that
/// breaks off, where the call may be made twice (RFC 9110, section 9.2.2). Where the lane has no
/// instance, the service's fallback decides; the call stays tagged.
#[derive(Clone, Debug)]
pub struct GrayClient(Arc<Core>);

#[derive(Debug)]
struct Core {
    outgoing: Outgoing,
    http: reqwest::Client,
    bases: Bases,
}

/// The URL of each instance, parsed once: parsing is a tenth of what a call costs.
#[derive(Debug, Default)]
struct Bases(Mutex<BTreeMap<SocketAddr, Url>>);

/// How many URLs are kept; instances come and go.
const MAX_BASES: usize = 4096;

impl Bases {
    /// Returns the URL of a path, with its query, at an address.
    fn at(&self, addr: SocketAddr, path: &str) -> Result<Url, CallError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&addr).cloned();
        let mut url = match known {
            Some(url) => url,
            None => self.learn(addr)?,
        };
        let path = path.split('#').next().unwrap_or_default();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        if path.len() > 1 {
            url.set_path(path);
        }
        if query.is_some() {
            url.set_query(query);
        }
        Ok(url)
    }

    fn learn(&self, addr: SocketAddr) -> Result<Url, CallError> {
        let text = format!("http://{addr}/");
        let url = Url::parse(&text).map_err(|_| CallError::Url(text))?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_BASES {
            known.clear();
        }
        known.insert(addr, url.clone());
        drop(known);
        Ok(url)
    }
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The URL does not begin with `http://` and the name of a service.
    #[error("`{0}` does not begin with http:// and the name of a service")]
    Url(String),
    /// No instance may serve the call.
    #[error(transparent)]
    NoInstance(#[from] NoInstance),
    /// The call failed on its way.
    #[error("the call to {service} failed")]
    Http {
        /// The service.
        service: ServiceName,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
}

impl GrayClient {
    pub(crate) fn new(outgoing: Outgoing, http: reqwest::Client) -> Self {
        Self(Arc::new(Core { outgoing, http, bases: Bases::default() }))
    }

    /// Begins a GET.
    pub fn get(&self, url: &str) -> Call {
        self.call(Method::GET, url)
    }

    /// Begins a POST.
    pub fn post(&self, url: &str) -> Call {
        self.call(Method::POST, url)
    }

    /// Begins a PUT.
    pub fn put(&self, url: &str) -> Call {
        self.call(Method::PUT, url)
    }

    /// Begins a DELETE.
    pub fn delete(&self, url: &str) -> Call {
        self.call(Method::DELETE, url)
    }

    /// Begins a call of `http://<service>/<path>`.
    pub fn call(&self, method: Method, url: &str) -> Call {
        let service = service_of(url).ok_or_else(|| CallError::Url(url.to_owned()));
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let path = rest.find(['/', '?', '#']).map_or("/", |at| rest.split_at(at).1).to_owned();
        Call {
            client: self.clone(),
            service,
            path,
            parts: Draft { method, headers: HeaderMap::new(), body: None, timeout: None },
            begun_in: current(),
        }
    }
}

/// Returns the service that a URL names, as it is written.
fn service_of(url: &str) -> Option<ServiceName> {
    let rest = url.strip_prefix("http://")?;
    let name = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let plain = !name.is_empty() && !name.contains(['@', ':', ' ']);
    plain.then(|| ServiceName::new(name))
}

/// A call that is being put together.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Call {
    client: GrayClient,
    service: Result<ServiceName, CallError>,
    path: String,
    parts: Draft,
    /// The request that was being served: whoever polls the call later, it belongs to that one.
    begun_in: Option<Arc<Context>>,
}

/// What a request is made of once it is known where it goes: the name of a service need not be one of
/// a host, and would be no URL of reqwest's.
#[derive(Debug)]
struct Draft {
    method: Method,
    headers: HeaderMap,
    body: Option<reqwest::Body>,
    timeout: Option<Duration>,
}

impl Draft {
    fn at(self, url: Url) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method, url);
        *request.headers_mut() = self.headers;
        *request.body_mut() = self.body;
        *request.timeout_mut() = self.timeout;
        request
    }
}

impl Call {
    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.append(name, value);
        self
    }

    /// Sets headers, each in place of what was there under its name.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        let mut last = None;
        for (name, value) in headers {
            // Further values of a name come without it.
            match name {
                Some(name) => {
                    self.parts.headers.insert(name.clone(), value);
                    last = Some(name);
                }
                None => {
                    if let Some(name) = &last {
                        self.parts.headers.append(name, value);
                    }
                }
            }
        }
        self
    }

    /// Sets the body. One that is streamed cannot be sent to another instance.
    pub fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.parts.body = Some(body.into());
        self
    }

    /// Limits the time of each attempt, until the end of the answer. Without it an instance may be
    /// silent for a minute.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.parts.timeout = Some(timeout);
        self
    }

    /// Sends the call.
    ///
    /// # Errors
    ///
    /// See [`CallError`]; an answer with an error status is an answer.
    pub async fn send(self) -> Result<reqwest::Response, CallError> {
        let Self { client: GrayClient(client), service, path, parts, begun_in } = self;
        let service = service?;
        // A copy's own lane is known as soon as it is known how lanes are served.
        let served = client.outgoing.served(&service).await;
        let context = client.outgoing.context(begun_in, &service).await;
        let answer = match served {
            Ok(served) => client.try_all(&service, &path, parts, &context, &served).await,
            Err(unknown) => Err(unknown.into()),
        };
        if answer.is_err() {
            client.outgoing.failed(&service, &context);
        }
        answer
    }
}

impl Core {
    /// Tries instances of the lane until one answers.
    async fn try_all(
        &self,
        service: &ServiceName,
        path: &str,
        parts: Draft,
        context: &Context,
        served: &ServedLanes,
    ) -> Result<reqwest::Response, CallError> {
        let failed = |source| CallError::Http { service: service.clone(), source };
        let mut next = Next::First(parts);
        let mut tried = Vec::new();
        let mut failure = None;
        loop {
            let picked = match self.outgoing.pick(service, context, served, &tried).await {
                Ok(picked) => picked,
                // Why the last instance failed says more than that there is no other.
                Err(none) => return Err(failure.unwrap_or_else(|| none.into())),
            };
            let addr = picked.member.instance().addr;
            let mut request = next.at(self.bases.at(addr, path)?);
            let spare = Next::again(&request).filter(|_| tried.len() + 1 < ATTEMPTS);
            let idempotent = request.method().is_idempotent();
            self.outgoing.write(service, context, &picked, request.headers_mut());
            let in_flight = picked.member.begin();
            let answer = self.http.execute(request).await;
            drop(in_flight);
            let error = match answer {
                Ok(answer) => {
                    self.outgoing.answered(service, context, &picked, answer.headers());
                    return Ok(answer);
                }
                Err(error) => error,
            };
            tried.push(addr);
            let broke_off = error.is_request() && !error.is_timeout();
            match spare.filter(|_| error.is_connect() || (broke_off && idempotent)) {
                Some(spare) => next = spare,
                None => return Err(failed(error)),
            }
            failure = Some(failed(error));
        }
    }
}

/// What the next attempt is made of.
enum Next {
    /// What the application put together, or what it would have put together again: most requests have
    /// neither headers of the caller's nor a body, and nothing needs to be copied.
    First(Draft),
    /// A copy of what was sent.
    Copy(Box<reqwest::Request>),
}

impl Next {
    /// Returns what is needed to send a request once more; `None` where its body is streamed.
    fn again(request: &reqwest::Request) -> Option<Self> {
        if request.headers().is_empty() && request.body().is_none() {
            let (method, timeout) = (request.method().clone(), request.timeout().copied());
            let (headers, body) = (HeaderMap::new(), None);
            return Some(Self::First(Draft { method, headers, body, timeout }));
        }
        request.try_clone().map(|request| Self::Copy(Box::new(request)))
    }

    fn at(self, url: Url) -> reqwest::Request {
        match self {
            Self::First(parts) => parts.at(url),
            Self::Copy(mut request) => {
                *request.url_mut() = url;
                *request
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gray_propagation::{GrayStatus, Lane, scope};

    use super::*;

    #[test]
    fn the_path_and_the_query_go_where_the_instance_is() {
        let bases = Bases::default();
        let addr = "127.0.0.1:8080".parse().unwrap();
        for (path, expected) in [
            ("/", "http://127.0.0.1:8080/"),
            ("/a%2Fb//c?x=%20&y=a+b#part", "http://127.0.0.1:8080/a%2Fb//c?x=%20&y=a+b"),
            ("?x", "http://127.0.0.1:8080/?x"),
            ("/用户", "http://127.0.0.1:8080/%E7%94%A8%E6%88%B7"),
        ] {
            assert_eq!(bases.at(addr, path).unwrap().as_str(), expected);
        }
        let addr = "[::1]:80".parse().unwrap();
        assert_eq!(bases.at(addr, "/a").unwrap().as_str(), "http://[::1]/a");
    }

    #[test]
    fn the_service_is_the_host_as_it_is_written() {
        let name = |url| service_of(url).map(|name| name.to_string());
        assert_eq!(name("http://user-app/a"), Some("user-app".to_owned()));
        assert_eq!(name("http://User_App?x"), Some("User_App".to_owned()));
        for wrong in
            ["", "user-app/a", "https://user-app/", "http:///a", "http://a:80/", "http://u@a/"]
        {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    /// A client that finds instances of these versions of `b`, at these addresses.
    fn client(folder: &std::path::Path, copies: &[(&str, SocketAddr)]) -> GrayClient {
        let line = |(version, addr): &(&str, SocketAddr)| {
            format!("  - {{address: '{addr}', metadata: {{version: {version}}}}}\n")
        };
        let lines: Vec<String> = copies.iter().map(line).collect();
        let registry = folder.join("registry.yaml");
        std::fs::write(&registry, format!("services:\n  b:\n{}", lines.concat())).unwrap();
        let rules = folder.join("rules.yaml");
        let text = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n\
                    services: {b: {fallback: fail}}\n";
        std::fs::write(&rules, text).unwrap();
        let properties = crate::StarterProperties {
            service: "a".to_owned(),
            registry: Some(registry),
            rules: vec![rules],
            ..crate::StarterProperties::default()
        };
        crate::Starter::start(properties).unwrap().client()
    }

    /// Serves its version and how often it was asked.
    async fn copy(version: &'static str) -> (&'static str, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(async move || version);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (version, addr)
    }

    /// An address where nobody listens.
    async fn nobody(version: &'static str) -> (&'static str, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        (version, listener.local_addr().unwrap())
    }

    async fn ask(client: &GrayClient, status: GrayStatus) -> Result<String, CallError> {
        let call = client.post("http://b/").body("x").send();
        let answer = scope(Context::of(status), call).await?;
        Ok(answer.text().await.unwrap())
    }

    const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

    #[tokio::test]
    async fn an_instance_that_cannot_be_reached_is_replaced_within_the_lane() {
        let folder = tempfile::tempdir().unwrap();
        let copies = [copy("V1").await, copy("V2").await, nobody("V2").await, nobody("V2").await];
        let client = client(folder.path(), &copies);
        for _ in 0..12 {
            assert_eq!(ask(&client, GRAY).await.unwrap(), "V2");
            assert_eq!(ask(&client, GrayStatus::Prod).await.unwrap(), "V1");
        }
    }

    /// Where versions are announced under another name, and the design's keys have another prefix.
    #[tokio::test]
    async fn names_may_be_a_companys_own() {
        let folder = tempfile::tempdir().unwrap();
        let (base, gray) = (copy("V1").await.1, copy("V2").await.1);
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let line = |addr, version| {
            format!("  - {{address: '{addr}', metadata: {{release: {version}}}}}\n")
        };
        let lines = [line(base, "V1"), line(gray, "V2")].concat();
        let rules = "shop.gray: {load: true, version: {prodVersion: V1, grayVersion: V2}}\n\
                     b.ribbon.NFLoadBalancerRuleClassName: com.kerwin.gray.GrayRoundRobinRule\n";
        let properties = crate::StarterProperties {
            service: "a".to_owned(),
            registry: Some(write("registry.yaml", format!("services:\n  b:\n{lines}"))),
            rules: vec![write("rules.yaml", rules.to_owned())],
            version_key: Some("release".to_owned()),
            prefix: Some("shop.gray".to_owned()),
            ..crate::StarterProperties::default()
        };
        let client = crate::Starter::start(properties).unwrap().client();
        for _ in 0..4 {
            assert_eq!(ask(&client, GRAY).await.unwrap(), "V2");
            assert_eq!(ask(&client, GrayStatus::Prod).await.unwrap(), "V1");
        }
    }

    #[tokio::test]
    async fn a_lane_that_is_down_is_not_left() {
        let folder = tempfile::tempdir().unwrap();
        let client = client(folder.path(), &[copy("V1").await, nobody("V2").await]);
        let error = ask(&client, GRAY).await.unwrap_err();
        assert!(matches!(error, CallError::Http { .. }), "{error:?}");
        assert_eq!(ask(&client, GrayStatus::Prod).await.unwrap(), "V1");
    }

    #[tokio::test]
    async fn a_lane_without_an_instance_does_as_its_service_says() {
        let folder = tempfile::tempdir().unwrap();
        let client = client(folder.path(), &[copy("V1").await]);
        let error = ask(&client, GRAY).await.unwrap_err();
        assert!(matches!(error, CallError::NoInstance(NoInstance::EmptyLane { .. })), "{error:?}");
    }
}
