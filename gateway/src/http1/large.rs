use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::Io;

/// How much of a large body is read at once.
pub(super) const READ_LARGE: usize = 64 << 10;

thread_local! {
    /// Memory of pieces that are no more, for the next ones of this thread: asked for anew each time it would be
    /// given back to the system, and be cleared by it.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Memory in which a piece of a body is, or will be.
struct Memory {
    bytes: Vec<u8>,
    /// How much of it is the piece.
    length: usize,
}

impl Memory {
    fn new() -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        let bytes = spare.ok().flatten().unwrap_or_else(|| vec![0; READ_LARGE]);
        Self { bytes, length: 0 }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        /// How many are kept: a mebibyte that a thread has for nothing.
        const MOST: usize = 16;
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST {
                spare.push(bytes);
            }
        });
    }
}

/// Reads a piece of a large body, at most so much of it; an empty one where nothing more will come.
pub(super) fn poll_piece(
    io: &mut Io,
    cx: &mut Context<'_>,
    most: u64,
) -> Poll<std::io::Result<Bytes>> {
    // What waits needs no memory.
    ready!(io.poll_readable(cx))?;
    let mut memory = Memory::new();
    let most = usize::try_from(most).unwrap_or(READ_LARGE).min(READ_LARGE);
    let mut buffer = ReadBuf::new(memory.bytes.get_mut(..most).unwrap_or_default());
    ready!(AsyncRead::poll_read(Pin::new(io), cx, &mut buffer))?;
    memory.length = buffer.filled().len();
    Poll::Ready(Ok(Bytes::from_owner(memory)))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn memory_is_used_again_when_nobody_has_a_piece_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut io = Io::Tcp(listener.accept().await.unwrap().0);
        let mut kept = Vec::new();
        for number in 0..40_u8 {
            other.write_all(&[number; 10]).await.unwrap();
            let piece = poll_fn(|cx| poll_piece(&mut io, cx, 7)).await.unwrap();
            let rest = poll_fn(|cx| poll_piece(&mut io, cx, u64::MAX)).await.unwrap();
            assert_eq!((&*piece, &*rest), (&[number; 7][..], &[number; 3][..]));
            if number % 2 == 0 {
                kept.push((number, piece));
            }
        }
        assert!(kept.iter().all(|(number, piece)| piece.iter().all(|byte| byte == number)));
        assert_eq!(SPARE.with_borrow(Vec::len), 2);
        drop(kept);
        assert_eq!(SPARE.with_borrow(Vec::len), 16);
        drop(other);
        assert!(poll_fn(|cx| poll_piece(&mut io, cx, 7)).await.unwrap().is_empty());
    }
}
