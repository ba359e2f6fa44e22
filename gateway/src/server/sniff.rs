use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// How a client with prior knowledge of HTTP/2 begins (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// Waits for a client's first bytes, and tells what it speaks; a client that says nothing within the
/// limit is an error.
pub(super) async fn sniff(stream: &TcpStream, limit: Duration) -> io::Result<Spoken> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the client said nothing");
    tokio::time::timeout(limit, peek(stream)).await.map_err(silent)?
}

async fn peek(stream: &TcpStream) -> io::Result<Spoken> {
    const LONGEST: Duration = Duration::from_millis(100);
    let mut pause = Duration::from_millis(2);
    let mut first = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        let seen = first.get(..count).unwrap_or_default();
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(seen) {
            return Ok(Spoken::Http1);
        }
        if count == PREFACE.len() {
            return Ok(Spoken::Http2);
        }
        // What was seen stays readable, so the socket cannot tell when more has come.
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}
