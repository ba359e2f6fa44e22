//! Services whose gray lanes have a group or a namespace of their own, and no versions there.

use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::routing::get;
use gray_starter::{
    Context, GrayStatus, NacosProperties, Starter, StarterProperties, current_status, scope,
};
use gray_tests::{Gateway, Kind, Nacos, eventually};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(30);

fn starter(
    server: &Nacos,
    service: &str,
    version: Option<&str>,
    lane: Option<&str>,
) -> anyhow::Result<Starter> {
    let nacos = NacosProperties { servers: vec![server.address()], ..NacosProperties::default() };
    let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let mut properties = StarterProperties::of(service);
    properties.version = version.map(str::to_owned);
    properties.lane = lane.map(str::to_owned);
    properties.base = Some("V1".to_owned());
    properties.nacos = Some(nacos);
    properties.lane_groups = pair("GRAY", "GRAY_GROUP");
    properties.lane_namespaces = pair("blue", "blue-namespace");
    Ok(Starter::start(properties)?)
}

/// Serves the service `app`, which says whose copy it is and in which lane it works.
async fn serve(starter: Starter, name: &'static str) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let answer = async move || {
        let status = current_status().map_or_else(|| "none".to_owned(), |it| it.to_string());
        format!("{name} in {status}")
    };
    let router = Router::new().route("/", get(answer));
    tokio::spawn(async move { starter.serve(listener, router, std::future::pending()).await });
    Ok(())
}

/// Waits until a copy is where its lane is.
async fn registered(server: &Nacos, name: &str) -> anyhow::Result<()> {
    let place = match name {
        "gray" => ("", "GRAY_GROUP"),
        "blue" => ("blue-namespace", "DEFAULT_GROUP"),
        _ => ("", "DEFAULT_GROUP"),
    };
    eventually(PATIENCE, async || {
        let listed = server.instances_in(place, "app").await?;
        ensure!(listed.contains("\"port\""), "{name} is not registered: {listed}");
        Ok(())
    })
    .await
}

/// The caller's `GrayClient` and the gateway find the copies of a lane where that lane is, and nowhere else.
async fn lanes_are_found_in_their_groups(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let copies = [
        ("base", starter(&server, "app", Some("V1"), None)?, GrayStatus::Prod),
        ("gray", starter(&server, "app", None, Some("gray"))?, "GRAY".parse()?),
        ("blue", starter(&server, "app", None, Some("blue"))?, "blue".parse()?),
    ];
    let mut statuses = Vec::new();
    for (name, starter, status) in copies {
        ensure!(starter.own_status() == status, "{name} works in {}", starter.own_status());
        serve(starter, name).await?;
        statuses.push((name, status));
    }
    // Each caller has just started: already its first call has to wait for the lane's own registry.
    for (name, status) in &statuses {
        registered(&server, name).await?;
        let client = starter(&server, "caller", Some("V1"), None)?.client();
        let ask = async || {
            let answer = scope(Context::of(*status), client.get("http://app/").send()).await?;
            let text = answer.error_for_status()?.text().await?;
            ensure!(text == format!("{name} in {status}"), "{text}, asked in {status}");
            Ok(())
        };
        for _ in 0..20 {
            ask().await?;
        }
    }
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("rules.yaml"),
        "base: {version: V1}\nlanes: [{name: gray}, {name: blue}]\nrules:\n\
         - {name: gray, when: {header: {name: x-lane, equal: gray}}}\n\
         - {name: blue, lane: blue, when: {header: {name: x-lane, equal: blue}}}\n",
    )?;
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "nacos: {{servers: ['{0}']}}\nroutes: [{{service: app}}]\ndiscovery:\n  nacos:\n  - {{}}\n  \
             - {{group: GRAY_GROUP, lane: gray}}\n  - {{lane: blue, server: {{servers: ['{0}'], namespace: \
             blue-namespace}}}}\nrules: {{files: ['{{dir}}/rules.yaml']}}\n",
            server.address()
        ),
    )?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (name, status) in &statuses {
        eventually(PATIENCE, async || {
            let answer = client.get(gateway.url("/")).header("x-lane", *name).send().await?;
            let text = answer.error_for_status()?.text().await?;
            ensure!(text == format!("{name} in {status}"), "{text}, asked in {status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn lanes_are_found_in_their_groups() -> anyhow::Result<()> {
        super::lanes_are_found_in_their_groups(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn lanes_are_found_in_their_groups() -> anyhow::Result<()> {
        super::lanes_are_found_in_their_groups(Kind::Java).await
    }
}
