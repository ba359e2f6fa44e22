//! Calls between services, by `GrayClient` and `GrayChannel`: retried within the lane, never twice where
//! that could do something twice, and by the service's fallback where the lane is empty.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use gray_starter::{
    ChannelError, ChannelFailure, Context, GrayStatus, Lane, Starter, StarterProperties, scope,
};
use gray_tests::{Echo, Stub, eventually};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::ServiceExt;

const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

/// A service that finds these instances, each with its version.
fn starter(
    folder: &Path,
    fallback: &str,
    instances: &[(SocketAddr, &str)],
) -> anyhow::Result<Starter> {
    let lines = instances.iter().fold(String::new(), |lines, (addr, version)| {
        lines + &format!("  - {{address: '{addr}', metadata: {{version: {version}}}}}\n")
    });
    std::fs::write(folder.join("registry.yaml"), format!("services:\n  user-app:\n{lines}"))?;
    let rules = format!(
        "base: {{version: V1}}\nlanes: [{{name: gray, version: V2}}]\nfallback: {fallback}\n"
    );
    std::fs::write(folder.join("rules.yaml"), rules)?;
    let mut properties = StarterProperties::of("order-app");
    properties.version = Some("V1".to_owned());
    properties.registry = Some(folder.join("registry.yaml"));
    properties.rules = vec![folder.join("rules.yaml")];
    Ok(Starter::start(properties)?)
}

/// Takes a request, and closes without a word.
async fn breaks_off() -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            if stream.read(&mut read).await.is_ok_and(|count| count > 0) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok((addr, asked))
}

/// An address where nobody is any more.
async fn gone() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

#[tokio::test]
async fn a_client_tries_another_instance_of_the_lane_and_no_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (base, gray) = (Stub::start("V1").await?, Stub::start("V2").await?);
    let (broken, asked) = breaks_off().await?;
    let instances = [(base.addr, "V1"), (gone().await?, "V2"), (broken, "V2"), (gray.addr, "V2")];
    let starter = starter(folder.path(), "base", &instances)?;
    starter.known().await;
    let client = starter.client();
    let get = async || {
        let answer = client.get("http://user-app/").send().await?;
        anyhow::Ok(Echo::read(answer).await?.version)
    };
    for _ in 0..12 {
        let version = scope(Context::of(GRAY), get()).await?;
        ensure!(version == "V2", "served by {version}");
    }
    ensure!(asked.load(Ordering::Relaxed) > 0, "the instance that breaks off was never tried");
    ensure!(base.requests() == 0, "base was asked");

    // A payment that one has taken before it broke off is not sent again.
    let before = asked.load(Ordering::Relaxed);
    let (mut paid, mut failed) = (0, 0);
    for _ in 0..12 {
        let pay = async { client.post("http://user-app/").body("pay").send().await };
        match scope(Context::of(GRAY), pay).await {
            Ok(_) => paid += 1,
            Err(_) => failed += 1,
        }
    }
    let taken = asked.load(Ordering::Relaxed) - before;
    ensure!(failed == taken && paid + failed == 12, "{paid} paid, {failed} failed, {taken} taken");
    ensure!(failed > 0 && base.requests() == 0, "{failed} failed");
    Ok(())
}

/// A lane that has instances is left for nobody, not even where none of them can be reached and the
/// fallback is base: it is for lanes that are empty.
#[tokio::test]
async fn a_lane_whose_instances_are_all_gone_is_not_left() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (base, (grpc, of_base)) = (Stub::start("V1").await?, grpc(false).await?);
    for address in [base.addr, grpc] {
        let starter = starter(folder.path(), "base", &[(address, "V1"), (gone().await?, "V2")])?;
        starter.known().await;
        let call = async { starter.client().get("http://user-app/").send().await };
        let error = scope(Context::of(GRAY), call).await.err().context("it was served")?;
        ensure!(matches!(error, gray_starter::CallError::Http { .. }), "{error:?}");
        let call = starter.channel("user-app").oneshot(ask()?);
        let error = scope(Context::of(GRAY), call).await.err().context("it was served")?;
        ensure!(matches!(error.failure(), ChannelFailure::Connect(..)), "{error:?}");
        ensure!(code(error) == tonic::Code::Unavailable, "it is another code");
    }
    let asked = base.requests() + of_base.load(Ordering::Relaxed);
    ensure!(asked == 0, "base was asked");
    Ok(())
}

/// Speaks HTTP/2 only, and counts what it answers; silent, it never does.
async fn grpc(silent: bool) -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let answered = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&answered);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                answer(silent, Arc::clone(&counted))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok((addr, answered))
}

async fn answer(
    silent: bool,
    answered: Arc<AtomicUsize>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    if silent {
        std::future::pending::<()>().await;
    }
    answered.fetch_add(1, Ordering::Relaxed);
    Ok(Response::new(Empty::new()))
}

/// What the clients see that tonic generates.
fn code(error: ChannelError) -> tonic::Code {
    tonic::Status::from_error(Box::new(error)).code()
}

fn ask() -> anyhow::Result<Request<Empty<Bytes>>> {
    Ok(Request::post("/a.B/C").header("content-type", "application/grpc").body(Empty::new())?)
}

#[tokio::test]
async fn a_channel_tries_another_instance_of_the_lane_and_no_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ((base, of_base), (gray, of_gray)) = (grpc(false).await?, grpc(false).await?);
    let instances = [(base, "V1"), (gone().await?, "V2"), (gray, "V2")];
    let starter = starter(folder.path(), "base", &instances)?;
    starter.known().await;
    for _ in 0..10 {
        let call = starter.channel("user-app").oneshot(ask()?);
        ensure!(scope(Context::of(GRAY), call).await?.status() == 200);
    }
    let counts = [&of_base, &of_gray].map(|count| count.load(Ordering::Relaxed));
    ensure!(counts == [0, 10], "{counts:?}");
    // The lane leaves: base serves, since that is the fallback.
    let left =
        format!("services:\n  user-app:\n  - {{address: '{base}', metadata: {{version: V1}}}}\n");
    std::fs::write(folder.path().join("registry.yaml"), left)?;
    eventually(Duration::from_secs(10), async || {
        let call = starter.channel("user-app").oneshot(ask()?);
        scope(Context::of(GRAY), call).await?;
        ensure!(of_base.load(Ordering::Relaxed) > 0, "not yet");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_channel_fails_where_its_lane_is_empty_and_nothing_else_is_allowed() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let (base, of_base) = grpc(false).await?;
    let starter = starter(folder.path(), "fail", &[(base, "V1")])?;
    starter.known().await;
    let call = starter.channel("user-app").oneshot(ask()?);
    let error = scope(Context::of(GRAY), call).await.err().context("it was served")?;
    ensure!(matches!(error.failure(), ChannelFailure::NoInstance(_)), "{error:?}");
    ensure!(code(error) == tonic::Code::Unavailable, "it is another code");
    let edge = starter.edges().counts().into_iter().find(|(edge, _)| edge.lane == GRAY);
    ensure!(edge.is_some_and(|(_, counts)| counts.failures == 1), "the failure is not counted");
    ensure!(of_base.load(Ordering::Relaxed) == 0, "base was asked");
    let call = starter.channel("user-app").oneshot(ask()?);
    ensure!(scope(Context::of(GrayStatus::Prod), call).await?.status() == 200);
    Ok(())
}

#[tokio::test]
async fn a_call_ends_when_its_callers_patience_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (silent, _) = grpc(true).await?;
    let starter = starter(folder.path(), "base", &[(silent, "V1")])?;
    starter.known().await;
    let mut request = ask()?;
    request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("300m"));
    let began = Instant::now();
    let call = starter.channel("user-app").oneshot(request);
    let limited = tokio::time::timeout(Duration::from_secs(10), call).await?;
    let error = limited.err().context("it was answered")?;
    ensure!(matches!(error.failure(), ChannelFailure::Timeout), "{error:?}");
    ensure!(code(error) == tonic::Code::DeadlineExceeded, "it is another code");
    ensure!(began.elapsed() >= Duration::from_millis(290), "after {:?}", began.elapsed());
    // It once was counted nowhere.
    let counts = starter.edges().to_prometheus();
    let failed = "lane_failure_total{from=\"order-app\",to=\"user-app\",lane=\"PROD\"} 1\n";
    ensure!(counts.contains(failed), "{counts}");
    Ok(())
}

/// A copy that started while the documents were wrong went on without them, was registered, and sent each lane to
/// any version: one letter and a rolling restart put production onto gray.
#[tokio::test]
async fn nobody_is_called_before_it_is_known_which_version_a_lane_has() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
    let instances = [(stubs[0].addr, "V1"), (stubs[1].addr, "V2")];
    // Only for what it writes.
    drop(starter(folder.path(), "base", &instances)?);
    let rules = folder.path().join("rules.yaml");
    let right = std::fs::read_to_string(&rules)?;
    std::fs::write(&rules, right.replace("version: V2", "versoin: V2"))?;
    let mut properties = StarterProperties::of("order-app");
    properties.version = Some("V1".to_owned());
    properties.registry = Some(folder.path().join("registry.yaml"));
    properties.rules = vec![rules.clone()];
    let starter = Starter::start(properties)?;
    let mut registering = Box::pin(starter.register("127.0.0.1:7".parse()?));
    for status in [GrayStatus::Prod, GRAY, GrayStatus::All] {
        let call = async { starter.client().get("http://user-app/").send().await };
        let error = scope(Context::of(status), call).await.err().context("it was served")?;
        ensure!(
            error.to_string().contains("it is not known which version each lane has"),
            "{error}"
        );
        let call = starter.channel("user-app").oneshot(ask()?);
        let error = scope(Context::of(status), call).await.err().context("it was served")?;
        ensure!(matches!(error.failure(), ChannelFailure::NoInstance(_)), "{error:?}");
    }
    // A job has no lane of its own yet.
    ensure!(starter.client().get("http://user-app/").send().await.is_err(), "it was served");
    ensure!(futures_util::poll!(registering.as_mut()).is_pending(), "it is registered");
    ensure!(stubs.iter().all(|stub| stub.requests() == 0), "somebody was called");

    std::fs::write(&rules, right)?;
    drop(tokio::time::timeout(Duration::from_secs(10), registering).await??);
    for (status, version) in [(GrayStatus::Prod, "V1"), (GRAY, "V2")] {
        let call = async { starter.client().get("http://user-app/").send().await };
        let answer = scope(Context::of(status), call).await?;
        ensure!(Echo::read(answer).await?.version == version);
    }
    Ok(())
}
