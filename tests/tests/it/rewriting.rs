//! What a route makes of a request: the host that the instance is told, and the path.

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Stub};

async fn sees(route: &str, url: &str) -> anyhow::Result<(Echo, Stub)> {
    let stub = Stub::start("V1").await?;
    let folder = tempfile::tempdir()?;
    let registry = format!("services:\n  app:\n{}", stub.registry_line());
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "routes: [{{service: app, {route}}}]\ndiscovery: {{files: ['{{dir}}/registry.yaml']}}\n"
        ),
    )?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(gateway.url(url)).header("host", "shop.example:8080");
    Ok((Echo::read(request.send().await?.error_for_status()?).await?, stub))
}

#[tokio::test]
async fn an_instance_is_told_the_host_that_the_route_says() -> anyhow::Result<()> {
    let (echo, _) = sees("host: keep", "/").await?;
    ensure!(echo.header("host") == ["shop.example:8080"], "{echo:?}");
    let (echo, stub) = sees("host: instance", "/").await?;
    ensure!(echo.header("host") == [stub.addr.to_string()], "{echo:?}");
    let (echo, _) = sees("host: {name: inner.example}", "/").await?;
    ensure!(echo.header("host") == ["inner.example"], "{echo:?}");
    // Whatever the instance is told, it can learn what was asked for.
    ensure!(echo.header("x-forwarded-host") == ["shop.example:8080"], "{echo:?}");
    Ok(())
}

#[tokio::test]
async fn a_path_is_rewritten_and_the_rest_left_alone() -> anyhow::Result<()> {
    for (route, asked, seen) in [
        ("match: {path: {prefix: /api}}, stripPrefix: /api", "/api/a%2Fb?x=%20", "/a%2Fb?x=%20"),
        ("match: {path: {prefix: /api}}, stripPrefix: /api", "/api", "/"),
        ("match: {path: {prefix: /api}}, stripPrefix: /api", "/api?x=1", "/?x=1"),
        ("addPrefix: /v2", "/a//b", "/v2/a//b"),
        ("match: {path: {prefix: /api}}, stripPrefix: /api, addPrefix: /v2", "/api/a?b", "/v2/a?b"),
    ] {
        let (echo, _) = sees(route, asked).await?;
        ensure!(echo.target == seen, "{asked} became {}, not {seen}", echo.target);
    }
    Ok(())
}
