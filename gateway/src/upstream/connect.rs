use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// Connects to an instance; small pieces go out at once.
pub(super) async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let connecting = tokio::time::timeout(limit, TcpStream::connect(addr));
    let stream = connecting.await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"))
    })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
