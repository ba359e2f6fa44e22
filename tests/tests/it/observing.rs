//! What operators see of requests: the access log, and counters.

use std::time::Duration;

use gray_tests::eventually;

use serde_json::Value;

use crate::edge::{Edge, register};

#[tokio::test]
async fn the_access_log_says_how_each_request_was_decided() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    let edge =
        Edge::start(&format!("accessLog: {{enabled: true, file: '{}'}}\n", log.display())).await?;
    edge.get(&[("x-canary", "1")]).await?;
    eventually(Duration::from_secs(10), async || {
        let text = std::fs::read_to_string(&log)?;
        let line: Value = serde_json::from_str(&text)?;
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        assert_eq!([word("lane"), word("rule"), word("version")], ["GRAY", "canary", "V2"]);
        assert_eq!((word("path").as_str(), line["status"].as_u64()), ("/a", Some(200)));
        assert_eq!(
            (word("instance"), line["attempts"].as_u64()),
            (edge.gray.addr.to_string(), Some(1))
        );
        let number = |key: &str| line[key].as_f64().unwrap_or(-1.0);
        let (head, whole) = (number("headMs"), number("totalMs"));
        anyhow::ensure!(0.0 < head && head <= whole && whole < 10_000.0, "{line}");
        Ok(())
    })
    .await?;
    // A lane without instances is served by base, and the line says so.
    register(&edge.gateway.folder, &[&edge.base])?;
    eventually(Duration::from_secs(10), async || {
        edge.get(&[("x-canary", "1")]).await?;
        let text = std::fs::read_to_string(&log)?;
        let last = text.lines().last().unwrap_or_default();
        let fallen = last.contains("\"fallback\":\"base\"") && last.contains("\"lane\":\"GRAY\"");
        anyhow::ensure!(fallen && last.contains(&edge.base.addr.to_string()), "{last}");
        Ok(())
    })
    .await?;
    // Durations are known by route, service, version and lane.
    let name = "graylane_request_duration_seconds_count{route=\"app\",service=\"app\",version=\"V2\",lane=\"GRAY\"}";
    anyhow::ensure!(edge.gateway.metric(name).await? >= 1.0, "{name} is missing");
    Ok(())
}

/// Rates, errors and durations, and how rules and instances are: each family, by its labels.
#[tokio::test]
async fn each_family_of_metrics_counts_what_it_says() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    for _ in 0..3 {
        edge.get(&[]).await?;
    }
    edge.get(&[("x-canary", "1")]).await?;
    let answer = edge.client.get(edge.gateway.url(&"/x".repeat(6_000))).send().await?;
    anyhow::ensure!(answer.status() == 414, "{}", answer.status());
    std::fs::write(edge.gateway.folder.path().join("rules.yaml"), "rules: [{nmae: x}]\n")?;
    let base = "route=\"app\",service=\"app\",version=\"V1\",lane=\"PROD\"";
    let gray = "route=\"app\",service=\"app\",version=\"V2\",lane=\"GRAY\"";
    eventually(Duration::from_secs(10), async || {
        edge.get(&[]).await?;
        for (series, least, most) in [
            (format!("graylane_requests_total{{{base},status=\"200\"}}"), 3.0, f64::MAX),
            (format!("graylane_requests_total{{{gray},status=\"200\"}}"), 1.0, f64::MAX),
            (format!("graylane_request_duration_seconds_count{{{gray}}}"), 1.0, f64::MAX),
            // Without it no quantile can be had of the others.
            (
                format!("graylane_request_duration_seconds_bucket{{le=\"+Inf\",{gray}}}"),
                1.0,
                f64::MAX,
            ),
            (format!("graylane_request_duration_seconds_sum{{{gray}}}"), f64::MIN_POSITIVE, 60.0),
            ("graylane_errors_total{code=\"target-too-long\"}".to_owned(), 1.0, 1.0),
            ("graylane_rule_matches_total{rule=\"canary\"}".to_owned(), 1.0, f64::MAX),
            ("graylane_instances{service=\"app\",version=\"V1\"}".to_owned(), 1.0, 1.0),
            ("graylane_instances{service=\"app\",version=\"V2\"}".to_owned(), 1.0, 1.0),
            ("graylane_rules_accepted_total".to_owned(), 1.0, 1.0),
            ("graylane_rules_rejected_total".to_owned(), 1.0, f64::MAX),
            ("graylane_rules_rejected_now".to_owned(), 1.0, 1.0),
            ("graylane_rules_unavailable".to_owned(), 0.0, 0.0),
            ("graylane_rules_age_seconds".to_owned(), 0.0, 60.0),
            ("graylane_connections".to_owned(), 1.0, f64::MAX),
            ("graylane_retries_total".to_owned(), 0.0, 0.0),
            ("graylane_directory_changes_total".to_owned(), 1.0, f64::MAX),
        ] {
            let value = edge.gateway.metric(&series).await?;
            anyhow::ensure!((least..=most).contains(&value), "{series} {value}");
        }
        let text = edge.gateway.ask("/metrics").await?;
        anyhow::ensure!(text.contains("graylane_rules_info{digest=\""), "{text}");
        anyhow::ensure!(text.ends_with("# EOF\n"), "{text}");
        Ok(())
    })
    .await
}

/// A client chooses paths, hosts, header values and methods: none becomes a name of a series, or
/// whoever can send requests could fill the memory of whoever counts them.
#[tokio::test]
async fn no_word_of_a_client_is_in_a_metric() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    let series = async || {
        let text = edge.gateway.ask("/metrics").await?;
        anyhow::ensure!(!text.contains("zebra"), "{text}");
        anyhow::Ok(text.lines().filter(|line| !line.starts_with('#')).count())
    };
    let mut counts = Vec::new();
    for round in 0..2 {
        for number in 0..50 {
            let word = format!("zebra{round}{number}");
            let url = edge.gateway.url(&format!("/{word}/1?{word}={word}"));
            let method = http::Method::from_bytes(word.to_uppercase().as_bytes())?;
            for method in [http::Method::GET, method] {
                let request = edge.client.request(method, &url).header("gray", &word);
                let request =
                    request.header("host", format!("{word}.test")).header("x-canary", "1");
                request.header("x-user-no", &word).send().await?;
            }
        }
        counts.push(series().await?);
    }
    assert_eq!(counts[0], counts[1]);
    let name = "graylane_rule_matches_total{rule=\"canary\"}";
    let hits = edge.gateway.metric(name).await?;
    anyhow::ensure!((hits - 200.0).abs() < 0.5, "{hits} hits of 200");
    Ok(())
}

/// How a request was decided is told where the operator allows it and the client asks, and nowhere
/// else.
#[tokio::test]
async fn a_decision_is_told_only_where_it_is_allowed_and_asked_for() -> anyhow::Result<()> {
    for (allowed, asked) in [(false, false), (false, true), (true, false), (true, true)] {
        let edge = Edge::start(&format!("propagation: {{decisionHeader: {allowed}}}\n")).await?;
        let request = edge.client.get(edge.gateway.url("/"));
        let request = if asked { request.header("x-graylane-explain", "1") } else { request };
        let answer = request.send().await?;
        let told = answer.headers().contains_key("x-graylane-decision");
        anyhow::ensure!(told == (allowed && asked), "allowed {allowed}, asked {asked}: {told}");
    }
    Ok(())
}

/// A name of somebody else's that leads to 127.0.0.1 has a browser ask for them what only operators may know.
#[tokio::test]
async fn the_admin_page_answers_to_its_own_name_only() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    let url = format!("http://{}/api/v1/config", edge.gateway.admin);
    let port = edge.gateway.admin.port();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("evil.example:{port}"), 403),
    ] {
        let answer = edge.client.get(&url).header("host", &host).send().await?;
        anyhow::ensure!(answer.status() == status, "{host}: {}", answer.status());
    }
    Ok(())
}

/// What the admin listener serves is what it says it serves.
#[tokio::test]
async fn each_path_of_the_openapi_document_answers_as_it_says() -> anyhow::Result<()> {
    let edge = Edge::start("").await?;
    let document: Value = serde_json::from_str(&edge.gateway.ask("/api/v1/openapi.json").await?)?;
    let version = document["openapi"].as_str().unwrap_or_default();
    anyhow::ensure!(version.starts_with("3."), "{document}");
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    let wanted = ["version", "config", "rules", "services", "lanes", "explain"];
    for name in wanted {
        anyhow::ensure!(paths.contains_key(&format!("/api/v1/{name}")), "{name} is missing");
    }
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let url = format!("http://{}{path}", edge.gateway.admin);
            let method = http::Method::from_bytes(method.to_uppercase().as_bytes())?;
            let request = edge.client.request(method, url);
            let request = request.header("content-type", "application/json");
            let request = request.body("{\"url\": \"/\"}");
            let answer = request.send().await?;
            let status = answer.status().as_u16().to_string();
            let said = &operation["responses"][&status]["content"];
            let kind = answer.headers()["content-type"].to_str()?.to_owned();
            let media = kind.split(';').next().unwrap_or_default();
            // There are no brokers here.
            let expected = if path.starts_with("/api/v1/messages") { "404" } else { "200" };
            anyhow::ensure!(status == expected, "{path}: {status} {}", answer.text().await?);
            anyhow::ensure!(said.get(media).is_some(), "{path} answers by {kind}, not by {said}");
        }
    }
    // What is no question is told what is missing.
    let url = format!("http://{}/api/v1/explain", edge.gateway.admin);
    let request = edge.client.post(url).header("content-type", "application/json");
    let answer = request.body("{\"method\": \"GET\"}").send().await?;
    anyhow::ensure!(answer.status() == 400, "{}", answer.status());
    let text = answer.text().await?;
    anyhow::ensure!(text.contains("missing field `url`"), "{text}");
    Ok(())
}
