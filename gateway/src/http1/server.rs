use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{Method, StatusCode, Version};
use http_body::Body;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Io;
use super::answer_head::{Asked, frame, write_answer};
use super::framing::Framing;
use super::incoming::{IncomingBody, Shared};
use super::outgoing::Outgoing;
use super::request_head::{Asking, HeadLimits, HeadReader};
use super::stream::READ;
use super::watch::Watch;
use crate::Error;
use crate::head::{Answered, RequestHead};
use crate::headers::is_upgrade;
use crate::properties::LimitProperties;

/// What answers the requests of a connection.
pub(crate) trait Handler: Sync {
    /// The body of an answer.
    type Body: Body<Data = Bytes> + Unpin + Send;

    /// Answers a request; without a body where it has none, and with a way to take the connection over where
    /// it asks for another protocol.
    fn handle(
        &self,
        head: Box<RequestHead>,
        body: Option<IncomingBody>,
        upgrading: Option<Upgrading>,
    ) -> impl Future<Output = Answered<Self::Body>> + Send;

    /// Answers what is no request that can be handled; the connection ends after it.
    fn refuse(&self, error: Error) -> Answered<Self::Body>;
}

/// A client's connection that is used otherwise from here on.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) io: Io,
    /// What has come on it already.
    pub(crate) read: Bytes,
    /// Dropped when it is used no more: until then it counts as a connection.
    pub(crate) held: oneshot::Sender<Infallible>,
}

/// Gives the connection once an upgrade has been granted.
#[derive(Debug)]
pub(crate) struct Upgrading(pub(crate) oneshot::Receiver<Upgraded>);

/// Why a connection ended before its client had ended it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The client went away while a request was being answered.
    #[error("the client is gone")]
    Gone,
    /// The body of an answer ended early.
    #[error("an answer was cut short")]
    CutShort,
    /// The client took nothing of an answer for too long.
    #[error("the client does not read its answer")]
    Unread,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Serves a client's requests, one after the other, until it ends or is told to stop and nothing is under
/// way (RFC 9112, section 9).
///
/// # Errors
///
/// See [`Ended`].
pub(crate) async fn serve(
    io: Io,
    limits: &LimitProperties,
    handler: &impl Handler,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let mut stopped = pin!(stop.cancelled());
    let mut connection = Served::new(io, limits);
    loop {
        let next = poll_fn(|cx| connection.poll_head(cx, stopped.as_mut())).await;
        let Next::Request(asking) = next else {
            return match next {
                // In boxes: hardly any connection comes to that.
                Next::Refused(error) => Box::pin(connection.refuse(handler.refuse(error))).await,
                _ => Ok(connection.shut().await?),
            };
        };
        let (grant, upgrading) = granting(&asking).unzip();
        let asks_upgrade = grant.is_some();
        let (head, body, mut asked) = connection.begin(asking);
        // In a box: a connection without a request has no room for one.
        let handling = AssertUnwindSafe(handler.handle(head, body, upgrading));
        let mut handling = Box::pin(handling.catch_unwind());
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answered) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(answered));
            }
            connection.shared.poll_gone(cx).map(|()| None)
        });
        let Some(answered) = answered.await else { return Err(Ended::Gone) };
        drop(handling);
        let Ok(answered) = answered else {
            return Box::pin(connection.refuse(handler.refuse(Error::Panicked))).await;
        };
        // What is told to stop takes no other request.
        asked.stays &= !stop.is_cancelled();
        let upgraded = answered.head.status == StatusCode::SWITCHING_PROTOCOLS;
        let stays = connection.answer(asked, answered).await?;
        if let Some(grant) = grant.filter(|_| upgraded) {
            Box::pin(connection.hand_over(grant)).await;
            return Ok(());
        }
        // What was sent in the hope of an upgrade is no request.
        let hasty = asks_upgrade && connection.has_more();
        if !stays || hasty || !connection.drain().await {
            return Ok(Box::pin(connection.linger()).await?);
        }
    }
}

/// Gets ready to give a connection away where a request asks for another protocol.
fn granting(asking: &Asking) -> Option<(oneshot::Sender<Upgraded>, Upgrading)> {
    // There is none in HTTP/1.0 (RFC 9110, section 7.8), and behind a body it could not be told apart from it.
    let asked = asking.framing == Framing::Empty
        && asking.head.version == Version::HTTP_11
        && is_upgrade(&asking.head.fields);
    asked.then(|| {
        let (grant, granted) = oneshot::channel();
        (grant, Upgrading(granted))
    })
}

/// What comes next on a connection.
enum Next {
    Request(Asking),
    Refused(Error),
    Nothing,
}

/// A client's connection.
struct Served {
    shared: Shared,
    heads: HeadReader,
    watch: Watch,
    /// Since when the client has had nothing to say, or the head of a request has been coming; unknown until
    /// it is waited for.
    since: Option<Instant>,
    /// Whether some of a head has come.
    begun: bool,
    /// How long the client may have nothing to say.
    patience: Duration,
    head_time: Duration,
    keep_alive: Duration,
    /// How long the client may take nothing of an answer.
    write_time: Duration,
}

impl Served {
    fn new(io: Io, limits: &LimitProperties) -> Self {
        let heads = HeadReader::new(HeadLimits {
            size: limits.head_size.bytes(),
            fields: limits.headers,
            target: limits.target_size.bytes(),
        });
        Self {
            shared: Shared::new(io),
            heads,
            watch: Watch::default(),
            since: None,
            begun: false,
            // Who says nothing at all after connecting is not waited for as long as later.
            patience: limits.head_time.0,
            head_time: limits.head_time.0,
            keep_alive: limits.keep_alive.0,
            write_time: limits.write_time.0,
        }
    }

    /// Waits for the head of a request.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Next> {
        let mut inner = self.shared.lock();
        let heads = &mut self.heads;
        let next = inner.stream.poll_head(cx, |read| {
            let (taken, count) = heads.next(read);
            (taken.transpose(), count)
        });
        match next {
            Poll::Ready(Ok(Some(Ok(asking)))) => return Poll::Ready(Next::Request(asking)),
            Poll::Ready(Ok(Some(Err(error)))) => return Poll::Ready(Next::Refused(error)),
            Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Next::Nothing),
            Poll::Pending => {}
        }
        let read = &mut inner.stream.read;
        if read.is_empty() {
            // An idle connection needs no memory.
            *read = BytesMut::new();
        } else if !self.begun {
            (self.begun, self.since) = (true, None);
        }
        drop(inner);
        if !self.begun && stop.poll(cx).is_ready() {
            return Poll::Ready(Next::Nothing);
        }
        let limit = if self.begun { self.head_time } else { self.patience };
        let since = *self.since.get_or_insert_with(Instant::now);
        ready!(self.watch.poll_until(cx, since + limit));
        Poll::Ready(if self.begun { Next::Refused(Error::Stalled) } else { Next::Nothing })
    }

    /// Returns a request's head and body, and what its answer depends on.
    fn begin(&mut self, asking: Asking) -> (Box<RequestHead>, Option<IncomingBody>, Asked) {
        (self.begun, self.since, self.patience) = (false, None, self.keep_alive);
        let Asking { head, framing, stays, expects, trailers } = asking;
        let head_only = head.method == Method::HEAD;
        let asked = Asked { version: head.version, head_only, stays, trailers };
        let body = (framing != Framing::Empty).then(|| self.shared.begin(framing, expects));
        (head, body, asked)
    }

    /// Writes an answer; returns whether another request may follow.
    async fn answer<B>(&mut self, asked: Asked, answered: Answered<B>) -> Result<bool, Ended>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Answered { head, body } = answered;
        let asked = Asked { stays: self.shared.begin_answer() && asked.stays, ..asked };
        let (framing, stays) = frame(asked, &head, &body.size_hint());
        let written = write_answer(asked, &head, (framing, stays));
        drop(head);
        let body = (framing != Framing::Empty && !body.is_end_stream()).then_some(body);
        let mut outgoing = Outgoing::new(written, body, framing == Framing::Chunked);
        if !asked.trailers {
            outgoing = outgoing.without_trailers();
        }
        let Self { shared, watch, write_time, .. } = self;
        let mut unread = None;
        let written = poll_fn(|cx| {
            if let Poll::Ready(written) = outgoing.poll_write(cx, shared) {
                return Poll::Ready(match written {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Ended::Broken(error)),
                    Err(_) => Err(Ended::CutShort),
                });
            }
            if shared.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Ended::Gone));
            }
            // Where the instance is waited for, that has limits of its own.
            let waits = outgoing.is_stuck().then(|| outgoing.written());
            unread = waits.map(|written| match unread {
                Some((before, since)) if before == written => (before, since),
                _ => (written, Instant::now()),
            });
            let Some((_, since)) = unread else { return Poll::Pending };
            ready!(watch.poll_until(cx, since + *write_time));
            Poll::Ready(Err(Ended::Unread))
        });
        let written = written.await;
        if let Err(Ended::CutShort | Ended::Unread) = written {
            // Or else what came so far would look like all of it, where it ends with the connection.
            shared.lock().stream.io.abort();
        }
        written.map(|()| stays)
    }

    /// Answers what cannot be handled, and ends.
    async fn refuse<B>(mut self, answered: Answered<B>) -> Result<(), Ended>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let version = Version::HTTP_11;
        let asked = Asked { version, head_only: false, stays: false, trailers: false };
        self.answer(asked, answered).await?;
        Ok(self.linger().await?)
    }

    /// Reads over what is left of a request that nobody wanted whole, as far as it has come already; returns
    /// whether all of it has.
    async fn drain(&self) -> bool {
        const MOST: usize = 256 << 10;
        let mut seen = 0;
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            if !inner.stream.rest.is_over() {
                // What is read here is missing for whoever still reads it.
                inner.abandon();
            }
            while !inner.stream.rest.is_over() && seen < MOST {
                match inner.stream.poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        seen += frame.data_ref().map_or(0, Bytes::len);
                    }
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(Err(_))) | Poll::Pending => return Poll::Ready(false),
                }
            }
            Poll::Ready(inner.stream.rest.is_over())
        })
        .await
    }

    /// Ends the connection so that its client can read the last answer: what it still sends is read over for
    /// a while, since a connection that is closed before is reset (RFC 9112, section 9.6).
    async fn linger(self) -> io::Result<()> {
        const WHILE: Duration = Duration::from_secs(1);
        self.shut().await?;
        let (is_read, is_empty) = {
            let inner = self.shared.lock();
            (inner.stream.rest.is_over(), inner.stream.read.is_empty())
        };
        if !is_read || !is_empty {
            // It ends by itself, or the time is up.
            let _ = tokio::time::timeout(WHILE, poll_fn(|cx| self.poll_read_over(cx))).await;
        }
        Ok(())
    }

    /// Reads whatever comes, and forgets it, until there is no more, or too much.
    fn poll_read_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        const MOST: usize = 256;
        let mut inner = self.shared.lock();
        for _ in 0..MOST {
            inner.stream.read.clear();
            if !matches!(ready!(inner.stream.poll_read(cx, READ)), Ok(true)) {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Says that nothing more is said.
    async fn shut(&self) -> io::Result<()> {
        let shut = poll_fn(|cx| Pin::new(&mut self.shared.lock().stream.io).poll_shutdown(cx));
        // Over TLS that is written too, and the client may take nothing.
        tokio::time::timeout(self.write_time, shut).await?
    }

    /// Whether the client has sent something beyond its request.
    fn has_more(&self) -> bool {
        !self.shared.lock().stream.read.is_empty()
    }

    /// Hands the connection over to whoever waits for it, and waits until it is used no more.
    async fn hand_over(self, grant: oneshot::Sender<Upgraded>) {
        if let Some((io, read)) = self.shared.into_parts() {
            let (held, ended) = oneshot::channel();
            // Nobody waits where the instance has gone meanwhile.
            let _ = grant.send(Upgraded { io, read: read.freeze(), held });
            // It is never sent anything.
            let _ = ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use gray_propagation::FieldName;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::problem;

    /// Fails at whatever says so.
    struct Frail;

    impl Handler for Frail {
        type Body = Full<Bytes>;

        async fn handle(
            &self,
            head: Box<RequestHead>,
            _body: Option<IncomingBody>,
            _upgrading: Option<Upgrading>,
        ) -> Answered<Full<Bytes>> {
            use gray_propagation::Lines as _;
            assert!(!head.fields.has(&FieldName::from_static("x-fail")), "as it was asked to");
            Answered::new(Full::new(Bytes::from_static(b"well")))
        }

        fn refuse(&self, error: Error) -> Answered<Full<Bytes>> {
            problem::answer(&error, &Method::GET, "id")
        }
    }

    #[tokio::test]
    async fn a_panic_is_the_answer_of_one_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (io, stop) = (Io::Tcp(listener.accept().await.unwrap().0), CancellationToken::new());
        let limits = LimitProperties::default();
        let serving = serve(io, &limits, &Frail, &stop);
        let asking = async {
            let both =
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Fail: 1\r\n\r\n";
            client.write_all(both).await.unwrap();
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.unwrap();
            answers
        };
        let (served, answers) = tokio::join!(serving, asking);
        served.unwrap();
        assert!(answers.contains("well") && answers.contains("HTTP/1.1 500 "), "{answers}");
        assert!(answers.contains("connection: close"), "{answers}");
    }
}
