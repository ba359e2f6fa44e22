//! How each service is called: over TLS, and by which algorithm.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Echo, Gateway, Stub};
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Serves a certificate for this name, answers the version of HTTP and the name that was asked for,
/// and writes the certificate into the folder.
async fn tls_instance(folder: &Path, name: &str, alpn: &[&str]) -> anyhow::Result<SocketAddr> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()])?;
    std::fs::write(folder.join("ca.pem"), cert.pem())?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let asked = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let text = format!("{:?} for {asked}", request.version());
                async { Ok::<_, hyper::Error>(Response::new(text)) }
            });
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(addr)
}

fn gateway(folder: tempfile::TempDir, addrs: &[SocketAddr], app: &str) -> anyhow::Result<Gateway> {
    let instances: Vec<_> = addrs.iter().map(|addr| json!({ "address": addr })).collect();
    let registry = json!({ "services": { "app": instances } });
    std::fs::write(folder.path().join("registry.yaml"), registry.to_string())?;
    let config = format!(
        "routes: [{{service: app}}]\n\
         services: {{app: {{{app}}}}}\n\
         discovery: {{files: ['{{dir}}/registry.yaml']}}\n"
    );
    Gateway::start_in(folder, &config)
}

async fn get(gateway: &Gateway, headers: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.get(gateway.url("/"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test]
async fn https_is_spoken_in_the_version_that_the_instance_prefers() -> anyhow::Result<()> {
    for (alpn, version) in [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1")] {
        let folder = tempfile::tempdir()?;
        let addr = tls_instance(folder.path(), "app.test", alpn).await?;
        let app = "protocol: https, caFile: '{dir}/ca.pem', serverName: app.test";
        let gateway = gateway(folder, &[addr], app)?;
        let (status, text) = get(&gateway, &[]).await?;
        assert_eq!((status, text), (200, format!("{version} for app.test")));
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_nobody_known_is_refused() -> anyhow::Result<()> {
    for app in ["protocol: https, caFile: '{dir}/ca.pem'", "protocol: https, serverName: app.test"]
    {
        let folder = tempfile::tempdir()?;
        let addr = tls_instance(folder.path(), "app.test", &["h2"]).await?;
        let gateway = gateway(folder, &[addr], app)?;
        let (status, text) = get(&gateway, &[]).await?;
        assert_eq!(status, 502, "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_authority_file_is_named_at_the_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("ca.pem"), "no certificate")?;
    let started = gateway(folder, &[], "protocol: https, caFile: '{dir}/ca.pem'");
    let error = started.err().context("it started")?.to_string();
    ensure!(error.contains("services.app.caFile") && error.contains("ca.pem"), "{error}");
    Ok(())
}

#[tokio::test]
async fn consistent_hashing_keeps_to_the_header() -> anyhow::Result<()> {
    let mut stubs = Vec::new();
    for number in 0..4 {
        stubs.push(Stub::start(&number.to_string()).await?);
    }
    let addrs: Vec<_> = stubs.iter().map(|stub| stub.addr).collect();
    let app = "balance: consistentHash, hashBy: {header: x-session}";
    let gateway = gateway(tempfile::tempdir()?, &addrs, app)?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut used = BTreeSet::new();
    for session in 0..40 {
        let mut versions = BTreeSet::new();
        for _ in 0..5 {
            let request = client.get(gateway.url("/")).header("x-session", session);
            versions.insert(Echo::read(request.send().await?).await?.version);
        }
        ensure!(versions.len() == 1, "session {session} went to {versions:?}");
        used.extend(versions);
    }
    ensure!(used.len() == 4, "only {used:?} were used");
    Ok(())
}

#[tokio::test]
async fn every_other_algorithm_uses_every_instance() -> anyhow::Result<()> {
    for balance in ["roundRobin", "random", "leastRequest"] {
        let mut stubs = Vec::new();
        for number in 0..3 {
            stubs.push(Stub::start(&number.to_string()).await?);
        }
        let addrs: Vec<_> = stubs.iter().map(|stub| stub.addr).collect();
        let gateway = gateway(tempfile::tempdir()?, &addrs, &format!("balance: {balance}"))?;
        for _ in 0..60 {
            ensure!(get(&gateway, &[]).await?.0 == 200, "{balance}");
        }
        let counts: Vec<usize> = stubs.iter().map(Stub::requests).collect();
        ensure!(counts.iter().all(|count| *count > 0), "{balance}: {counts:?}");
        ensure!(balance != "roundRobin" || counts == [20, 20, 20], "{counts:?}");
    }
    Ok(())
}

/// Answers the first request of each connection, and closes on the second without a word.
async fn closes_on_the_second() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = [0; 4096];
                let _ = stream.read(&mut read).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                let _ = stream.read(&mut read).await;
            });
        }
    });
    Ok(addr)
}

/// The only instance closes its kept connection just as the next request arrives on it.
#[tokio::test]
async fn what_may_be_sent_twice_is_sent_again_after_a_lost_connection() -> anyhow::Result<()> {
    let addr = closes_on_the_second().await?;
    let gateway = gateway(tempfile::tempdir()?, &[addr], "")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for _ in 0..5 {
        let answer = client.get(gateway.url("/")).send().await?;
        assert_eq!(answer.status(), 200);
        answer.bytes().await?;
    }
    let answer = client.post(gateway.url("/")).body("pay").send().await?;
    assert_eq!(answer.status(), 502, "a payment must not be sent twice");
    Ok(())
}

/// hyper resets the stream of a request that is not answered.
async fn resets(asked: Arc<AtomicUsize>) -> std::io::Result<Response<String>> {
    asked.fetch_add(1, Ordering::Relaxed);
    tokio::task::yield_now().await;
    Err(std::io::Error::other("no"))
}

/// An instance that resets every stream is asked a few times, and no more.
#[tokio::test]
async fn an_instance_that_resets_every_stream_is_not_asked_for_ever() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            let service = service_fn(move |_| resets(Arc::clone(&counted)));
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let gateway = gateway(tempfile::tempdir()?, &[addr], "protocol: h2c")?;
    for _ in 0..5 {
        let asking = get(&gateway, &[]);
        let (status, text) = tokio::time::timeout(Duration::from_secs(10), asking).await??;
        ensure!(status == 502, "{status} {text}");
    }
    let asked = asked.load(Ordering::Relaxed);
    ensure!(asked <= 10, "five requests were sent {asked} times");
    Ok(())
}
