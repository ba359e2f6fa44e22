use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command::{Command, FrameError, MAX_FRAME};

/// How many requests may wait to be written.
const WAITING: usize = 256;

/// Why a server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RocketMqError {
    /// It cannot be reached.
    #[error("{address} cannot be reached")]
    Connect {
        /// The server.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time; whether it did what it was asked to is unknown.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// The server.
        address: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection broke before the answer; whether it did what it was asked to is unknown.
    #[error("the connection to {address} broke")]
    Broken {
        /// The server.
        address: String,
    },
    /// It refused.
    #[error("{address} answered {code}: {remark}")]
    Refused {
        /// The server.
        address: String,
        /// The protocol's code.
        code: i32,
        /// What the server says about it.
        remark: String,
    },
    /// It does not filter by properties.
    #[error(
        "broker {address} does not filter by properties: set enablePropertyFilter=true in its \
         broker.conf, or have consumers filter (`filtering`)"
    )]
    NoPropertyFilter {
        /// The broker.
        address: String,
    },
    /// It answered something that cannot be read.
    #[error("{address} answered something unreadable: {what}")]
    Garbled {
        /// The server.
        address: String,
        /// What cannot be read.
        what: String,
    },
    /// No topic has led to a broker of this name.
    #[error("broker `{name}` is not known")]
    UnknownBroker {
        /// The name.
        name: String,
    },
    /// There is no name server to ask.
    #[error("no name server was given")]
    NoNameServer,
    /// What is to be sent is larger than a frame may be.
    #[error("the request does not fit into a frame")]
    Frame(#[from] FrameError),
}

type Pending = Mutex<HashMap<i32, oneshot::Sender<Command>>>;

/// What is done about a request that a broker makes.
pub(super) type OnRequest = Arc<dyn Fn(Command) + Send + Sync>;

/// A connection to a name server or a broker.
///
/// Requests share it, and answers find theirs by number. It ends when it is dropped, and is not made
/// again when it breaks: whoever holds it does that, since members of a group have to say anew that
/// they are there.
#[derive(Debug)]
pub struct Connection {
    address: String,
    next: AtomicI32,
    pending: Arc<Pending>,
    outgoing: mpsc::Sender<Bytes>,
    /// When something last came, in milliseconds since the connection was made.
    heard: Arc<AtomicU64>,
    made: Instant,
    /// When a request was first not answered since, in the same way; nothing has been heard after it.
    suspected: AtomicU64,
    given_up: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Connection {
    /// Connects to a server, given as `host:port`.
    ///
    /// # Errors
    ///
    /// Where it cannot be reached within the limit.
    pub async fn open(address: &str, limit: Duration) -> Result<Self, RocketMqError> {
        Self::open_with(address, limit, Arc::new(drop)).await
    }

    /// The same, and hands on what the server asks.
    pub(super) async fn open_with(
        address: &str,
        limit: Duration,
        on_request: OnRequest,
    ) -> Result<Self, RocketMqError> {
        let connect = tokio::time::timeout(limit, TcpStream::connect(address)).await;
        let connect = connect.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let failed = |source| RocketMqError::Connect { address: address.to_owned(), source };
        let stream = connect.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (read, write) = stream.into_split();
        let (outgoing, frames) = mpsc::channel(WAITING);
        let pending = Arc::<Pending>::default();
        let (made, heard) = (Instant::now(), Arc::<AtomicU64>::default());
        let given_up = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let incoming =
            Incoming { pending: Arc::clone(&pending), on_request, made, heard: Arc::clone(&heard) };
        tasks.spawn(serve(read, write, frames, incoming, given_up.clone()));
        let (address, next) = (address.to_owned(), AtomicI32::new(0));
        let suspected = AtomicU64::default();
        Ok(Self {
            address,
            next,
            pending,
            outgoing,
            heard,
            made,
            suspected,
            given_up,
            _tasks: tasks,
        })
    }

    /// Returns the server.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Tells whether it has broken.
    pub fn is_broken(&self) -> bool {
        self.outgoing.is_closed()
    }

    /// Sends a request that is not answered, or whose answer nobody waits for.
    pub(super) async fn tell(
        &self,
        request: Command,
        limit: Duration,
    ) -> Result<(), RocketMqError> {
        let opaque = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = Command { opaque, ..request }.one_way().encode()?;
        let broken = |_| RocketMqError::Broken { address: self.address.clone() };
        // Frames wait where the other end does not read.
        match tokio::time::timeout(limit, self.outgoing.send(frame)).await {
            Ok(sent) => sent.map_err(broken),
            Err(_) => Err(RocketMqError::Timeout { address: self.address.clone(), limit }),
        }
    }

    /// Sends a request, and waits for its answer. Where nothing at all comes for two such times, whoever is
    /// at the other end is taken for lost: a connection through which nothing comes may look sound for
    /// a quarter of an hour. Once may be a pause of the broker's.
    pub(super) async fn ask(
        &self,
        request: Command,
        limit: Duration,
    ) -> Result<Command, RocketMqError> {
        let opaque = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = Command { opaque, ..request }.encode()?;
        let (sender, answer) = oneshot::channel();
        lock(&self.pending).insert(opaque, sender);
        let _forget = Forget(&self.pending, opaque);
        let asked = millis(self.made);
        let exchange = async {
            self.outgoing.send(frame).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(RocketMqError::Broken { address: self.address.clone() }),
            Err(_) => {
                self.suspect(asked.max(1), limit);
                Err(RocketMqError::Timeout { address: self.address.clone(), limit })
            }
        }
    }
}

impl Connection {
    /// Takes note that a request of some moment was not answered in time.
    fn suspect(&self, asked: u64, limit: Duration) {
        let heard = self.heard.load(Ordering::Relaxed);
        if heard >= asked {
            return;
        }
        let now = millis(self.made);
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let since = self.suspected.load(Ordering::Relaxed);
        if since <= heard {
            self.suspected.store(now.max(1), Ordering::Relaxed);
        } else if now - since.min(now) >= limit {
            self.given_up.cancel();
        }
    }
}

/// Takes a request off that nobody waits for any more.
struct Forget<'a>(&'a Pending, i32);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.0).remove(&self.1);
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since a moment.
fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What is done with what comes.
struct Incoming {
    pending: Arc<Pending>,
    on_request: OnRequest,
    made: Instant,
    heard: Arc<AtomicU64>,
}

/// Writes and reads until either ends, or it is given up. Whoever waits for an answer then hears that there will be none,
/// and whoever asks later cannot send: the frames' receiver is dropped first.
async fn serve(
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    frames: mpsc::Receiver<Bytes>,
    incoming: Incoming,
    given_up: CancellationToken,
) {
    tokio::select! {
        () = write_frames(write, frames) => {}
        () = incoming.read(read) => {}
        () = given_up.cancelled() => {}
    }
    lock(&incoming.pending).clear();
}

async fn write_frames(mut stream: OwnedWriteHalf, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}

impl Incoming {
    async fn read(&self, mut stream: OwnedReadHalf) {
        while let Ok(frame) = self.frame(&mut stream).await {
            match Command::decode(&frame) {
                Ok(command) => self.take(command),
                Err(error) => {
                    tracing::warn!(%error, "a frame cannot be read, the connection is given up");
                    return;
                }
            }
        }
    }

    fn take(&self, command: Command) {
        if command.is_response() {
            // Whoever asked may have gone.
            let waiting = lock(&self.pending).remove(&command.opaque);
            waiting.map(|waiting| waiting.send(command));
        } else {
            (self.on_request)(command);
        }
    }

    async fn frame(&self, stream: &mut OwnedReadHalf) -> io::Result<Bytes> {
        let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(io::Error::other(FrameError::Length(length)));
        }
        // Nothing is set aside for what does not come.
        let mut frame = BytesMut::with_capacity(length.min(64 * 1024));
        let mut rest = stream.take(u64::try_from(length).unwrap_or(u64::MAX));
        while frame.len() < length {
            if rest.read_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.heard.store(millis(self.made), Ordering::Relaxed);
        }
        Ok(frame.freeze())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    /// A server that takes a connection, says these bytes, and nothing more.
    async fn server(says: &'static [u8]) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
            std::future::pending::<()>().await;
        });
        (address, serving)
    }

    /// What comes of the first request; the server stays there for as long as what is returned last.
    async fn asked(
        says: &'static [u8],
    ) -> (Result<Command, RocketMqError>, Connection, JoinSet<()>) {
        let (address, serving) = server(says).await;
        let connection = Connection::open(&address, LIMIT).await.unwrap();
        // It has said what it has to say.
        tokio::time::sleep(LIMIT / 4).await;
        let answer = connection.ask(Command::request(105, []), LIMIT).await;
        (answer, connection, serving)
    }

    #[tokio::test]
    async fn whoever_says_nothing_at_all_is_given_up() {
        let (answer, connection, _serving) = asked(b"").await;
        assert!(matches!(answer, Err(RocketMqError::Timeout { .. })), "{answer:?}");
        // It may have paused.
        assert!(!connection.is_broken());
        let answer = connection.ask(Command::request(105, []), LIMIT).await;
        assert!(matches!(answer, Err(RocketMqError::Timeout { .. })), "{answer:?}");
        while !connection.is_broken() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let answer = connection.ask(Command::request(105, []), LIMIT).await;
        assert!(matches!(answer, Err(RocketMqError::Broken { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn frames_that_are_none_end_the_connection() {
        let longer_than_allowed = b"\xff\xff\xff\xff\0\0\0\0";
        let header_longer_than_frame = b"\0\0\0\x06\0\0\0\x63{}";
        let no_json = b"\0\0\0\x06\0\0\0\x02{]";
        for says in [longer_than_allowed.as_slice(), header_longer_than_frame, no_json] {
            let (answer, connection, _serving) = asked(says).await;
            assert!(matches!(answer, Err(RocketMqError::Broken { .. })), "{says:?}: {answer:?}");
            assert!(connection.is_broken());
        }
    }
}
