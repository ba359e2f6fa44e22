//! What operators see of requests: the access log, and counters.

use std::time::Duration;

use gray_tests::eventually;

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
        let line: serde_json::Value = serde_json::from_str(&text)?;
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
