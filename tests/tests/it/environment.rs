//! What a service's environment says, as others see it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use gray_starter::{CallError, Context, GrayStatus, Lane, Starter, StarterProperties, scope};
use gray_tests::{Echo, Kind, Nacos, Process, Stub, binary, eventually};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

fn started(variables: &[(&str, &str)]) -> anyhow::Result<Starter> {
    let all: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let lookup = |name: &str| all.get(name).map(|it| (*it).to_owned());
    Ok(Starter::start(StarterProperties::from(&lookup, "order-app")?)?)
}

/// A file with one instance of user-app, and what a service needs to find it.
fn registry(folder: &tempfile::TempDir, addr: SocketAddr) -> anyhow::Result<String> {
    let path = folder.path().join("registry.yaml");
    let text =
        format!("services: {{user-app: [{{address: '{addr}', metadata: {{version: V1}}}}]}}\n");
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[tokio::test]
async fn further_carriers_are_written_and_read() -> anyhow::Result<()> {
    let (folder, user) = (tempfile::tempdir()?, Stub::start("V1").await?);
    let registry = registry(&folder, user.addr)?;
    let carriers = [("GRAYLANE_HEADERS", "x-mse-tag,x-lane"), ("GRAYLANE_BAGGAGE", "true")];
    let ask = async |more: &[(&str, &str)]| {
        let starter = started(&[&[("GRAYLANE_REGISTRY", registry.as_str())], more].concat())?;
        let call = async { starter.client().get("http://user-app/").send().await };
        let echo = Echo::read(scope(Context::of(GRAY), call).await?).await?;
        anyhow::Ok((starter, echo))
    };
    let (starter, echo) = ask(&carriers).await?;
    for name in ["x-mse-tag", "x-lane"] {
        ensure!(echo.header(name) == ["gray"], "{name}: {:?}", echo.headers);
    }
    ensure!(echo.header("gray") == ["GRAY"], "{:?}", echo.headers);
    let baggage = echo.header("baggage").concat();
    ensure!(baggage.contains("gray"), "{:?}", echo.headers);
    let layer = starter.layer().layer(service_fn(async |_: Request<()>| {
        let status = gray_starter::current_status().map(|it| it.to_string());
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(status.unwrap_or_default())))
    }));
    for (name, value) in [("x-mse-tag", "gray"), ("x-lane", "gray"), ("baggage", baggage.as_str())]
    {
        let request = Request::get("/").header(name, value).body(())?;
        let seen = layer.clone().oneshot(request).await?.into_body().collect().await?.to_bytes();
        ensure!(seen == "GRAY", "{name}: {value} was read as {seen:?}");
    }
    // Who does not ask for them has none of them.
    let (_, echo) = ask(&[]).await?;
    let more = ["x-mse-tag", "x-lane", "baggage"].iter().any(|name| !echo.header(name).is_empty());
    ensure!(!more, "{:?}", echo.headers);
    Ok(())
}

#[tokio::test]
async fn instances_in_other_networks_are_not_called() -> anyhow::Result<()> {
    let (folder, user) = (tempfile::tempdir()?, Stub::start("V1").await?);
    let registry = registry(&folder, user.addr)?;
    for (allow, served) in [("127.0.0.0/8,10.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let starter = started(&[("GRAYLANE_REGISTRY", &registry), ("GRAYLANE_ALLOW", allow)])?;
        let answer = starter.client().get("http://user-app/").send().await;
        match answer {
            Ok(_) => ensure!(served, "{allow} lets it through"),
            Err(CallError::NoInstance(_)) => ensure!(!served, "{allow} does not"),
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(user.requests() == 1, "{} requests", user.requests());
    Ok(())
}

/// The layer for other clients, with one of them.
#[tokio::test]
async fn a_client_that_goes_where_it_is_told_carries_the_lane() -> anyhow::Result<()> {
    let (folder, user) = (tempfile::tempdir()?, Stub::start("V1").await?);
    let starter = started(&[("GRAYLANE_REGISTRY", &registry(&folder, user.addr)?)])?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let client = starter.propagate().layer(client);
    let request = Request::get(format!("http://{}/", user.addr)).body(Empty::new())?;
    let answer = scope(Context::of(GRAY), client.oneshot(request)).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    let value: serde_json::Value = serde_json::from_slice(&body)?;
    ensure!(value["headers"]["gray"][0] == "GRAY", "{value}");
    ensure!(value["headers"]["x-graylane-hop"][0] == "from=order-app; to=", "{value}");
    Ok(())
}

/// A service that is served until it is told to stop.
struct Served {
    addr: SocketAddr,
    ready: Option<oneshot::Sender<()>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), gray_starter::ServeError>>,
}

async fn serve(variables: &[(&str, &str)]) -> anyhow::Result<Served> {
    let starter = started(variables)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let ((ready, warm), (stop, told)) = (oneshot::channel(), oneshot::channel());
    let (warm, told) = (async { drop(warm.await) }, async { drop(told.await) });
    let router = Router::new().route("/", get(async || "here"));
    let task = tokio::spawn(async move { starter.serve_when(warm, listener, router, told).await });
    Ok(Served { addr, ready: Some(ready), stop, task })
}

impl Served {
    /// Stops it, and returns how long that took.
    async fn stop(self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.stop.send(()).ok().context("it has ended")?;
        self.task.await??;
        Ok(began.elapsed())
    }
}

async fn what_it_says_of_itself_is_registered(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let address = server.address();
    let listed = async |count: usize| {
        eventually(Duration::from_secs(20), async || {
            let text = server.instances("order-app").await?;
            ensure!(text.matches("\"ip\"").count() == count, "{text}");
            Ok(text)
        })
        .await
    };
    let variables = [
        ("NACOS_ADDR", address.as_str()),
        ("GRAYLANE_VERSION", "V2"),
        ("GRAYLANE_LANE", "gray"),
        ("GRAYLANE_METADATA", "zone=a,owner=team-7,version=V9"),
        ("GRAYLANE_ADVERTISE", "127.0.0.9"),
        ("GRAYLANE_NOTICE", "3s"),
    ];
    let mut copy = serve(&variables).await?;
    // It is there for whoever knows it, and registers when it is warm.
    let url = format!("http://{}/", copy.addr);
    ensure!(reqwest::get(&url).await?.text().await? == "here", "another answer");
    tokio::time::sleep(Duration::from_secs(1)).await;
    listed(0).await?;
    drop(copy.ready.take());
    let text = listed(1).await?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let host = &value["hosts"][0];
    ensure!(host["ip"] == "127.0.0.9" && host["port"] == copy.addr.port(), "{text}");
    for (key, expected) in [
        ("version", "V2"),
        ("lane", "gray"),
        ("zone", "a"),
        ("owner", "team-7"),
        ("preserved.register.source", "GRAYLANE"),
    ] {
        ensure!(host["metadata"][key] == expected, "{key}: {text}");
    }
    let stopped = copy.stop().await?;
    ensure!(stopped >= Duration::from_secs(3), "it gave others {stopped:?} only");
    listed(0).await?;

    // Told to stop before it is warm, it never was registered, and gives nobody notice.
    let copy = serve(&variables).await?;
    ensure!(copy.stop().await? < Duration::from_secs(2), "it gave notice");
    listed(0).await?;
    Ok(())
}

/// The flags of the demo's services: a namespace, and a lane.
async fn a_demo_is_where_its_flags_say(kind: Kind) -> anyhow::Result<()> {
    let (server, folder) = (Nacos::start(kind).await?, tempfile::tempdir()?);
    let mut command = Command::new(binary("graylane-demo")?);
    command.args(["user", "--nacos", &server.address(), "--namespace", "shop-test"]);
    command.args(["--version-label", "V3", "--lane", "blue"]);
    let _process = Process::start(&mut command, &folder.path().join("log"))?;
    eventually(Duration::from_secs(30), async || {
        let text = server.instances_in(("shop-test", "DEFAULT_GROUP"), "user-app").await?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let metadata = &value["hosts"][0]["metadata"];
        ensure!(metadata["version"] == "V3" && metadata["lane"] == "blue", "{text}");
        Ok(())
    })
    .await?;
    let text = server.instances("user-app").await?;
    ensure!(!text.contains("\"ip\""), "it is in public, too: {text}");
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn what_it_says_of_itself_is_registered() -> anyhow::Result<()> {
        super::what_it_says_of_itself_is_registered(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn a_demo_is_where_its_flags_say() -> anyhow::Result<()> {
        super::a_demo_is_where_its_flags_say(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn what_it_says_of_itself_is_registered() -> anyhow::Result<()> {
        super::what_it_says_of_itself_is_registered(Kind::Java).await
    }

    #[tokio::test]
    async fn a_demo_is_where_its_flags_say() -> anyhow::Result<()> {
        super::a_demo_is_where_its_flags_say(Kind::Java).await
    }
}
