use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An instance of the test's own, which answers what it was sent.
#[derive(Debug)]
pub struct Stub {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its version.
    pub version: String,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    /// Where it runs, if nothing of it is to outlive it.
    own: Option<Runtime>,
}

/// What a [`Stub`] answers.
#[derive(Clone, Debug)]
pub struct Echo {
    /// The version of the instance.
    pub version: String,
    /// The target as it arrived.
    pub target: String,
    /// The headers as they arrived, names in lower case.
    pub headers: BTreeMap<String, Vec<String>>,
}

impl Stub {
    /// Starts an instance of a version.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub async fn start(version: &str) -> anyhow::Result<Self> {
        Self::start_at("127.0.0.1:0".parse()?, version).await
    }

    /// Starts an instance that is gone at once when it is dropped: its connections are reset, whatever
    /// is under way on them.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub async fn start_to_be_killed(version: &str) -> anyhow::Result<Self> {
        let own =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut stub = Self::start_on(own.handle(), "127.0.0.1:0".parse()?, version).await?;
        stub.own = Some(own);
        Ok(stub)
    }

    /// Starts an instance at an address.
    ///
    /// # Errors
    ///
    /// Where the address cannot be had.
    pub async fn start_at(addr: SocketAddr, version: &str) -> anyhow::Result<Self> {
        Self::start_on(&Handle::current(), addr, version).await
    }

    async fn start_on(on: &Handle, addr: SocketAddr, version: &str) -> anyhow::Result<Self> {
        let requests = Arc::<AtomicUsize>::default();
        let state = (version.to_owned(), Arc::clone(&requests));
        let router = Router::new().fallback(echo).with_state(state);
        let kept = Handle::current().id() == on.id();
        let (tell, told) = oneshot::channel();
        let task = on.spawn(async move {
            let listener = TcpListener::bind(addr).await;
            let _ = tell.send(listener.as_ref().ok().and_then(|it| it.local_addr().ok()));
            let Ok(listener) = listener else { return };
            let resetting = listener.tap_io(move |stream| {
                // Closed while something is under way, it is reset.
                let _ = if kept { Ok(()) } else { stream.set_zero_linger() };
            });
            // It ends with the test.
            let _ = axum::serve(resetting, router).await;
        });
        let addr = told.await?.with_context(|| format!("{addr} cannot be had"))?;
        Ok(Self { addr, version: version.to_owned(), requests, task, own: None })
    }

    /// Returns how many requests it has answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns its line in a registry file.
    pub fn registry_line(&self) -> String {
        format!("  - {{address: '{}', metadata: {{version: {}}}}}\n", self.addr, self.version)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}

impl Echo {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// Where it is none of a [`Stub`].
    pub async fn read(answer: reqwest::Response) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(&answer.text().await?)?;
        let text =
            |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let headers = value.get("headers").cloned().unwrap_or_default();
        Ok(Self {
            version: text("version"),
            target: text("target"),
            headers: serde_json::from_value(headers)?,
        })
    }

    /// Returns all lines, as they would be written.
    pub fn lines(&self) -> String {
        let all = self.headers.iter();
        let all = all.flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        all.map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat()
    }

    /// Returns the lines of a header.
    pub fn header(&self, name: &str) -> &[String] {
        self.headers.get(name).map_or(&[], Vec::as_slice)
    }
}

async fn echo(
    State((version, requests)): State<(String, Arc<AtomicUsize>)>,
    request: Request,
) -> Response {
    requests.fetch_add(1, Ordering::Relaxed);
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).or_default().push(value);
    }
    let target = request.uri().to_string();
    let mut body = request.into_body().into_data_stream();
    // An answer comes when the whole request has; one that breaks off gets none anyway.
    while let Some(Ok(_)) = body.next().await {}
    let mut answer =
        Json(json!({ "version": version, "target": target, "headers": headers })).into_response();
    // What an instance says about lanes must not reach the client.
    answer.headers_mut().insert("gray", http::HeaderValue::from_static("GRAY"));
    answer
}
