use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gray_propagation::Lines as _;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Io;
use super::framing::{Framing, length, stays};
use super::head::{Scan, read_answer, write_request};
use super::outgoing::Outgoing;
use super::stream::{Cut, Rest, Stream};
use super::watch::Watch;
use crate::body::{BodyError, Progress, RequestBody};
use crate::field::UPGRADE;
use crate::head::{AnswerHead, Answered, RequestHead};

/// A connection to an instance, which carries one request at a time. It is in a box, since it goes from hand to
/// hand with each of them.
#[derive(Debug)]
pub(crate) struct Connection(Box<Wired>);

/// What a connection is.
#[derive(Debug)]
struct Wired {
    stream: Stream,
    watch: Watch,
}

/// Why a request was not answered.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The instance's part of it.
    Answer(Cut),
    /// The client's body ended early.
    Body(BodyError),
    /// No answer began in time.
    Timeout,
}

impl Connection {
    pub(crate) fn new(io: Io) -> Self {
        Self(Box::new(Wired { stream: Stream::new(io), watch: Watch::default() }))
    }

    /// Tells whether its other end has neither ended it nor said anything, as far as is known.
    pub(crate) fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let reading = poll_fn(|cx| self.0.stream.poll_read(cx, 1));
        // A task that has done much already is told to wait, which would look like life.
        let alive = pin!(tokio::task::coop::unconstrained(reading)).poll(&mut cx).is_pending();
        // An idle connection needs no memory.
        self.0.stream.read = BytesMut::new();
        alive
    }

    /// Sends a request, whose body it takes, and waits for the head of its answer, for so long after the last
    /// piece of the request. The rest of the request is sent while the answer's body is read.
    pub(crate) async fn send(
        self,
        head: &RequestHead,
        body: &mut RequestBody,
        limit: Duration,
        progress: &Progress,
    ) -> Result<Answered<Answer>, Lost> {
        let framing = framing(head, body);
        let written = write_request(head, framing);
        let upgrades: Box<[u8]> = head.fields.first(&UPGRADE).unwrap_or_default().into();
        let outgoing = Outgoing::new(written, body.take(), framing == Framing::Chunked);
        let sending = Sending { outgoing, broken: None };
        let mut exchange = Exchange { connection: self, sending, scan: Scan::default(), upgrades };
        let mut until = Until::new(limit, progress);
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answered) = exchange.poll_head(cx) {
                return Poll::Ready(answered);
            }
            ready!(until.poll(cx, &mut exchange.connection.0.watch));
            Poll::Ready(Err(Lost::Timeout))
        });
        let answer = answer.await?;
        exchange.answer(answer, &head.method)
    }
}

/// When an answer must have begun: so long after the request went on last.
struct Until<'a> {
    limit: Duration,
    at: Instant,
    seen: u64,
    progress: &'a Progress,
}

impl<'a> Until<'a> {
    fn new(limit: Duration, progress: &'a Progress) -> Self {
        Self { limit, at: Instant::now() + limit, seen: progress.pieces(), progress }
    }

    fn poll(&mut self, cx: &mut Context<'_>, watch: &mut Watch) -> Poll<()> {
        loop {
            ready!(watch.poll_until(cx, self.at));
            let now = self.progress.pieces();
            if now == self.seen && !self.progress.is_awaited() {
                return Poll::Ready(());
            }
            self.seen = now;
            self.at = Instant::now() + self.limit;
        }
    }
}

/// How the request's own body is framed.
fn framing(head: &RequestHead, body: &RequestBody) -> Framing {
    let means_something = || [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
    match body.size_hint().exact() {
        Some(0) if means_something() => Framing::Length(0),
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
        // Over HTTP/2 a length may be said of what is not there yet.
        None => length(&head.fields).ok().flatten().map_or(Framing::Chunked, Framing::Length),
    }
}

/// Tells whether an answer grants one of the protocols that were asked for (RFC 9110, section 7.8).
fn grants(asked: &[u8], answer: &AnswerHead) -> bool {
    let words = |list: &'_ [u8]| -> Vec<Vec<u8>> {
        let words = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        words.filter(|word| !word.is_empty()).map(<[u8]>::to_ascii_lowercase).collect()
    };
    let (asked, granted) = (words(asked), answer.fields.first(&UPGRADE).map(words));
    granted.is_some_and(|granted| {
        !granted.is_empty() && granted.iter().all(|protocol| asked.contains(protocol))
    })
}

/// A request on its way to an instance.
#[derive(Debug)]
pub(crate) struct Sending {
    outgoing: Outgoing<RequestBody>,
    /// Why nothing more can be sent.
    broken: Option<std::io::Error>,
}

impl Sending {
    /// Tells whether all of it has been sent.
    fn is_done(&self) -> bool {
        self.outgoing.is_done() && self.broken.is_none()
    }

    /// Sends what there is to send; an error only where the request itself ends early.
    fn send(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Result<(), Lost> {
        if self.outgoing.is_done() {
            return Ok(());
        }
        match self.outgoing.poll_write(cx, io) {
            Poll::Ready(Err(error)) => return Err(Lost::Body(error)),
            // Its other end may have answered before it closed.
            Poll::Ready(Ok(Err(error))) => {
                self.outgoing = Outgoing::none();
                self.broken = Some(error);
            }
            Poll::Ready(Ok(Ok(()))) | Poll::Pending => {}
        }
        Ok(())
    }
}

/// A connection while the head of an answer is waited for.
#[derive(Debug)]
struct Exchange {
    connection: Connection,
    sending: Sending,
    scan: Scan,
    /// The protocols that it asked for, if any.
    upgrades: Box<[u8]>,
}

impl Exchange {
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Lost> {
        self.sending.send(cx, &mut self.connection.0.stream.io)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Lost>> {
        let broken = |error| Lost::Answer(Cut::Broken(error));
        self.send(cx)?;
        loop {
            let Self { connection, scan, .. } = self;
            let taken = connection.0.stream.poll_head(cx, |read| match read_answer(read, scan) {
                Ok(Some((head, end))) => (Some(Ok(head)), end),
                Ok(None) => (None, 0),
                Err(what) => (Some(Err(what)), 0),
            });
            let head = match ready!(taken) {
                Ok(Some(head)) => head.map_err(|what| Lost::Answer(Cut::Unreadable(what)))?,
                Ok(None) => {
                    let ended = || std::io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(broken(
                        self.sending.broken.take().unwrap_or_else(ended),
                    )));
                }
                Err(error) => return Poll::Ready(Err(broken(error))),
            };
            match head.status {
                StatusCode::CONTINUE => {
                    if let Some(body) = self.sending.outgoing.body() {
                        body.go_on();
                    }
                    self.send(cx)?;
                }
                StatusCode::SWITCHING_PROTOCOLS if !grants(&self.upgrades, &head) => {
                    let unasked = Cut::Unreadable("an upgrade that nobody asked for");
                    return Poll::Ready(Err(Lost::Answer(unasked)));
                }
                StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(Ok(head)),
                // What an instance says before its answer is not passed on.
                status if status.is_informational() => {}
                _ => return Poll::Ready(Ok(head)),
            }
        }
    }

    /// Makes the answer of its head.
    fn answer(mut self, head: AnswerHead, method: &Method) -> Result<Answered<Answer>, Lost> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Wired { stream: Stream { io, read, .. }, .. } = *self.connection.0;
            return Ok(Answered { head, body: Answer::Upgraded(Box::new(io), read.freeze()) });
        }
        let framing = Framing::of_answer(method, head.status, head.version, &head.fields);
        let framing = framing.map_err(|what| Lost::Answer(Cut::Unreadable(what)))?;
        let stays = stays(head.version, &head.fields) && framing != Framing::UntilClose;
        self.connection.0.stream.rest = Rest::of(framing);
        // Most requests have been sent long before.
        let sending = (!self.sending.is_done()).then(|| Box::new(self.sending));
        Ok(Answered { head, body: Answer::Body { connection: self.connection, sending, stays } })
    }
}

/// What follows the head of an instance's answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its body.
    Body {
        /// What it comes on.
        connection: Connection,
        /// What is still to be sent meanwhile, or could not be.
        sending: Option<Box<Sending>>,
        /// Whether the connection may carry another request after it.
        stays: bool,
    },
    /// A connection that the instance has agreed to use otherwise, and what has come on it already.
    Upgraded(Box<Io>, Bytes),
}

impl Answer {
    /// Returns the connection, where the answer has ended and another request may follow.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        let Self::Body { mut connection, sending, stays } = self else { return None };
        let stream = &mut connection.0.stream;
        let over = stream.rest.is_over() && sending.is_none_or(|sending| sending.is_done());
        // What came behind the answer is nobody's.
        if !over || !stays || !stream.read.is_empty() {
            return None;
        }
        // An idle connection needs no memory.
        stream.read = BytesMut::new();
        Some(connection)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let Self::Body { connection, sending, .. } = &mut *self else { return Poll::Ready(None) };
        let stream = &mut connection.0.stream;
        if let Some(sending) = sending {
            sending.send(cx, &mut stream.io)?;
        }
        stream.poll_frame(cx).map_err(Lost::Answer)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Body { connection, .. } => connection.0.stream.rest.is_over(),
            Self::Upgraded(..) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Body { connection, .. } => connection.0.stream.rest.size_hint(),
            Self::Upgraded(..) => SizeHint::with_exact(0),
        }
    }
}
