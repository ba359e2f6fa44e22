//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`).

use std::io;
use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The largest header that is understood: version 2 with room for its extensions.
const MAX: usize = 536;

/// Reads the header that a connection begins with, and returns the client that it names; `None`
/// where the proxy speaks for itself.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = [0; MAX];
    loop {
        let count = stream.peek(&mut seen).await?;
        let bytes = seen.get(..count).unwrap_or_default();
        let parsed = HeaderResult::parse(bytes);
        if parsed.is_incomplete() && count > 0 && count < MAX {
            // What was seen stays readable, so the socket cannot tell when more has come.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        }
        let (length, client) = match parsed {
            HeaderResult::V1(Ok(header)) => (header.header.len(), v1_client(&header)),
            HeaderResult::V2(Ok(header)) => (header.len(), v2_client(&header)),
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
                return Err(io::Error::other("the connection begins with no PROXY header"));
            }
        };
        let mut header = [0; MAX];
        stream.read_exact(header.get_mut(..length).unwrap_or_default()).await?;
        return Ok(client);
    }
}

fn v1_client(header: &v1::Header<'_>) -> Option<SocketAddr> {
    match header.addresses {
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_client(header: &v2::Header<'_>) -> Option<SocketAddr> {
    if header.command == v2::Command::Local {
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(it) => Some((it.source_address, it.source_port).into()),
        v2::Addresses::IPv6(it) => Some((it.source_address, it.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}
