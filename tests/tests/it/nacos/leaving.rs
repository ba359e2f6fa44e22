//! A service that stops, as those who call it see it.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::routing::get;
use gray_starter::{NacosProperties, Starter, StarterProperties};
use gray_tests::{Kind, Nacos, eventually};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// It leaves the registry first, is there for those who have not heard of it, and answers what was begun.
async fn a_service_leaves_the_registry_before_it_stops(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let nacos = NacosProperties { servers: vec![server.address()], ..NacosProperties::default() };
    let mut properties = StarterProperties::of("leaver");
    properties.version = Some("V1".to_owned());
    properties.base = Some("V1".to_owned());
    properties.nacos = Some(nacos);
    let starter = Starter::start(properties)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let (begun, mut handling) = mpsc::channel::<()>(1);
    let slow = get(async move || {
        // Longer than others are given to hear that it leaves.
        begun.send(()).await.map_err(|error| error.to_string())?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok::<_, String>("slow")
    });
    let router = Router::new().route("/", get(async || "here")).route("/slow", slow);
    let (stop, stopped) = oneshot::channel::<()>();
    let told = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(async move { starter.serve(listener, router, told).await });
    let listed = async |count: usize, within: Duration| {
        eventually(within, async || {
            let text = server.instances("leaver").await?;
            ensure!(text.matches("\"ip\"").count() == count, "{text}");
            Ok(())
        })
        .await
    };
    listed(1, Duration::from_secs(20)).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ask = async |path: &str| -> anyhow::Result<String> {
        // Each time by a connection of its own.
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.get(format!("http://{addr}{path}")).send().await?.text().await?)
    };
    let slow = tokio::spawn(client.get(format!("http://{addr}/slow")).send());
    handling.recv().await.context("it has not begun")?;
    drop(stop);
    // Others are given two seconds to hear of it.
    listed(0, Duration::from_millis(1_500)).await?;
    ensure!(ask("/").await? == "here", "another answer");
    ensure!(slow.await??.text().await? == "slow", "another answer");
    serving.await??;
    ensure!(ask("/").await.is_err(), "it is still there");
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn a_service_leaves_the_registry_before_it_stops() -> anyhow::Result<()> {
        super::a_service_leaves_the_registry_before_it_stops(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn a_service_leaves_the_registry_before_it_stops() -> anyhow::Result<()> {
        super::a_service_leaves_the_registry_before_it_stops(Kind::Java).await
    }
}
