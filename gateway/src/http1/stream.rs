use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::Io;
use super::chunked::{Chunks, Piece};
use super::framing::Framing;
use super::large::{self, READ_LARGE};

/// How much is read at a time, of heads and small bodies.
pub(super) const READ: usize = 4 << 10;

/// What of a body is still to come.
#[derive(Debug)]
pub(super) enum Rest {
    Nothing,
    Length(u64),
    Chunks(Box<Chunks>),
    UntilClose,
    /// Nobody knows: it was wrong before.
    Unknown(&'static str),
}

impl Rest {
    pub(super) fn of(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Nothing,
            Framing::Length(left) => Self::Length(left),
            Framing::Chunked => Self::Chunks(Box::new(Chunks::new())),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunks(_) | Self::UntilClose | Self::Unknown(_) => SizeHint::new(),
        }
    }
}

/// Why a body did not come whole.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// Its connection broke.
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    /// It could be read in more than one way.
    #[error("it has {0}")]
    Unreadable(&'static str),
}

/// The bytes of a connection, and what they are part of.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) io: Io,
    /// What has been read and not been taken.
    pub(super) read: BytesMut,
    /// What of the body that is being read is still to come.
    pub(super) rest: Rest,
}

impl Stream {
    pub(super) fn new(io: Io) -> Self {
        Self { io, read: BytesMut::new(), rest: Rest::Nothing }
    }

    /// Reads until a head can be taken off what has come: `take` is shown it, and says how much of it is of no use
    /// any more. `None` where nothing more will come.
    pub(super) fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> (Option<T>, usize),
    ) -> Poll<std::io::Result<Option<T>>> {
        loop {
            if self.read.is_empty() {
                // Most heads come whole, and have been taken before anybody else needs that memory.
                let (taken, count) = ready!(self.poll_shared(cx, &mut take))?;
                if taken.is_some() || count == 0 {
                    return Poll::Ready(Ok(taken));
                }
                continue;
            }
            let (taken, count) = take(&self.read);
            self.read.advance(count);
            if taken.is_some() {
                return Poll::Ready(Ok(taken));
            }
            if !self.read.is_empty() && !ready!(self.poll_read(cx, READ))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Reads into memory that all connections of a thread share, and keeps only what is not taken off it: most
    /// heads are far shorter than what has to be asked for.
    fn poll_shared<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> (Option<T>, usize),
    ) -> Poll<std::io::Result<(Option<T>, usize)>> {
        thread_local! {
            static SHARED: RefCell<[u8; READ]> = const { RefCell::new([0; READ]) };
        }
        SHARED.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared);
            ready!(AsyncRead::poll_read(Pin::new(&mut self.io), cx, &mut buffer))?;
            let come = buffer.filled();
            if come.is_empty() {
                return Poll::Ready(Ok((None, 0)));
            }
            let (taken, count) = take(come);
            let rest = come.get(count..).unwrap_or_default();
            // What was there is of no use any more.
            self.read = if rest.is_empty() { BytesMut::new() } else { BytesMut::from(rest) };
            Poll::Ready(Ok((taken, come.len())))
        })
    }

    /// Reads what has come; `false` where nothing more will.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
    ) -> Poll<std::io::Result<bool>> {
        if room == READ && self.read.is_empty() {
            let read = ready!(self.poll_shared(cx, |_| (None::<()>, 0)))?;
            return Poll::Ready(Ok(read.1 > 0));
        }
        // What waits needs no room.
        ready!(self.io.poll_readable(cx))?;
        // What came with the last piece often leaves room enough for the next.
        if self.read.capacity() - self.read.len() < room / 4 {
            self.read.reserve(room);
        }
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read).map_ok(|count| count > 0)
    }

    /// Returns the next piece of the body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            let taken = self.take().map_err(|what| {
                // What is behind it may be anything.
                self.rest = Rest::Unknown(what);
                Cut::Unreadable(what)
            });
            match taken? {
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::Trailers(fields) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
                Piece::End => return Poll::Ready(None),
                Piece::More => {}
            }
            if let Some(most) = self.large() {
                return self.poll_large(cx, most);
            }
            let small = matches!(self.rest, Rest::Length(left) if left < READ as u64);
            match ready!(self.poll_read(cx, if small { READ } else { READ_LARGE })) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(self.cut().map(Err)),
                Err(error) => return Poll::Ready(Some(Err(Cut::Broken(error)))),
            }
        }
    }

    /// How much may be read as it is, where that is much: a body without any lines in it of which nothing has come.
    fn large(&self) -> Option<u64> {
        match self.rest {
            _ if !self.read.is_empty() => None,
            Rest::Length(left) => Some(left).filter(|left| *left >= READ as u64),
            Rest::UntilClose => Some(u64::MAX),
            _ => None,
        }
    }

    fn poll_large(
        &mut self,
        cx: &mut Context<'_>,
        most: u64,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let piece = ready!(large::poll_piece(&mut self.io, cx, most));
        Poll::Ready(match piece {
            Err(error) => Some(Err(Cut::Broken(error))),
            Ok(piece) if piece.is_empty() => self.cut().map(Err),
            Ok(piece) => {
                let left = most - piece.len() as u64;
                match &mut self.rest {
                    rest @ Rest::Length(_) if left == 0 => *rest = Rest::Nothing,
                    Rest::Length(known) => *known = left,
                    _ => {}
                }
                Some(Ok(Frame::data(piece)))
            }
        })
    }

    /// What it means that nothing more will come.
    fn cut(&mut self) -> Option<Cut> {
        if matches!(self.rest, Rest::UntilClose) {
            self.rest = Rest::Nothing;
            return None;
        }
        Some(Cut::Broken(std::io::ErrorKind::UnexpectedEof.into()))
    }

    /// Takes the next piece of what has been read.
    fn take(&mut self) -> Result<Piece, &'static str> {
        let read = &mut self.read;
        match &mut self.rest {
            Rest::Nothing => Ok(Piece::End),
            Rest::Unknown(what) => Err(what),
            Rest::Chunks(chunks) => {
                let piece = chunks.next(read)?;
                if matches!(piece, Piece::End | Piece::Trailers(_)) {
                    self.rest = Rest::Nothing;
                }
                Ok(piece)
            }
            _ if read.is_empty() => Ok(Piece::More),
            Rest::UntilClose => Ok(Piece::Data(read.split().freeze())),
            Rest::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= length as u64;
                // A small body that came with its head has memory of its own, which need not be shared.
                let whole = read.len() == length && read.capacity() == length;
                let data = if whole { std::mem::take(read) } else { read.split_to(length) };
                let data = data.freeze();
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
                Ok(Piece::Data(data))
            }
        }
    }
}
