//! What instances do in a real registry, and what the gateway makes of it under load.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_config::nacos::{Link, Module, NacosInstance, NacosProperties};
use gray_tests::{Echo, Gateway, Kind, Nacos, Process, Stub, binary, eventually};
use tokio::net::TcpListener;

pub(super) const SERVICE: &str = "app";
pub(super) const GROUP: &str = "DEFAULT_GROUP";

fn link(server: &Nacos) -> Link {
    let servers = vec![server.address()];
    Link::new(NacosProperties { servers, ..Default::default() }, Module::Naming)
}

pub(super) async fn connected(server: &Nacos) -> anyhow::Result<Link> {
    up(link(server)).await
}

pub(super) async fn connected_with(properties: NacosProperties) -> anyhow::Result<Link> {
    up(Link::new(properties, Module::Naming)).await
}

async fn up(link: Link) -> anyhow::Result<Link> {
    let mut state = link.state();
    let up = state.wait_for(|state| state.connected);
    tokio::time::timeout(Duration::from_secs(30), up).await??;
    // The Java server takes a moment more until it knows its new connection (error 301).
    eventually(Duration::from_secs(30), async || {
        link.service("nobody", "DEFAULT_GROUP").await?;
        Ok(())
    })
    .await?;
    Ok(link)
}

pub(super) fn instance(addr: SocketAddr, version: &str) -> NacosInstance {
    NacosInstance {
        ip: addr.ip().to_string(),
        port: addr.port().into(),
        metadata: [("version".to_owned(), version.to_owned())].into(),
        ..NacosInstance::default()
    }
}

pub(super) fn start(server: &Nacos, discovery: &str, rules: &str) -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir()?;
    let rules = if rules.is_empty() { "enabled: false\n" } else { rules };
    std::fs::write(folder.path().join("rules.yaml"), rules)?;
    Gateway::start_in(
        folder,
        &format!(
            "nacos: {{servers: ['{}']}}\nroutes: [{{service: app}}]\n\
             discovery: {{{discovery}}}\nrules: {{files: ['{{dir}}/rules.yaml']}}\n",
            server.address()
        ),
    )
}

/// Waits until the gateway knows exactly these instances of the service.
pub(super) async fn knows(gateway: &Gateway, addrs: &[SocketAddr]) -> anyhow::Result<()> {
    eventually(Duration::from_secs(30), async || {
        let text = gateway.ask("/api/v1/services").await?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let known = value["services"][SERVICE].as_array().map_or(0, Vec::len);
        ensure!(known == addrs.len(), "{text}");
        for addr in addrs {
            ensure!(text.contains(&addr.to_string()), "{addr} is missing: {text}");
        }
        Ok(())
    })
    .await
}

/// Counts the connections that are made to it.
async fn decoy(addr: &str) -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok((addr, count))
}

/// Whoever may write to the registry must not be able to make the gateway call what it should not.
async fn hostile_instances_are_not_called(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let good = Stub::start("V1").await?;
    let (six, calls_of_six) = decoy("[::1]:0").await?;
    let (other, calls_of_other) = decoy("127.0.0.2:0").await?;
    let guard = "nacos: [{}], guard: {allow: ['127.0.0.1/32']}";
    let gateway = start(&server, guard, "base: {version: V1}\n")?;
    let honest = instance(good.addr, "V1");
    let mut hostile = vec![
        instance(gateway.admin, "V1"),
        instance(gateway.addr, "V1"),
        instance(six, "V1"),
        instance(other, "V1"),
        instance("169.254.169.254:80".parse()?, "V1"),
        instance("0.0.0.0:8080".parse()?, "V1"),
    ];
    for port in [0, 22, 65_536] {
        hostile.push(NacosInstance { port, ..honest.clone() });
    }
    for ip in ["localhost", "1.2.3.4@127.0.0.2", "127.0.0.2\r\nx: y"] {
        let port = i64::from(other.port());
        hostile.push(NacosInstance { ip: ip.to_owned(), port, ..honest.clone() });
    }
    for weight in [serde_json::json!(-1.0), serde_json::json!(1e308), "NaN".into()] {
        hostile.push(NacosInstance { weight, ..instance(other, "V1") });
    }
    let mut metadata = instance(other, "V1");
    metadata.metadata.insert("a\r\nb".to_owned(), "c".to_owned());
    hostile.push(metadata);

    // A server takes one ephemeral instance of a service per connection at a time, some only.
    let mut links = Vec::new();
    let mut taken = 0;
    for one in &hostile {
        let link = connected(&server).await?;
        taken += usize::from(link.register(SERVICE, GROUP, one).await.is_ok());
        links.push(link);
    }
    let link = connected(&server).await?;
    link.register(SERVICE, GROUP, &honest).await?;
    knows(&gateway, &[good.addr]).await?;
    ensure!(taken >= 8, "the server itself took only {taken}");
    eventually(Duration::from_secs(20), async || {
        let refused = gateway.metric("graylane_instances_refused").await?;
        ensure!(refused >= 8.0, "only {refused} of {taken} are refused");
        Ok(())
    })
    .await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for _ in 0..100 {
        let echo = Echo::read(client.get(gateway.url("/")).send().await?).await?;
        ensure!(echo.version == "V1" && echo.header("gray") == ["PROD"], "{echo:?}");
    }
    ensure!(calls_of_six.load(Ordering::Relaxed) == 0, "[::1] was called");
    ensure!(calls_of_other.load(Ordering::Relaxed) == 0, "127.0.0.2 was called");
    Ok(())
}

/// A lane in a group of its own needs no version, and gets nobody else's requests.
async fn a_lane_may_have_a_group_of_its_own(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let (base, gray) = (Stub::start("base").await?, Stub::start("gray").await?);
    let plain = |addr| NacosInstance { metadata: [].into(), ..instance(addr, "") };
    let link = connected(&server).await?;
    link.register(SERVICE, GROUP, &plain(base.addr)).await?;
    let other = connected(&server).await?;
    other.register(SERVICE, "GRAY_GROUP", &plain(gray.addr)).await?;
    let rules = "lanes: [{name: gray}]\nfallback: fail\n\
                 rules: [{name: one, when: {header: {name: x, equal: '1'}}}]\n";
    let discovery = "nacos: [{}, {group: GRAY_GROUP, lane: gray}]";
    let gateway = start(&server, discovery, rules)?;
    knows(&gateway, &[base.addr, gray.addr]).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (header, expected) in [("0", "base"), ("1", "gray"), ("0", "base"), ("1", "gray")] {
        let request = client.get(gateway.url("/")).header("x", header);
        let echo = Echo::read(request.send().await?).await?;
        ensure!(echo.version == expected, "x: {header} went to {}", echo.version);
    }
    other.deregister(SERVICE, "GRAY_GROUP", &plain(gray.addr)).await?;
    knows(&gateway, &[base.addr]).await?;
    let answer = client.get(gateway.url("/")).header("x", "1").send().await?;
    ensure!(answer.status() == 503, "{}", answer.status());
    Ok(())
}

/// An instance with the link that keeps it registered.
pub(super) struct Registered {
    pub(super) stub: Stub,
    pub(super) link: Link,
}

impl Registered {
    pub(super) async fn start(server: &Nacos) -> anyhow::Result<Self> {
        Self::start_as(server, "V1").await
    }

    pub(super) async fn start_as(server: &Nacos, version: &str) -> anyhow::Result<Self> {
        let stub = Stub::start_to_be_killed(version).await?;
        let link = connected(server).await?;
        // The Java server says at times that it does not know the connection that it has just taken.
        let own = instance(stub.addr, version);
        let registered = async || Ok(link.register(SERVICE, GROUP, &own).await?);
        eventually(Duration::from_secs(10), registered).await?;
        Ok(Self { stub, link })
    }

    pub(super) async fn deregister(&self) -> anyhow::Result<()> {
        let own = instance(self.stub.addr, &self.stub.version);
        Ok(self.link.deregister(SERVICE, GROUP, &own).await?)
    }
}

/// A registry that suddenly knows nobody is doubted for the grace, and then believed.
async fn an_emptied_service_is_served_for_the_grace(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let one = Registered::start(&server).await?;
    let gateway = start(&server, "nacos: [{}], emptyGrace: 4s", "")?;
    knows(&gateway, &[one.stub.addr]).await?;
    one.deregister().await?;
    let began = tokio::time::Instant::now();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let is_served = async || anyhow::Ok(client.get(gateway.url("/")).send().await?.status() == 200);
    while began.elapsed() < Duration::from_secs(3) {
        ensure!(is_served().await?, "not served after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually(Duration::from_secs(15), async || {
        ensure!(!is_served().await?, "still served");
        Ok(())
    })
    .await?;
    let answer = client.get(gateway.url("/")).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status == 503 && text.contains("\"code\":\"empty-lane\""), "{status} {text}");
    // Whoever comes back is believed at once.
    let two = Registered::start(&server).await?;
    knows(&gateway, &[two.stub.addr]).await?;
    ensure!(is_served().await?, "not served again");
    Ok(())
}

/// Group, cluster and metadata as Spring Cloud Alibaba writes them are honoured, both ways.
async fn groups_and_clusters_are_honoured(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let (near, far) = (Stub::start("V1").await?, Stub::start("V1").await?);
    let mut links = Vec::new();
    for (stub, cluster) in [(&near, "HANGZHOU"), (&far, "SHANGHAI")] {
        let source = ("preserved.register.source".to_owned(), "SPRING_CLOUD".to_owned());
        let mut written = instance(stub.addr, "V1");
        written.metadata.extend([source]);
        written.cluster_name = Some(cluster.to_owned());
        let link = connected(&server).await?;
        link.register(SERVICE, "SEED_GROUP", &written).await?;
        links.push(link);
    }
    let gateway = start(&server, "nacos: [{group: SEED_GROUP, clusters: [HANGZHOU]}]", "")?;
    knows(&gateway, &[near.addr]).await?;

    // One of ours, as a client of another kind finds it.
    let mut command = Command::new(binary("graylane-demo")?);
    command.args(["user", "--version-label", "V2", "--nacos", &server.address()]);
    command.env("NACOS_GROUP", "SEED_GROUP").env("NACOS_CLUSTER", "HANGZHOU");
    let _service = Process::start(&mut command, &gateway.folder.path().join("service"))?;
    let other = Stub::start("V2").await?;
    let link = connected(&server).await?;
    let mut far = instance(other.addr, "V2");
    far.cluster_name = Some("SHANGHAI".to_owned());
    link.register("user-app", "SEED_GROUP", &far).await?;
    links.push(link);
    // One that looks for instances in one cluster calls nobody in the other.
    let mut command = Command::new(binary("graylane-demo")?);
    command.args(["order", "--version-label", "V2", "--nacos", &server.address()]);
    command.env("NACOS_GROUP", "SEED_GROUP").env("NACOS_CLUSTERS", "HANGZHOU");
    command.args(["--job", "1"]).env("GRAYLANE_BASE", "V2");
    let mut caller = Process::start(&mut command, &gateway.folder.path().join("caller"))?;
    caller
        .until(Duration::from_secs(30), |it| (it.matches("job: {").count() >= 6).then_some(()))?;
    ensure!(other.requests() == 0, "an instance of another cluster was called");
    eventually(Duration::from_secs(30), async || {
        let found = links.first().context("no link")?.service("user-app", "SEED_GROUP").await?;
        let near = |one: &&NacosInstance| one.cluster_name.as_deref() == Some("HANGZHOU");
        let one = found.hosts.iter().find(near).context("nobody is registered there")?;
        ensure!(one.healthy && one.enabled && one.ephemeral, "{one:?}");
        let version = one.metadata.get("version").map(String::as_str);
        ensure!(version == Some("V2"), "{one:?}");
        Ok(())
    })
    .await
}

/// Runs a command of the gateway on its own configuration.
fn graylane(gateway: &Gateway, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(binary("graylane")?);
    let output = command.args(arguments).current_dir(gateway.folder.path()).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// `check` and `explain` read what is registered now.
async fn documents_are_compared_with_what_is_registered(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let rules = "lanes: [{name: gray, version: V2}]\nbase: {version: V1}\n\
                 rules: [{name: one, when: {header: {name: x, equal: '1'}}}]\n";
    let gateway = start(&server, "nacos: [{}]", rules)?;
    let (code, printed) = graylane(&gateway, &["check"])?;
    ensure!(code == Some(1) && printed.contains("no instance of app is registered"), "{printed}");

    let one = Stub::start("V1").await?;
    let link = connected(&server).await?;
    link.register(SERVICE, GROUP, &instance(one.addr, "V1")).await?;
    knows(&gateway, &[one.addr]).await?;
    let (code, printed) = graylane(&gateway, &["check"])?;
    let told = "lane gray has no instance of app (version V2)";
    ensure!(code == Some(1) && printed.contains(told), "{code:?} {printed}");

    let gray = Stub::start("V2").await?;
    let other = connected(&server).await?;
    other.register(SERVICE, GROUP, &instance(gray.addr, "V2")).await?;
    knows(&gateway, &[one.addr, gray.addr]).await?;
    let (code, printed) = graylane(&gateway, &["check"])?;
    ensure!(code == Some(0) && printed == "all is well\n", "{code:?} {printed}");

    let asked = ["explain", "GET", "/", "-H", "x: 1"];
    let (code, offline) = graylane(&gateway, &asked)?;
    ensure!(code == Some(0) && offline.contains(&gray.addr.to_string()), "{offline}");
    let admin = gateway.admin.to_string();
    let (_, online) = graylane(&gateway, &[&asked[..], &["--admin", &admin]].concat())?;
    ensure!(online == offline, "offline: {offline}\nonline: {online}");
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn groups_and_clusters_are_honoured() -> anyhow::Result<()> {
        super::groups_and_clusters_are_honoured(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn an_emptied_service_is_served_for_the_grace() -> anyhow::Result<()> {
        super::an_emptied_service_is_served_for_the_grace(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn documents_are_compared_with_what_is_registered() -> anyhow::Result<()> {
        super::documents_are_compared_with_what_is_registered(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn hostile_instances_are_not_called() -> anyhow::Result<()> {
        super::hostile_instances_are_not_called(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn a_lane_may_have_a_group_of_its_own() -> anyhow::Result<()> {
        super::a_lane_may_have_a_group_of_its_own(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn groups_and_clusters_are_honoured() -> anyhow::Result<()> {
        super::groups_and_clusters_are_honoured(Kind::Java).await
    }

    #[tokio::test]
    async fn an_emptied_service_is_served_for_the_grace() -> anyhow::Result<()> {
        super::an_emptied_service_is_served_for_the_grace(Kind::Java).await
    }

    #[tokio::test]
    async fn documents_are_compared_with_what_is_registered() -> anyhow::Result<()> {
        super::documents_are_compared_with_what_is_registered(Kind::Java).await
    }

    #[tokio::test]
    async fn hostile_instances_are_not_called() -> anyhow::Result<()> {
        super::hostile_instances_are_not_called(Kind::Java).await
    }

    #[tokio::test]
    async fn a_lane_may_have_a_group_of_its_own() -> anyhow::Result<()> {
        super::a_lane_may_have_a_group_of_its_own(Kind::Java).await
    }
}
