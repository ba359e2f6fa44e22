//! `explain` against a gateway that serves: whatever a request says of itself, both decide alike.

use anyhow::{Context, ensure};
use gray_propagation::{GrayStatus, Lane, SignedTag, TagKey};
use gray_tests::{Echo, Gateway, Stub};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = "\
routes:
- {name: shop, service: app, match: {path: {prefix: /shop}, host: shop.example}}
- {name: other, service: other, match: {path: {prefix: /o}}}
- {name: rest, service: app, match: {methods: [GET]}}
discovery: {files: ['{dir}/registry.yaml']}
rules: {files: ['{dir}/rules.yaml']}
trustedProxies: [127.0.0.0/8, 10.0.0.0/8]
signedTags: [{id: k1, secret: 0123456789abcdef0123456789abcdef}]
propagation: {headers: [x-mse-tag], baggage: true, decisionHeader: true}
";

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}, {name: blue, version: V3}, {name: shut, version: V2, enabled: false}]
services: {other: {fallback: fail}}
rules:
- {name: office, when: {clientIp: {in: [203.0.113.0/24]}}}
- {name: header, lane: blue, when: {header: {name: x-try, equal: '1'}}}
- {name: cookie, when: {cookie: {name: group, in: [beta]}}}
- {name: place, when: {all: [{path: {prefix: /shop}}, {host: {equal: shop.example}}, {query: {name: beta, exists: true}}]}}
- {name: users, when: {user: {in: ['7']}}}
- {name: share, when: {percentage: {share: 30, by: [{header: x-key}, clientIp]}}}
";

/// One of these, or none.
fn one_of<'a>(all: &[&'a str]) -> Option<&'a str> {
    all.get(fastrand::usize(..=all.len())).copied()
}

/// What a request says of itself: its target and its headers.
fn request() -> anyhow::Result<(String, Vec<(String, String)>)> {
    let target = one_of(&["/shop/1", "/shop?beta", "/o/1?beta=1"]).unwrap_or("/");
    let mut headers = Vec::new();
    let mut say = |name: &str, values: &[&str]| {
        if let Some(value) = one_of(values) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    };
    say("host", &["shop.example", "shop.example:8080", "SHOP.example"]);
    if fastrand::bool() {
        say(
            "x-forwarded-for",
            &[
                "203.0.113.9",
                "203.0.113.9, 10.0.0.1",
                "198.51.100.1, x",
                "203.0.113.9, 198.51.100.1",
            ],
        );
        say("x-real-ip", &["203.0.113.9", "198.51.100.1"]);
    }
    say("x-try", &["1", "2"]);
    say("connection", &["x-try", "close, x-key"]);
    say("cookie", &["group=beta", "a=b; group=\"beta\"", "group=stable"]);
    say("x-user-no", &["7", "8"]);
    let key = fastrand::u8(..).to_string();
    say("x-key", &[&key]);
    say("gray", &["GRAY", "PROD", "blue"]);
    say("baggage", &["gray=gray", "user=7,gray=blue", "user=7"]);
    say("traceparent", &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
    if fastrand::u8(..4) == 0 {
        let lane = one_of(&["blue", "shut", "nobody"]);
        let status = match lane {
            Some(lane) => GrayStatus::Gray(lane.parse()?),
            None => GrayStatus::Gray(Lane::GRAY),
        };
        let secret =
            if fastrand::u8(..4) == 0 { "another secret of thirty-two bytes" } else { SECRET };
        let expires = SystemTime::now() + Duration::from_mins(1);
        let tag = SignedTag { status, expires, probe: false };
        let tag = TagKey::new("k1", secret.as_bytes())?.sign(&tag).context("no tag")?;
        headers.push(("x-graylane-tag".to_owned(), tag.to_str()?.to_owned()));
    }
    Ok((target.to_owned(), headers))
}

/// The words of `x-graylane-decision`.
fn word<'a>(decision: &'a str, name: &str) -> &'a str {
    let words = decision.split("; ").filter_map(|word| word.split_once('='));
    words.into_iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

fn check(answer: &Value, status: u16, decision: &str, echo: Option<&Echo>) -> anyhow::Result<()> {
    ensure!(answer["decision"]["status"] == word(decision, "lane"), "another lane");
    ensure!(
        answer["decision"]["rule"].as_str().unwrap_or("-") == word(decision, "rule"),
        "another rule"
    );
    ensure!(answer["revision"] == word(decision, "revision"), "another revision");
    let Some(echo) = echo else {
        ensure!(answer["error"].is_string(), "it should have been served: {status}");
        return Ok(());
    };
    ensure!(answer["error"].is_null(), "it was served");
    ensure!(
        answer["fallback"].as_str().unwrap_or("-") == word(decision, "fallback"),
        "another fallback"
    );
    ensure!(word(decision, "version") == echo.version, "another version");
    ensure!(
        echo.header("x-real-ip") == [answer["client"].as_str().unwrap_or_default()],
        "another client"
    );
    let writes = answer["writes"].as_array().context("nothing is written")?;
    let told = echo.lines();
    for line in writes {
        let (name, value) =
            (line[0].as_str().unwrap_or_default(), line[1].as_str().unwrap_or_default());
        // One that was made for this request is made anew for each.
        let found = if name == "traceparent" {
            told.contains("traceparent: ")
        } else {
            told.contains(&format!("{name}: {value}\r\n"))
        };
        ensure!(found, "{name}: {value} was not written:\n{told}");
    }
    for name in ["gray", "x-mse-tag", "x-graylane-hop", "x-graylane-tag"] {
        let written = writes.iter().any(|line| line[0] == name);
        ensure!(written != echo.header(name).is_empty(), "{name} was told:\n{told}");
    }
    Ok(())
}

#[tokio::test]
async fn explain_says_what_becomes_of_any_request() -> anyhow::Result<()> {
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?, Stub::start("V1").await?];
    let [base, gray, other] = stubs.each_ref().map(Stub::registry_line);
    let folder = tempfile::tempdir()?;
    let registry = format!("services:\n  app:\n{base}{gray}  other:\n{other}");
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let gateway = Gateway::start_in(folder, CONFIG)?;
    gateway.ready().await?;
    let explain = format!("http://{}/api/v1/explain", gateway.admin);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut served, mut refused, mut seen) = (0, 0, std::collections::BTreeSet::new());
    for _ in 0..1_500 {
        let (target, headers) = request()?;
        let mut request = client.get(gateway.url(&target)).header("x-graylane-explain", "1");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let decision = answer.headers().get("x-graylane-decision").cloned();
        let decision = decision.context("no decision")?.to_str()?.to_owned();
        let echo = if status == 200 { Some(Echo::read(answer).await?) } else { None };
        *(if echo.is_some() { &mut served } else { &mut refused }) += 1;
        let host = headers.iter().any(|(name, _)| name == "host");
        let own = (!host).then(|| ("host".to_owned(), gateway.addr.to_string()));
        let all: Vec<_> = headers.iter().cloned().chain(own).collect();
        let asked = json!({ "url": target, "headers": all, "ip": "127.0.0.1" });
        let question = client.post(&explain).header("content-type", "application/json");
        let told = question.body(asked.to_string()).send().await?.text().await?;
        let told: Value = serde_json::from_str(&told).context(told)?;
        seen.insert(format!("{} {}", word(&decision, "lane"), word(&decision, "rule")));
        check(&told, status, &decision, echo.as_ref())
            .with_context(|| format!("{target} {headers:?}\n{decision}\n{told:#}"))?;
    }
    ensure!(served > 500 && refused > 20, "{served} served, {refused} refused");
    ensure!(seen.len() >= 8, "only {seen:?}");
    Ok(())
}
