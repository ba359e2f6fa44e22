//! The whole journey: gateway -> A -> B -> C, each in V1 and V2, over HTTP and gRPC.

mod jobs;
mod replacing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Gateway, Kind, Nacos, Process, binary, eventually};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

const KEY: &str = "k1:0123456789abcdef0123456789abcdef";

/// One document for the gateway, which reads its rules, and for the services, which read its lanes.
const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules: [{name: canary, when: {header: {name: x-canary, equal: '1'}}}]
";

const BASE_WAY: &str = "A[127.0.0.1] -> B[127.0.0.1] -> C[127.0.0.1]\n";
const GRAY_WAY: &str = "Agray[127.0.0.1] -> Bgray[127.0.0.1] -> Cgray[127.0.0.1]\n";

/// The services of the chain behind a gateway, on one Nacos server.
pub(crate) struct Chain {
    pub(crate) server: Nacos,
    gateway: Gateway,
    pub(crate) services: BTreeMap<(&'static str, &'static str), Process>,
    /// Where the newest copies listen.
    addrs: BTreeMap<(&'static str, &'static str), SocketAddr>,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Chain {
    pub(crate) async fn start(
        kind: Kind,
        copies: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Self> {
        let server = Nacos::start(kind).await?;
        server.publish("common-config.yaml", RULES).await?;
        let gateway = Gateway::start(&format!(
            "nacos: {{servers: ['{}']}}\n\
             routes:\n\
             - {{service: spring-cloud-a, match: {{path: {{prefix: /A}}}}}}\n\
             - {{name: grpc, service: spring-cloud-a, match: {{path: {{prefix: /graylane.demo.Chain}}}}}}\n\
             discovery: {{nacos: [{{}}]}}\n\
             rules: {{nacos: {{dataIds: [common-config.yaml]}}}}\n\
             signedTags: [{{id: k1, secret: 0123456789abcdef0123456789abcdef}}]\n",
            server.address()
        ))?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let (services, addrs) = (BTreeMap::new(), BTreeMap::new());
        let folder = tempfile::tempdir()?;
        let mut chain = Self { server, gateway, services, addrs, client, folder };
        for (role, version) in copies {
            chain.run(role, version, &[])?;
        }
        // Without its rules the gateway sends everybody anywhere, which may look right for a while.
        chain.gateway.ready().await?;
        Ok(chain)
    }

    /// Starts a copy of a service, and returns where it listens.
    pub(crate) fn run(
        &mut self,
        role: &'static str,
        version: &'static str,
        more: &[&str],
    ) -> anyhow::Result<SocketAddr> {
        let unique = format!("{role}-{version}-{}", fastrand::u64(..));
        let mut command = Command::new(binary("graylane-demo")?);
        command.args([role, "--version-label", version, "--nacos", &self.server.address()]);
        command.args(more).env("GRAYLANE_TAG_KEYS", KEY);
        let mut process = Process::start(&mut command, &self.folder.path().join(unique))?;
        let addr = process.until(Duration::from_secs(10), |printed| {
            let (_, rest) = printed.split_once("addr=")?;
            rest.split_whitespace().next()?.parse().ok()
        })?;
        self.services.insert((role, version), process);
        self.addrs.insert((role, version), addr);
        Ok(addr)
    }

    pub(crate) async fn get(&self, path: &str, gray: bool) -> anyhow::Result<String> {
        way(&self.client, &self.gateway.url(path), gray).await
    }

    /// Waits until both lanes go the expected ways, over both transports.
    async fn goes(&self, base: &str, gray: &str) -> anyhow::Result<()> {
        eventually(Duration::from_secs(30), async || {
            for path in ["/A/http", "/A/grpc", "/A/dubbo"] {
                for (lane, expected) in [(false, base), (true, gray)] {
                    let text = self.get(path, lane).await?;
                    ensure!(text == expected, "{path}: {text}, not {expected}");
                }
            }
            Ok(())
        })
        .await
    }

    /// Reads one of the counters that a copy shows on its own page.
    pub(crate) async fn counter(
        &self,
        copy: (&'static str, &'static str),
        name: &str,
    ) -> anyhow::Result<u64> {
        let url = format!("http://{}/metrics", self.addrs[&copy]);
        let text = self.client.get(url).send().await?.text().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.unwrap_or("0").parse()?)
    }

    /// Waits until a copy has done its job, and said so.
    fn until_job(
        &mut self,
        copy: (&'static str, &'static str),
        parts: &[&str],
    ) -> anyhow::Result<()> {
        let process = self.services.get_mut(&copy).context("it is not there")?;
        let done = |line: &str| line.contains("job: ") && parts.iter().all(|it| line.contains(it));
        process.until(Duration::from_secs(20), |it| it.lines().any(done).then_some(()))?;
        // By now everybody is known: from here on each of them goes the same way.
        let jobs = |printed: &str| -> Vec<String> {
            let lines = printed.lines().skip_while(|line| !done(line));
            lines.filter(|line| line.contains("job: ")).map(str::to_owned).collect()
        };
        let more = process.until(Duration::from_secs(20), |it| {
            let jobs = jobs(it);
            (jobs.len() >= 5).then_some(jobs)
        })?;
        ensure!(more.iter().all(|line| done(line)), "not all have {parts:?}: {more:#?}");
        Ok(())
    }

    fn probe(&self, path: &str, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(binary("graylane")?);
        command.arg("probe").arg(self.gateway.url(path)).args(["--key", KEY]).args(arguments);
        let output = command.output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!printed.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code(), printed))
    }
}

async fn way(client: &reqwest::Client, url: &str, gray: bool) -> anyhow::Result<String> {
    let request = client.get(url).header("x-canary", if gray { "1" } else { "0" });
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status == 200, "{url}: {status} {text}");
    Ok(text)
}

/// Holds what a probe has printed against docs/services.md.
fn is_documented(printed: &str) -> anyhow::Result<()> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/services.md");
    let guide = std::fs::read_to_string(guide)?;
    ensure!(guide.contains(printed), "docs/services.md does not show:\n{printed}");
    Ok(())
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Ask {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Way {
    #[prost(string, tag = "1")]
    way: String,
}

/// Calls A by gRPC, as a client of the gateway; it goes on so.
async fn over_grpc(channel: &Channel, gray: bool) -> anyhow::Result<String> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let mut request = tonic::Request::new(Ask {});
    request.metadata_mut().insert("x-canary", if gray { "1" } else { "0" }.parse()?);
    let path = http::uri::PathAndQuery::from_static("/graylane.demo.Chain/Call");
    let codec = tonic_prost::ProstCodec::<Ask, Way>::default();
    Ok(client.unary(request, path, codec).await?.into_inner().way)
}

/// The same way, by either transport between the services.
const BOTH: [&str; 2] = ["/A/http", "/A/grpc"];

/// Says what is on the way of each request.
const THROUGH: [&str; 2] = ["--through", "spring-cloud-a,spring-cloud-c"];

/// All copies of all services.
const ALL: [(&str, &str); 6] =
    [("a", "V1"), ("a", "V2"), ("b", "V1"), ("b", "V2"), ("c", "V1"), ("c", "V2")];

/// Two thousand mixed requests, none of which crosses a lane.
async fn no_request_leaves_its_lane(kind: Kind) -> anyhow::Result<()> {
    let chain = Chain::start(kind, &ALL).await?;
    chain.goes(BASE_WAY, GRAY_WAY).await?;
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let (client, url) = (chain.client.clone(), chain.gateway.url(""));
        clients.spawn(async move {
            let channel = Endpoint::from_shared(url.clone())?.connect().await?;
            for turn in 0..250 {
                let gray = (number + turn) % 2 == 0;
                let text = match turn % 3 {
                    0 => way(&client, &format!("{url}/A/http"), gray).await?,
                    1 => way(&client, &format!("{url}/A/grpc"), gray).await?,
                    _ => over_grpc(&channel, gray).await? + "\n",
                };
                ensure!(text == if gray { GRAY_WAY } else { BASE_WAY }, "{turn} {gray}: {text}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    // Who registered them can be seen in the server's console.
    let text = chain.server.instances("spring-cloud-a").await?;
    ensure!(text.matches(r#""preserved.register.source":"GRAYLANE""#).count() == 2, "{text}");
    for path in BOTH {
        let (code, printed) = chain.probe(path, &["--lane", "gray", "-n", "40"])?;
        ensure!(code == Some(0), "{printed}");
        for line in ["spring-cloud-a", "spring-cloud-b", "spring-cloud-c"] {
            let line = printed.lines().find(|it| it.trim_start().starts_with(line));
            let words: Vec<&str> = line.unwrap_or_default().split_whitespace().skip(1).collect();
            ensure!(words == ["V2", "GRAY", "40"], "{path}: {printed}");
        }
    }
    Ok(())
}

/// A lane that B is not part of goes through B's base, and is gray again after it.
async fn a_lane_without_b_is_gray_again_after_it(kind: Kind) -> anyhow::Result<()> {
    let copies: Vec<_> = ALL.into_iter().filter(|copy| *copy != ("b", "V2")).collect();
    let mut chain = Chain::start(kind, &copies).await?;
    let through_base = GRAY_WAY.replace("Bgray", "B");
    chain.goes(BASE_WAY, &through_base).await?;
    let fell = "lane_fallback_total{from=\"spring-cloud-a\",to=\"spring-cloud-b\",lane=\"GRAY\"}";
    let after = "lane_fallback_total{from=\"spring-cloud-b\",to=\"spring-cloud-c\",lane=\"GRAY\"}";
    for path in BOTH {
        let before = chain.counter(("a", "V2"), fell).await?;
        let (code, printed) = chain.probe(path, &["-n", "10", "--json"])?;
        ensure!(code == Some(0), "{printed}");
        // Each request is counted once, on the hop where it fell back, and nowhere else.
        let counted = chain.counter(("a", "V2"), fell).await? - before;
        ensure!(counted == 10, "{path}: {counted} of 10 fallbacks counted");
        ensure!(chain.counter(("b", "V1"), after).await? == 0, "counted where the lane was there");
        let value: serde_json::Value = serde_json::from_str(&printed)?;
        let b = &value["tree"][0]["calls"][0]["calls"][0];
        ensure!(b["service"] == "spring-cloud-b" && b["version"] == "V1", "{printed}");
        ensure!(b["fallback"] == "base" && b["count"] == 10, "{printed}");
        ensure!(b["calls"][0]["version"] == "V2" && b["calls"][0]["count"] == 10, "{printed}");
    }

    let (_, printed) = chain.probe("/A/http", &["-n", "20"])?;
    is_documented(&printed)?;

    // It joins, and the next requests go there.
    chain.run("b", "V2", &[])?;
    chain.goes(BASE_WAY, GRAY_WAY).await
}

/// B is replaced by one that calls C by an address of its own and forgets the tag: C, its
/// neighbour, says who lost it.
async fn who_loses_the_tag_is_found(kind: Kind) -> anyhow::Result<()> {
    let copies: Vec<_> = ALL.into_iter().filter(|copy| copy.0 != "b").collect();
    let mut chain = Chain::start(kind, &copies).await?;
    let c = chain.run("c", "V1", &[])?;
    let to = format!("http://{c}");
    for version in ["V1", "V2"] {
        chain.run("b", version, &["--lose-tag-to", &to])?;
    }
    eventually(Duration::from_secs(30), async || {
        let text = chain.get("/A/http", true).await?;
        ensure!(text == GRAY_WAY.replace("Cgray", "C"), "{text}");
        Ok(())
    })
    .await?;
    for path in BOTH {
        // C's own page says the same without a probe.
        let untagged =
            "lane_untagged_total{from=\"spring-cloud-b\",to=\"spring-cloud-c\",lane=\"PROD\"}";
        let before = chain.counter(("c", "V1"), untagged).await?;
        let (code, printed) = chain.probe(path, &["-n", "20"])?;
        ensure!(code == Some(1), "{path}: {printed}");
        let counted = chain.counter(("c", "V1"), untagged).await? - before;
        ensure!(counted == 20, "{path}: {counted} calls without a tag are counted");
        let line = printed.lines().find(|line| line.contains("spring-cloud-c")).unwrap_or_default();
        ensure!(line.contains("LOST: spring-cloud-b passed it on without the tag"), "{printed}");
        ensure!(line.split_whitespace().any(|word| word == "20"), "{printed}");
        is_documented(&format!("{line}\n"))?;
    }
    Ok(())
}

/// B is replaced by one that calls C by an address of its own, as it comes or without any header: the
/// first is told by C, which sees whose call it was, the second by who expects C on the way.
async fn who_goes_astray_is_found(kind: Kind) -> anyhow::Result<()> {
    let copies: Vec<_> = ALL.into_iter().filter(|copy| copy.0 != "b").collect();
    let mut chain = Chain::start(kind, &copies).await?;
    let to = format!("http://{}", chain.addrs[&("c", "V1")]);
    for (flag, through) in [("--pass-on-to", &[][..]), ("--call-bare", &THROUGH)] {
        for version in ["V1", "V2"] {
            if let Some(mut old) = chain.services.remove(&("b", version)) {
                old.terminate()?;
                ensure!(old.wait(Duration::from_secs(20))? == Some(0), "{}", old.printed());
            }
            chain.run("b", version, &[flag, &to])?;
        }
        eventually(Duration::from_secs(30), async || {
            let text = chain.get("/A/http", true).await?;
            ensure!(text == GRAY_WAY.replace("Cgray", "C"), "{text}");
            Ok(())
        })
        .await?;
        let (code, printed) = chain.probe("/A/http", &[&["-n", "20"], through].concat())?;
        ensure!(code == Some(1), "{flag}: {printed}");
        if flag == "--pass-on-to" {
            let line = printed.lines().find(|line| line.contains("spring-cloud-c"));
            ensure!(line.is_some_and(|line| line.contains("ESCAPED")), "{printed}");
            let escape =
                "lane_escape_total{from=\"spring-cloud-b\",to=\"spring-cloud-c\",lane=\"GRAY\"}";
            let counted = chain.counter(("c", "V1"), escape).await?;
            ensure!(counted >= 20, "{counted} escapes are counted");
        } else {
            ensure!(printed.contains("20 did not come by spring-cloud-c"), "{printed}");
            let untagged =
                "lane_untagged_total{from=\"unknown\",to=\"spring-cloud-c\",lane=\"PROD\"}";
            let counted = chain.counter(("c", "V1"), untagged).await?;
            ensure!(counted >= 20, "{counted} calls without a tag are counted");
        }
    }
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn no_request_leaves_its_lane() -> anyhow::Result<()> {
        super::no_request_leaves_its_lane(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn a_lane_without_b_is_gray_again_after_it() -> anyhow::Result<()> {
        super::a_lane_without_b_is_gray_again_after_it(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn who_loses_the_tag_is_found() -> anyhow::Result<()> {
        super::who_loses_the_tag_is_found(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn who_goes_astray_is_found() -> anyhow::Result<()> {
        super::who_goes_astray_is_found(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn who_loses_the_tag_is_found() -> anyhow::Result<()> {
        super::who_loses_the_tag_is_found(Kind::Java).await
    }

    #[tokio::test]
    async fn who_goes_astray_is_found() -> anyhow::Result<()> {
        super::who_goes_astray_is_found(Kind::Java).await
    }

    #[tokio::test]
    async fn no_request_leaves_its_lane() -> anyhow::Result<()> {
        super::no_request_leaves_its_lane(Kind::Java).await
    }

    #[tokio::test]
    async fn a_lane_without_b_is_gray_again_after_it() -> anyhow::Result<()> {
        super::a_lane_without_b_is_gray_again_after_it(Kind::Java).await
    }
}
