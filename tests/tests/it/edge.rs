//! The gateway on files: what it does to requests, and to documents.

use std::time::Duration;

use anyhow::Context;
use gray_tests::{Echo, Gateway, Stub, eventually};
use tempfile::TempDir;

const RULES: &str = "\
lanes: [{name: gray, version: V2}]
base: {version: V1}
rules:
- {name: canary, when: {header: {name: x-canary, equal: '1'}}}
";

/// A gateway in front of one instance of each version.
pub(crate) struct Edge {
    pub(crate) gateway: Gateway,
    pub(crate) base: Stub,
    pub(crate) gray: Stub,
    pub(crate) client: reqwest::Client,
}

impl Edge {
    pub(crate) async fn start(more: &str) -> anyhow::Result<Self> {
        let (base, gray) = (Stub::start("V1").await?, Stub::start("V2").await?);
        let folder = tempfile::tempdir()?;
        register(&folder, &[&base, &gray])?;
        std::fs::write(folder.path().join("rules.yaml"), RULES)?;
        let config = format!(
            "routes: [{{service: app}}]\n\
             discovery: {{files: ['{{dir}}/registry.yaml']}}\n\
             rules: {{files: ['{{dir}}/rules.yaml']}}\n{more}"
        );
        let gateway = Gateway::start_in(folder, &config)?;
        gateway.ready().await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { gateway, base, gray, client })
    }

    pub(crate) async fn get(&self, headers: &[(&str, &str)]) -> anyhow::Result<Echo> {
        let mut request = self.client.get(self.gateway.url("/a?b=1"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Echo::read(request.send().await?).await
    }

    /// Waits until rules are in force that contain this.
    pub(crate) async fn follows(&self, part: &str) -> anyhow::Result<()> {
        eventually(Duration::from_secs(10), async || {
            let text = self.gateway.ask("/api/v1/rules").await?;
            anyhow::ensure!(text.contains(part), "{text}");
            Ok(())
        })
        .await
    }

    pub(crate) fn write_rules(&self, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.gateway.folder.path().join("rules.yaml"), text)?)
    }
}

pub(crate) fn register(folder: &TempDir, stubs: &[&Stub]) -> anyhow::Result<()> {
    let lines: String = stubs.iter().map(|stub| stub.registry_line()).collect();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    Ok(())
}

#[tokio::test]
async fn the_next_hop_sees_only_the_gateways_verdict() -> anyhow::Result<()> {
    let edge = Edge::start("propagation: {headers: [x-mse-tag], baggage: true}\n").await?;
    let forged = [
        ("gray", "GRAY"),
        ("gray", "blue"),
        ("Gray_", "GRAY"),
        ("x-mse-tag", "gray"),
        ("x_mse_tag", "gray"),
        ("baggage", "gray=gray,user=7"),
        ("connection", "gray, x-forwarded-for, x-mse-tag"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-graylane-hop", "from=app; fallback=base"),
        ("x_graylane_hop", "from=app; fallback=base"),
        ("x-graylane-tag", "1;k;GRAY;99999999999;p;AAAA"),
    ];
    // HTTP/2 has no Connection, and hyper's client refuses to write one.
    let without_connection: Vec<_> =
        forged.iter().copied().filter(|(name, _)| *name != "connection").collect();
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let (h1, edge) = (edge.get(&forged).await?, Edge { client: h2, ..edge });
    sees_only_the_verdict(&h1);
    sees_only_the_verdict(&edge.get(&without_connection).await?);
    let echo = edge.get(&[("x-canary", "1")]).await?;
    assert_eq!((echo.version.as_str(), echo.header("gray")), ("V2", &["GRAY".to_owned()][..]));
    assert_eq!(echo.header("x-mse-tag"), ["gray"]);
    assert_eq!(echo.header("baggage"), ["gray=gray"]);
    assert_eq!(echo.header("traceparent").len(), 1);
    Ok(())
}

fn sees_only_the_verdict(echo: &Echo) {
    assert_eq!(echo.version, "V1");
    assert_eq!(echo.header("gray"), ["PROD"]);
    assert_eq!(echo.header("baggage"), ["user=7"]);
    assert_eq!(echo.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(echo.header("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(echo.header("x-graylane-hop"), ["from=graylane; to=app"]);
    for name in
        ["x-mse-tag", "x_mse_tag", "gray_", "connection", "x_graylane_hop", "x-graylane-tag"]
    {
        assert!(echo.header(name).is_empty(), "{name}: {echo:?}");
    }
}

#[tokio::test]
async fn lanes_do_not_leak_to_clients_and_targets_stay_as_they_are() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    let url = edge.gateway.url("/a%2Fb//c?x=%20&y=a+b");
    let answer = edge.client.get(url).send().await?;
    assert!(!answer.headers().contains_key("gray"));
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.headers()["via"], "1.1 graylane");
    let echo = Echo::read(answer).await?;
    assert_eq!(echo.target, "/a%2Fb//c?x=%20&y=a+b");
    assert_eq!(echo.header("via"), ["1.1 graylane"]);
    Ok(())
}

#[tokio::test]
async fn a_trusted_tag_is_believed_and_no_other() -> anyhow::Result<()> {
    let edge = Edge::start("trustedTags: [127.0.0.1]\n").await?;
    assert_eq!(edge.get(&[("gray", "GRAY")]).await?.version, "V2");
    assert_eq!(edge.get(&[("gray", "Gray")]).await?.version, "V1");
    assert_eq!(edge.get(&[]).await?.version, "V1");
    Ok(())
}

#[tokio::test]
async fn instances_come_and_go() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    register(&edge.gateway.folder, &[&edge.base])?;
    // The gray lane is empty now: base serves, and the tag stays.
    eventually(Duration::from_secs(10), async || {
        let echo = edge.get(&[("x-canary", "1")]).await?;
        anyhow::ensure!(echo.version == "V1" && echo.header("gray") == ["GRAY"], "{echo:?}");
        Ok(())
    })
    .await?;
    let name = "graylane_fallbacks_total{service=\"app\",lane=\"GRAY\",to=\"base\"}";
    assert!(edge.gateway.metric(name).await? >= 1.0);
    let edge_of = "lane_fallback_total{from=\"graylane\",to=\"app\",lane=\"GRAY\"}";
    assert!(edge.gateway.metric(edge_of).await? >= 1.0);
    register(&edge.gateway.folder, &[&edge.base, &edge.gray])?;
    eventually(Duration::from_secs(10), async || {
        let echo = edge.get(&[("x-canary", "1")]).await?;
        anyhow::ensure!(echo.version == "V2", "{echo:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_instance_that_is_gone_is_replaced_within_the_lane() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    let other = Stub::start("V2").await?;
    let gone = Stub::start("V2").await?;
    let line = gone.registry_line();
    drop(gone);
    let lines = format!("{}{}{line}", edge.base.registry_line(), other.registry_line());
    let registry = edge.gateway.folder.path().join("registry.yaml");
    std::fs::write(registry, format!("services:\n  app:\n{lines}"))?;
    eventually(Duration::from_secs(10), async || {
        edge.get(&[("x-canary", "1")]).await?;
        anyhow::ensure!(other.requests() > 0, "not yet known");
        Ok(())
    })
    .await?;
    for _ in 0..20 {
        assert_eq!(edge.get(&[("x-canary", "1")]).await?.version, "V2");
    }
    assert_eq!(edge.base.requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_lane_whose_only_instance_is_gone_is_a_bad_gateway() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    let gone = Stub::start("V2").await?;
    let lines = format!("{}{}", edge.base.registry_line(), gone.registry_line());
    drop(gone);
    let registry = edge.gateway.folder.path().join("registry.yaml");
    std::fs::write(registry, format!("services:\n  app:\n{lines}"))?;
    eventually(Duration::from_secs(10), async || {
        let answer = edge.client.get(edge.gateway.url("/")).header("x-canary", "1").send().await?;
        anyhow::ensure!(answer.status() == 502, "{}", answer.status());
        let text = answer.text().await?;
        assert!(text.contains("\"code\":\"connect-failed\""), "{text}");
        Ok(())
    })
    .await?;
    // Its requests are not base's: the lane is not empty, only broken.
    assert_eq!(edge.base.requests(), 0);
    Ok(())
}

/// Documents that are wrong, each in its own way, and what is said of it.
pub(crate) fn wrong_documents() -> Vec<(String, &'static str)> {
    let bomb = (0..9).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        format!("{text}a{}: &a{} [{}]\n", level + 1, level + 1, format!("*a{level},").repeat(9))
    });
    let huge = format!("{RULES}# {}", "x".repeat(10 << 20));
    let cases: [(&str, &str); 9] = [
        ("rules: [", "rules.yaml:1:8: unclosed bracket"),
        ("ruels: []", "rules.yaml:1:1: ruels: unknown key `ruels`"),
        ("rules: 7", "rules.yaml:1:1: rules: expected a list, found `7`"),
        (
            "rules: [{name: a, lane: blue}]",
            "rules.yaml:1:19: rules[0].lane: there is no lane `blue`",
        ),
        (
            "lanes: [{name: gray}, {name: gray}]",
            "rules.yaml:1:24: lanes[1].name: a second lane is named `gray`",
        ),
        (
            "lanes: [{name: gray}]\nrules: [{name: a}, {name: a}]",
            "rules.yaml:2:21: rules[1].name: a second rule is named `a`",
        ),
        (&huge, "more than the 4194304"),
        (&bomb, "rules.yaml:6:22: aliases expand to too many values"),
        (
            "lanes: [{name: gray}]\nrules: [{name: a, when: {path: {regex: '(((a{99}){99}){99})'}}}]",
            "rules.yaml:2:33: rules[0].when.path.regex: the pattern becomes too large",
        ),
    ];
    cases.map(|(document, message)| (document.to_owned(), message)).into()
}

#[tokio::test]
async fn a_wrong_document_changes_nothing_and_is_told() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    for (number, (document, message)) in (1_u32..).zip(wrong_documents()) {
        edge.write_rules(&document)?;
        eventually(Duration::from_secs(20), async || {
            let rejected = edge.gateway.metric("graylane_rules_rejected_total").await?;
            anyhow::ensure!(rejected >= f64::from(number), "{message}: {rejected} rejected");
            let text = edge.gateway.ask("/readyz").await?;
            anyhow::ensure!(text.contains(message), "{message} is not in {text}");
            Ok(())
        })
        .await?;
        assert_eq!(edge.get(&[("x-canary", "1")]).await?.version, "V2");
        assert_eq!(edge.get(&[]).await?.version, "V1");
    }
    edge.write_rules(RULES)?;
    eventually(Duration::from_secs(10), async || {
        let text = edge.gateway.ask("/readyz").await?;
        anyhow::ensure!(!text.contains("rejected"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_that_nobody_routes_to_is_told_of_and_disturbs_nothing() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    edge.write_rules(&format!("{RULES}services:\n  apq: {{fallback: fail}}\n"))?;
    eventually(Duration::from_secs(10), async || {
        let text = edge.gateway.ask("/readyz").await?;
        let message = "services.apq: no route leads to `apq`; did you mean `app`?";
        let whole = text.contains(message) && text.contains("rules.yaml:6:");
        anyhow::ensure!(whole && text.contains("\"ready\":true"), "{text}");
        anyhow::ensure!(
            edge.gateway.metric("graylane_rules_warnings").await? >= 1.0,
            "not counted"
        );
        Ok(())
    })
    .await?;
    assert_eq!(edge.get(&[("x-canary", "1")]).await?.version, "V2");
    // What was odd is forgotten with the document.
    edge.write_rules(RULES)?;
    eventually(Duration::from_secs(10), async || {
        let text = edge.gateway.ask("/readyz").await?;
        anyhow::ensure!(text.contains("\"warnings\":[]"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_start_with_a_wrong_document_goes_on_with_the_last_good_one() -> anyhow::Result<()> {
    let mut edge = Edge::start("trustedTags: [127.0.0.1]\n").await?;
    let config = edge.gateway.folder.path().join("graylane.yaml");
    let text = std::fs::read_to_string(&config)?;
    let path = edge.gateway.folder.path().join("kept").display().to_string();
    std::fs::write(
        &config,
        text.replace("rules: {files:", &format!("rules: {{snapshot: '{path}', files:")),
    )?;
    edge.gateway.restart()?;
    eventually(Duration::from_secs(10), async || {
        anyhow::ensure!(std::path::Path::new(&path).exists(), "no snapshot yet");
        Ok(())
    })
    .await?;
    edge.write_rules("rules: [")?;
    edge.gateway.restart()?;
    assert_eq!(edge.get(&[("x-canary", "1")]).await?.version, "V2");
    assert_eq!(edge.get(&[]).await?.version, "V1");
    // A trusted tag counts only for lanes that there are.
    assert_eq!(edge.get(&[("gray", "gray-996")]).await?.version, "V1");
    assert_eq!(edge.get(&[("gray", "GRAY")]).await?.version, "V2");
    Ok(())
}

#[tokio::test]
async fn errors_are_problem_json_with_the_request_id() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    edge.write_rules(&format!("{RULES}fallback: fail\n"))?;
    register(&edge.gateway.folder, &[&edge.base])?;
    eventually(Duration::from_secs(10), async || {
        let answer = edge.client.get(edge.gateway.url("/")).header("x-canary", "1").send().await?;
        anyhow::ensure!(answer.status() == 503, "{}", answer.status());
        let id = answer.headers()["x-request-id"].to_str()?.to_owned();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let text = answer.text().await?;
        assert!(text.contains("\"code\":\"empty-lane\"") && text.contains(&id), "{text}");
        // Which lane it is in is not for clients.
        assert!(!text.to_lowercase().contains("gray "), "{text}");
        Ok(())
    })
    .await
}

/// With nothing in flight; draining.rs has what is.
#[tokio::test]
async fn it_ends_when_it_is_told_to_stop() -> anyhow::Result<()> {
    let mut edge = Edge::start("").await?;
    assert_eq!(edge.get(&[]).await?.version, "V1");
    edge.gateway.process.terminate()?;
    assert_eq!(edge.gateway.process.wait(Duration::from_secs(10))?, Some(0));
    assert!(edge.get(&[]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_database_of_places_is_read_again_when_it_changes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("city.mmdb");
    let write = |city: &str| -> anyhow::Result<()> {
        let mut writer = mmdb_writer::Writer::new("City");
        let network: ipnet::IpNet = "127.0.0.0/8".parse()?;
        writer.insert(network, &serde_json::json!({ "city": city }))?;
        let fresh = path.with_extension("fresh");
        std::fs::write(&fresh, writer.to_bytes()?)?;
        Ok(std::fs::rename(fresh, &path)?)
    };
    write("Shenzhen")?;
    let edge =
        Edge::start(&format!("places: {{databases: ['{}'], overrides: []}}\n", path.display()))
            .await?;
    edge.write_rules(
        "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n\
         rules: [{name: city, when: {city: {in: [广州市]}}}]\n",
    )?;
    edge.follows("\"city\"").await?;
    assert_eq!(edge.get(&[]).await?.version, "V1");
    write("Guangzhou")?;
    eventually(Duration::from_secs(10), async || {
        let echo = edge.get(&[]).await?;
        anyhow::ensure!(echo.version == "V2", "{echo:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_admin_page_shows_what_is_in_force_and_no_secret() -> anyhow::Result<()> {
    let edge = Edge::start(
        "nacos: {username: nacos, password: hush-hush}\n\
         user: {from: [{jwt: {secret: hush-hush}}]}\n",
    )
    .await?;
    for (path, expected) in [
        ("/healthz", "ok"),
        ("/api/v1/version", "\"revision\""),
        ("/api/v1/config", "\"username\":\"nacos\""),
        ("/api/v1/rules", "\"name\":\"canary\""),
        ("/api/v1/services", "\"version\":\"V2\""),
        ("/api/v1/lanes", "\"base\":\"V1\""),
        ("/api/v1/openapi.json", "/api/v1/explain"),
    ] {
        let text = edge.gateway.ask(path).await?;
        assert!(text.contains(expected) && !text.contains("hush-hush"), "{path}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_key_is_given_one_and_stays_where_it_is() -> anyhow::Result<()> {
    let edge = Edge::start("stickyCookie: {enabled: true, name: gid}\n").await?;
    edge.write_rules(
        "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n\
         rules: [{name: half, when: {percentage: {share: 50, by: [issuedCookie]}}}]\n",
    )?;
    let (cookie, version) = eventually(Duration::from_secs(10), async || {
        let answer = edge.client.get(edge.gateway.url("/")).send().await?;
        let cookie = answer.headers().get("set-cookie").context("no cookie")?.to_str()?.to_owned();
        Ok((cookie, Echo::read(answer).await?.version))
    })
    .await?;
    assert!(cookie.starts_with("gid=") && cookie.contains("HttpOnly"), "{cookie}");
    let pair = cookie.split(';').next().unwrap_or_default();
    for _ in 0..20 {
        assert_eq!(edge.get(&[("cookie", pair)]).await?.version, version);
    }
    Ok(())
}

#[tokio::test]
async fn what_rules_ask_for_and_nobody_knows_is_counted_and_no_error() -> anyhow::Result<()> {
    let edge = Edge::start("places: {overrides: []}\nuser: {from: [{header: x-user}]}\n").await?;
    edge.write_rules(
        "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n\
         - {name: city, when: {city: {in: [广州]}}}\n\
         - {name: user, when: {user: {in: [7]}}}\n",
    )?;
    edge.follows("\"city\"").await?;
    let asked = async |name: &str| edge.gateway.metric(name).await;
    let before = asked("graylane_place_unknown_total").await?;
    assert_eq!(edge.get(&[]).await?.version, "V1");
    let request = edge.client.get(edge.gateway.url("/"));
    let strange = http::HeaderValue::from_bytes(&[0xff, 0xfe, b'7'])?;
    let echo = Echo::read(request.header("x-user", strange).send().await?).await?;
    assert_eq!(echo.version, "V1");
    assert_eq!(edge.get(&[("x-user", "7")]).await?.version, "V2");
    eventually(Duration::from_secs(5), async || {
        let places = asked("graylane_place_unknown_total").await? - before;
        let users = asked("graylane_user_unknown_total").await?;
        anyhow::ensure!((places, users) == (3.0, 1.0), "{places} places, {users} users");
        Ok(())
    })
    .await
}
