use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ports::free_port;

/// What stands between a gateway and its Nacos server: a wire that can be cut while both live.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    way: watch::Sender<Way>,
    _tasks: JoinSet<()>,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// They wait: nothing is refused, nothing is answered, as when the network drops every packet.
    Silent,
    /// Connections end, and new ones end at once.
    Cut,
}

impl Relay {
    /// Stands before a server at `host:port` that speaks gRPC a thousand ports above.
    ///
    /// # Errors
    ///
    /// Where no ports can be had.
    pub async fn start(server: &str) -> anyhow::Result<Self> {
        const GRPC: u16 = 1000;
        let server: SocketAddr = server.parse()?;
        let port = free_port(&[i32::from(GRPC)]);
        let (way, told) = watch::channel(Way::Open);
        let mut tasks = JoinSet::new();
        for distance in [0, GRPC] {
            let listener = TcpListener::bind(("127.0.0.1", port + distance)).await?;
            let to = SocketAddr::new(server.ip(), server.port() + distance);
            tasks.spawn(accept(listener, to, told.clone()));
        }
        Ok(Self { port, way, _tasks: tasks })
    }

    /// Returns `host:port` as a gateway is told it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Says what becomes of bytes from now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, way: watch::Receiver<Way>) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let mut way = way.clone();
        connections.spawn(async move {
            if !is_open(&mut way).await {
                return;
            }
            let Ok(server) = TcpStream::connect(to).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            // Where one direction ends, the other is of no use.
            tokio::select! {
                () = pass(from_client, to_server, way.clone()) => {}
                () = pass(from_server, to_client, way) => {}
            }
        });
    }
}

/// Waits until bytes pass; `false` where the connection ends instead.
async fn is_open(way: &mut watch::Receiver<Way>) -> bool {
    way.wait_for(|way| *way != Way::Silent).await.is_ok_and(|way| *way == Way::Open)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 16_384];
    while is_open(&mut way).await {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = way.changed() => continue,
        };
        let Ok(count @ 1..) = read else { return };
        let Some(read) = bytes.get(..count) else { return };
        if !is_open(&mut way).await || to.write_all(read).await.is_err() {
            return;
        }
    }
}
