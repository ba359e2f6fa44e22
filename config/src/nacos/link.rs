use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::connection::{Connection, Incoming, Opening};
use super::login::{self, Token};
use super::message::{ConfigKey, Message, PushedService};
use super::wire::Payload;
use super::{NacosError, NacosProperties};

/// How often the server is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest wait before the next attempt to connect; the wait is drawn between zero and it.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a connection must have lasted not to count as one more failure.
const STABLE: Duration = Duration::from_secs(10);

/// Which half of Nacos a link speaks to; the server tells clients apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Module {
    /// Configuration documents.
    Config,
    /// Services and instances.
    Naming,
}

impl Module {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Naming => "naming",
        }
    }
}

/// Whether there is a connection.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Counts connections; what was subscribed on an earlier one is gone.
    pub epoch: u64,
    /// Whether the connection of this epoch stands.
    pub connected: bool,
    /// What the last attempt ended with, while there is no connection.
    pub error: Option<NacosError>,
}

/// Something the server said unasked.
#[derive(Clone, Debug)]
pub enum Push {
    /// A document changed: ask for it again.
    Config(ConfigKey),
    /// A service changed, and this is how it looks now.
    Service(Arc<PushedService>),
}

/// What a link has done so far, for the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Pushes received.
    pub pushes: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Periodic re-reads.
    pub polls: AtomicU64,
    /// Periodic re-reads that found what no push had brought.
    pub poll_finds: AtomicU64,
    /// When the server last answered or pushed anything, in milliseconds since 1970; 0 before.
    pub last_heard: AtomicU64,
}

impl Stats {
    fn heard(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or_default());
        self.last_heard.store(millis, Ordering::Relaxed);
    }
}

/// A connection to Nacos that is made again whenever it breaks.
///
/// Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Core {
    properties: NacosProperties,
    module: Module,
    state: watch::Sender<LinkState>,
    connection: watch::Sender<Option<Connection>>,
    pushes: broadcast::Sender<Push>,
    stats: Stats,
}

impl Link {
    /// Starts connecting, in the background.
    pub fn new(properties: NacosProperties, module: Module) -> Self {
        let core = Arc::new(Core {
            properties,
            module,
            state: watch::Sender::default(),
            connection: watch::Sender::default(),
            pushes: broadcast::Sender::new(4096),
            stats: Stats::default(),
        });
        let task = tokio::spawn(Arc::clone(&core).run()).abort_handle();
        Self(Arc::new(Shared { core, task }))
    }

    /// Returns the state of the link, and tells of its changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.core.state.subscribe()
    }

    /// Returns what the server says unasked from now on.
    pub fn pushes(&self) -> broadcast::Receiver<Push> {
        self.0.core.pushes.subscribe()
    }

    /// Returns what the link has done so far.
    pub fn stats(&self) -> &Stats {
        &self.0.core.stats
    }

    /// Returns which half of Nacos it speaks to.
    pub fn module(&self) -> Module {
        self.0.core.module
    }

    /// Returns how the server is reached.
    pub fn properties(&self) -> &NacosProperties {
        &self.0.core.properties
    }

    pub(super) fn tenant(&self) -> &str {
        &self.0.core.properties.namespace
    }

    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        name: &'static str,
        body: impl Serialize,
    ) -> Result<T, NacosError> {
        let connection = self.0.core.connection.borrow().clone();
        match connection {
            Some(connection) => {
                let answer = connection.request(name, &body).await?;
                self.0.core.stats.heard();
                Ok(answer)
            }
            None => Err(self.0.core.not_connected()),
        }
    }
}

impl Core {
    /// Connects to the servers in turn, for ever.
    async fn run(self: Arc<Self>) {
        let servers = &self.properties.servers;
        let start = fastrand::usize(..servers.len().max(1));
        let mut failures = 0;
        for server in servers.iter().cycle().skip(start) {
            let began = Instant::now();
            let served = self.serve(server).await;
            if began.elapsed() > STABLE {
                failures = 0;
            }
            if let Err(error) = served {
                failures += 1;
                if failures == 1 {
                    warn!(server, %error, "Nacos cannot be reached, trying on");
                }
                self.state.send_modify(|state| state.error = Some(error));
            }
            self.state.send_modify(|state| state.connected = false);
            self.connection.send_replace(None);
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// Connects to one server, and stays until the connection breaks.
    async fn serve(&self, server: &str) -> Result<(), NacosError> {
        let token = login::login(&self.properties, server).await?;
        let address = grpc_address(server);
        let opening = Opening {
            address: &address,
            namespace: self.tenant(),
            module: self.module,
            token: token.as_ref().map(|token| token.text.clone()),
            limit: self.properties.timeout.0,
        };
        let (connection, mut incoming) = Connection::open(&opening).await?;
        await_setup(&connection, &mut incoming).await?;
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.stats.heard();
        info!(server, module = self.module.as_str(), "connected to Nacos");
        self.connection.send_replace(Some(connection.clone()));
        self.state.send_modify(|state| {
            *state = LinkState { epoch: state.epoch + 1, connected: true, error: None };
        });
        tokio::select! {
            ended = self.listen_to(&connection, &mut incoming) => ended,
            error = self.renew(server, &connection, token) => Err(error),
        }
    }

    /// Logs in again before each login expires, and returns why that cannot be done once it has expired.
    /// Meanwhile the connection stays: what is registered through it would go with it.
    async fn renew(
        &self,
        server: &str,
        connection: &Connection,
        mut token: Option<Token>,
    ) -> NacosError {
        const RETRY: Duration = Duration::from_secs(1);
        while let Some(old) = token {
            tokio::time::sleep_until(old.renew_at).await;
            token = match login::login(&self.properties, server).await {
                Ok(token) => {
                    debug!(server, "the login to Nacos is renewed");
                    if let Some(token) = &token {
                        connection.set_token(&token.text);
                    }
                    token
                }
                Err(error) => {
                    let now = Instant::now();
                    let left = old.expires_at.saturating_duration_since(now);
                    if left.is_zero() {
                        return error;
                    }
                    warn!(server, %error, "the login to Nacos cannot be renewed, trying again");
                    Some(Token { renew_at: now + (left / 4).max(RETRY), ..old })
                }
            };
        }
        std::future::pending().await
    }

    async fn listen_to(
        &self,
        connection: &Connection,
        incoming: &mut Incoming,
    ) -> Result<(), NacosError> {
        loop {
            tokio::select! {
                payload = incoming.next() => {
                    let payload = payload?;
                    self.stats.heard();
                    if !self.take(connection, payload).await {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(HEARTBEAT) => {
                    let beat: Value = connection.request("HealthCheckRequest", &json!({})).await?;
                    self.stats.heard();
                    debug!(?beat, "Nacos is there");
                }
            }
        }
    }

    /// Takes a message of the server; `false` if it asks to go elsewhere.
    async fn take(&self, connection: &Connection, payload: Payload) -> bool {
        // Of a push, which may be large, only what is needed is read here.
        let message: Message = serde_json::from_slice(payload.json()).unwrap_or_default();
        let name = payload.name().to_owned();
        if let Some(stem) = name.strip_suffix("Request") {
            let id = message.request_id.as_deref().unwrap_or_default();
            connection.confirm(&format!("{stem}Response"), id).await;
        }
        match name.as_str() {
            "ConnectResetRequest" => return false,
            "ConfigChangeNotifyRequest" => {
                let Message { data_id, group, .. } = message;
                let (data_id, group) = (data_id.unwrap_or_default(), group.unwrap_or_default());
                self.push(Push::Config(ConfigKey { data_id, group }));
            }
            "NotifySubscriberRequest" => match PushedService::read_from(payload) {
                Ok(Some(service)) => self.push(Push::Service(Arc::new(service))),
                Ok(None) => {}
                Err(error) => warn!(%error, "Nacos pushed something unreadable"),
            },
            _ => {}
        }
        true
    }

    fn push(&self, push: Push) {
        self.stats.pushes.fetch_add(1, Ordering::Relaxed);
        // Nobody listening is no error: a link may be used for questions only.
        let _ = self.pushes.send(push);
    }

    fn tenant(&self) -> &str {
        &self.properties.namespace
    }

    fn not_connected(&self) -> NacosError {
        let error = self.state.borrow().error.clone();
        match error {
            Some(error @ NacosError::Login { .. }) => error,
            error => NacosError::NotConnected {
                servers: self.properties.servers.join(", "),
                reason: error.map_or("not yet tried".to_owned(), |error| error.to_string()),
            },
        }
    }
}

/// Waits until the server has taken note of this client.
///
/// Nacos 3 says so (`SetupAckRequest`); older servers say nothing, so that a request which comes
/// too early is refused as "connection is unregistered": hence the wait, as in the Java client.
async fn await_setup(connection: &Connection, incoming: &mut Incoming) -> Result<(), NacosError> {
    const QUIET: Duration = Duration::from_millis(100);
    match tokio::time::timeout(QUIET, incoming.next()).await {
        Err(_) => Ok(()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(payload)) => {
            let message: Message = serde_json::from_slice(payload.json()).unwrap_or_default();
            if let Some(stem) = payload.name().strip_suffix("Request") {
                let id = message.request_id.as_deref().unwrap_or_default();
                connection.confirm(&format!("{stem}Response"), id).await;
            }
            Ok(())
        }
    }
}

/// gRPC listens 1000 above HTTP.
fn grpc_address(server: &str) -> String {
    match server.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) => format!("{host}:{}", port.saturating_add(1000)),
        _ => format!("{server}:9848"),
    }
}

/// A wait between zero and a bound that doubles with each failure (full jitter).
fn backoff(failures: u32) -> Duration {
    let bound = Duration::from_millis(100).saturating_mul(1 << failures.min(8)).min(MAX_BACKOFF);
    bound.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_a_thousand_above_http() {
        assert_eq!(grpc_address("127.0.0.1:8848"), "127.0.0.1:9848");
        assert_eq!(grpc_address("nacos"), "nacos:9848");
        assert_eq!(grpc_address("[::1]:8848"), "[::1]:9848");
    }

    #[test]
    fn waits_are_bounded() {
        assert!((0..100).all(|failures| backoff(failures) <= MAX_BACKOFF));
    }

    #[tokio::test]
    async fn says_which_servers_cannot_be_reached() {
        let properties =
            NacosProperties { servers: vec!["127.0.0.1:1".into()], ..Default::default() };
        let link = Link::new(properties, Module::Config);
        let mut state = link.state();
        state.wait_for(|state| state.error.is_some()).await.unwrap();
        let error = link.services("DEFAULT_GROUP").await.unwrap_err();
        assert!(error.to_string().starts_with("no connection to Nacos at 127.0.0.1:1"), "{error}");
    }
}
