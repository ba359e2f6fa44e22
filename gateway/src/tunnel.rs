use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// Passes bytes both ways until both sides have ended, or nothing has come for the idle time.
pub(crate) async fn tunnel<A, B>(one: &mut A, other: &mut B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (moved, mut moving) = watch::channel(());
    let (one_read, one_write) = tokio::io::split(one);
    let (other_read, other_write) = tokio::io::split(other);
    let there = copy(one_read, other_write, &moved);
    let back = copy(other_read, one_write, &moved);
    let both = async { tokio::try_join!(there, back).map(drop) };
    tokio::pin!(both);
    loop {
        tokio::select! {
            ended = &mut both => return ended,
            moved = tokio::time::timeout(idle, moving.changed()) => if moved.is_err() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "idle for too long"));
            },
        }
    }
}

async fn copy<R, W>(mut from: R, mut to: W, moved: &watch::Sender<()>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
        moved.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passes_bytes_both_ways_and_half_closes() {
        let (mut client, mut inner) = tokio::io::duplex(64);
        let (mut outer, mut server) = tokio::io::duplex(64);
        let tunneling =
            tokio::spawn(
                async move { tunnel(&mut inner, &mut outer, Duration::from_mins(1)).await },
            );
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((asked.as_str(), answer.as_str()), ("ping", "pong"));
        tunneling.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_nothing_moves() {
        let (_client, mut inner) = tokio::io::duplex(64);
        let (mut outer, _server) = tokio::io::duplex(64);
        let ended = tunnel(&mut inner, &mut outer, Duration::from_mins(1)).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
