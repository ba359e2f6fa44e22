//! How clients reach the gateway: in the clear, over TLS, by either version of HTTP.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Gateway, Stub, eventually};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn certify(folder: &Path, file: &str, name: &str) -> anyhow::Result<reqwest::Certificate> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()])?;
    std::fs::write(folder.join(format!("{file}.key")), signing_key.serialize_pem())?;
    std::fs::write(folder.join(format!("{file}.pem")), cert.pem())?;
    Ok(reqwest::Certificate::from_pem(cert.pem().as_bytes())?)
}

fn builder(
    gateway: &Gateway,
    name: &str,
    certificate: &reqwest::Certificate,
) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .tls_built_in_root_certs(false)
        .add_root_certificate(certificate.clone())
        .resolve(name, gateway.addr)
}

fn client(
    gateway: &Gateway,
    name: &str,
    certificate: &reqwest::Certificate,
) -> anyhow::Result<reqwest::Client> {
    Ok(builder(gateway, name, certificate).build()?)
}

#[tokio::test]
async fn the_name_chooses_the_certificate_and_files_are_read_again() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let one = certify(folder.path(), "one", "one.test")?;
    let two = certify(folder.path(), "two", "two.test")?;
    let registry = format!("services:\n  app:\n{}", stub.registry_line());
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    let gateway = Gateway::start_in(
        folder,
        "listeners:\n\
         - address: '127.0.0.1:0'\n\
         \x20 tls:\n\
         \x20   certificates:\n\
         \x20   - {certificateFile: '{dir}/one.pem', keyFile: '{dir}/one.key'}\n\
         \x20   - {certificateFile: '{dir}/two.pem', keyFile: '{dir}/two.key'}\n\
         routes: [{service: app}]\n\
         discovery: {files: ['{dir}/registry.yaml']}\n",
    )?;
    let port = gateway.addr.port();
    for (name, certificate) in [("one.test", &one), ("two.test", &two)] {
        let answer = client(&gateway, name, certificate)?.get(format!("https://{name}:{port}/"));
        let answer = answer.send().await?;
        ensure!(answer.version() == http::Version::HTTP_2, "{:?}", answer.version());
        ensure!(answer.text().await?.contains("\"x-forwarded-proto\":[\"https\"]"), "no https");
        // A client that offers nothing better is served by HTTP/1.1.
        let old = builder(&gateway, name, certificate).http1_only().build()?;
        let answer = old.get(format!("https://{name}:{port}/")).send().await?;
        ensure!(answer.version() == http::Version::HTTP_11, "{:?}", answer.version());
        let text = answer.text().await?;
        ensure!(
            text.contains("\"via\":[\"1.1 graylane\"]") && text.contains("\"https\""),
            "{text}"
        );
    }
    ensure!(
        client(&gateway, "one.test", &two)?
            .get(format!("https://one.test:{port}/"))
            .send()
            .await
            .is_err()
    );
    let fresh = certify(gateway.folder.path(), "two", "two.test")?;
    eventually(Duration::from_secs(15), async || {
        let answer = client(&gateway, "two.test", &fresh)?.get(format!("https://two.test:{port}/"));
        ensure!(answer.send().await?.status() == 200);
        Ok(())
    })
    .await?;
    garbage_is_not_taken(&gateway, &fresh).await
}

/// What is no certificate changes nothing, and is told of.
async fn garbage_is_not_taken(
    gateway: &Gateway,
    known: &reqwest::Certificate,
) -> anyhow::Result<()> {
    let counted = |result: &str| {
        format!("graylane_reloads_total{{files=\"certificates\",result=\"{result}\"}}")
    };
    ensure!(gateway.metric(&counted("done")).await? >= 1.0, "not counted");
    std::fs::write(gateway.folder.path().join("two.pem"), "no certificate")?;
    eventually(Duration::from_secs(15), async || {
        let text = gateway.ask("/readyz").await?;
        let told = text.contains("certificates were not replaced") && text.contains("two.pem");
        ensure!(told, "{text}");
        Ok(())
    })
    .await?;
    ensure!(gateway.metric(&counted("failed")).await? >= 1.0, "not counted");
    let url = format!("https://two.test:{}/", gateway.addr.port());
    let answer = client(gateway, "two.test", known)?.get(url);
    ensure!(answer.send().await?.status() == 200);
    Ok(())
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_understood_in_the_clear() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let registry = format!("services:\n  app:\n{}", stub.registry_line());
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n",
    )?;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let crumbs = client.get(gateway.url("/a?b")).header("cookie", "a=1").header("cookie", "b=2");
    let answer = crumbs.send().await?;
    ensure!(answer.version() == http::Version::HTTP_2);
    let text = answer.text().await?;
    ensure!(
        text.contains("\"target\":\"/a?b\"")
            && text.contains("\"via\":[\"2 graylane\"]")
            && text.contains("\"cookie\":[\"a=1; b=2\"]"),
        "{text}"
    );
    // As many fields as over HTTP/1.1, where all cookies are one.
    for (name, status) in [("cookie", 200), ("x", 431)] {
        let mut many = client.get(gateway.url("/"));
        for number in 0..150 {
            many = many.header(name, number.to_string());
        }
        let answer = many.send().await?;
        ensure!(answer.status() == status, "{name}: {}", answer.status());
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    certify(folder.path(), "one", "one.test")?;
    certify(folder.path(), "two", "two.test")?;
    let started = Gateway::start_in(
        folder,
        "listeners: [{address: '127.0.0.1:0', tls: {certificates: [{certificateFile: '{dir}/one.pem', \
         keyFile: '{dir}/two.key'}]}}]\nroutes: [{service: app}]\n",
    );
    let error = started.map(drop).unwrap_err().to_string();
    ensure!(
        error.contains("listeners[0].tls: ") && error.contains("the key is not that of"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_proxy_header_names_the_client() -> anyhow::Result<()> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let registry = format!("services:\n  app:\n{}", stub.registry_line());
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    let gateway = Gateway::start_in(
        folder,
        "listeners: [{address: '127.0.0.1:0', proxyProtocol: true}]\nroutes: [{service: app}]\n\
         discovery: {files: ['{dir}/registry.yaml']}\n",
    )?;
    let ask = async |head: &[u8]| -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(gateway.addr).await?;
        stream.write_all(head).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        // A connection that is refused may be reset.
        let _ = stream.read_to_string(&mut answer).await;
        Ok(answer)
    };
    let answer = ask(b"PROXY TCP4 203.0.113.7 127.0.0.1 1000 80\r\n").await?;
    ensure!(answer.contains("\"x-real-ip\":[\"203.0.113.7\"]"), "{answer}");
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\x7f\0\0\x01\x03\xe8\0\x50";
    let answer = ask(v2).await?;
    ensure!(answer.contains("\"x-real-ip\":[\"203.0.113.8\"]"), "{answer}");
    let answer = ask(b"").await?;
    ensure!(answer.is_empty(), "{answer}");
    Ok(())
}
