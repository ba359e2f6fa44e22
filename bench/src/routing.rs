//! Whether a gateway routes as it should; one that does not is not measured.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::gateway::Gateway;
use crate::request::{ECHO, LANE};

/// A client that is gray by its address.
const GRAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// How long a gateway may take until it routes, after it has begun to listen.
const START: Duration = Duration::from_secs(20);

/// Waits until header and address decide, instances take turns, and upstreams are told the lane and the
/// client.
pub(crate) fn check(gateway: &Gateway, upstream: u16) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        match check_once(gateway, upstream) {
            Err(_) if began.elapsed() < START => {
                std::thread::park_timeout(Duration::from_millis(200));
            }
            checked => return checked,
        }
    }
}

fn check_once(gateway: &Gateway, upstream: u16) -> anyhow::Result<()> {
    let header = format!("{LANE}: gray\r\n");
    let base = BTreeSet::from([0, 1].map(|it| format!("V1-{}", upstream + it)));
    let gray = BTreeSet::from([2, 3].map(|it| format!("V2-{}", upstream + it)));
    for (client, header, expected) in [
        (Ipv4Addr::LOCALHOST, "", &base),
        (Ipv4Addr::LOCALHOST, header.as_str(), &gray),
        (GRAY, "", &gray),
    ] {
        let served = (0..4).map(|_| served_by(&get(gateway.port, client, "/", header)?));
        let served = served.collect::<anyhow::Result<BTreeSet<String>>>()?;
        ensure!(served == *expected, "{}: {served:?}, not {expected:?}", gateway.kind.name);
    }
    let name = gateway.kind.lane_header();
    for (client, lane) in [(GRAY, "gray"), (Ipv4Addr::LOCALHOST, "prod")] {
        let echo = get(gateway.port, client, ECHO, "")?.to_lowercase();
        let mut expected = vec![format!("\n{name}: {lane}\r")];
        // Envoy puts an address of the machine in place of 127.0.0.1.
        if client == GRAY {
            expected.push(format!("\nx-forwarded-for: {client}\r"));
        }
        for expected in expected {
            ensure!(echo.contains(&expected), "{}: no {expected:?} in {echo}", gateway.kind.name);
        }
    }
    Ok(())
}

fn served_by(answer: &str) -> anyhow::Result<String> {
    let line = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-upstream").then(|| value.trim().to_owned())
    });
    line.with_context(|| format!("nobody served it: {answer}"))
}

/// Asks from an address of ours; returns head and body of the answer.
fn get(port: u16, client: Ipv4Addr, path: &str, header: &str) -> anyhow::Result<String> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddr::from((client, 0)))?;
    rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{header}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
