//! The servers behind all gateways: four, in one thread, with answers that are ready.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::Context;

use crate::request::{BIG, ECHO};
use crate::wait::Sockets;

/// How many there are: two of V1, then two of V2.
pub(crate) const SERVERS: u16 = 4;

/// How long the answers are.
const SMALL: usize = 1024;
const LARGE: usize = 1 << 20;

/// Serves until it is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Upstream {
    /// The first of four ports.
    port: u16,
}

/// A server's answers.
struct Answers {
    head: String,
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new(number: u16, port: u16) -> Self {
        let version = 1 + number / 2;
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: up\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
             Content-Type: application/json\r\nCache-Control: no-cache\r\nETag: \"5f3-abcdef\"\r\n\
             X-Request-Id: 0123456789abcdef\r\nX-Upstream: V{version}-{port}\r\n"
        );
        let of = |length: usize| whole(&head, &vec![b'x'; length]);
        let (small, large) = (of(SMALL), of(LARGE));
        Self { head, small, large }
    }
}

fn whole(head: &str, body: &[u8]) -> Vec<u8> {
    let mut whole = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    whole.extend_from_slice(body);
    whole
}

/// A connection of a gateway.
struct Connection {
    stream: TcpStream,
    server: usize,
    /// What has come of a request that is not whole.
    read: Vec<u8>,
    /// How much of a body is still to come, which nobody wants.
    skip: usize,
    /// What could not be written yet, and whether room for it is waited for.
    unwritten: Vec<u8>,
    waits: bool,
}

impl Upstream {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut sockets = Sockets::new()?;
        let (mut listeners, mut answers) = (Vec::new(), Vec::new());
        for number in 0..SERVERS {
            let port = self.port + number;
            let listener = TcpListener::bind(("127.0.0.1", port));
            let listener = listener.with_context(|| format!("127.0.0.1:{port} cannot be had"))?;
            listener.set_nonblocking(true)?;
            sockets.add(&listener, number.into())?;
            listeners.push(listener);
            answers.push(Answers::new(number, port));
        }
        let mut connections: Vec<Option<Connection>> = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            for number in sockets.ready(None)? {
                if let Some(listener) = listeners.get(number) {
                    accept(listener, number, &sockets, &mut connections)?;
                    continue;
                }
                let Some(slot) = connections.get_mut(number - listeners.len()) else { continue };
                let Some(connection) = slot else { continue };
                let Some(answers) = answers.get(connection.server) else { continue };
                if connection.go_on(answers, &mut buffer).is_err() {
                    *slot = None;
                    continue;
                }
                let waits = !connection.unwritten.is_empty();
                if waits != connection.waits {
                    sockets.writes(&connection.stream, number, waits)?;
                    connection.waits = waits;
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    server: usize,
    sockets: &Sockets,
    connections: &mut Vec<Option<Connection>>,
) -> std::io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let place = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        if place == connections.len() {
            connections.push(None);
        }
        sockets.add(&stream, place + usize::from(SERVERS))?;
        let (read, unwritten) = (Vec::new(), Vec::new());
        let connection = Connection { stream, server, read, skip: 0, unwritten, waits: false };
        if let Some(slot) = connections.get_mut(place) {
            *slot = Some(connection);
        }
    }
    Ok(())
}

impl Connection {
    /// Reads what has come, and answers it.
    fn go_on(&mut self, answers: &Answers, buffer: &mut [u8]) -> std::io::Result<()> {
        let unwritten = std::mem::take(&mut self.unwritten);
        self.write(&unwritten)?;
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut read = std::mem::take(&mut self.read);
        read.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let mut rest = read.as_slice();
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = rest.get(skipped..).unwrap_or_default();
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            let Ok(httparse::Status::Complete(end)) = request.parse(rest) else { break };
            let is_length =
                |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
            let length = request.headers.iter().find(is_length);
            let length = length.and_then(|it| std::str::from_utf8(it.value).ok()?.parse().ok());
            self.skip = length.unwrap_or(0);
            let (head, body) = rest.split_at(end);
            match request.path {
                Some(BIG) => self.write(&answers.large)?,
                Some(ECHO) => self.write(&whole(&answers.head, head))?,
                _ => self.write(&answers.small)?,
            }
            rest = body;
        }
        self.read = rest.to_vec();
        Ok(())
    }

    /// Writes what can be written, and keeps the rest.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        while self.unwritten.is_empty() && !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unwritten.extend_from_slice(rest);
        Ok(())
    }
}
