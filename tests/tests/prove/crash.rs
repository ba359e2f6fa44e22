//! A gateway that is killed at any moment starts again with one whole set of rules.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Gateway, eventually};
use serde_json::Value;

use crate::report;

/// How often the gateway is killed.
const KILLS: usize = 500;

/// Rules that all carry the number of their set.
fn rules(set: u64) -> String {
    let mut text = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n".to_owned();
    for number in 0..40 {
        let _ = writeln!(text, "- {{name: set-{set}-{number}, when: {{path: {{equal: /{set}}}}}}}");
    }
    text
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("written");
    std::fs::write(&fresh, text)?;
    Ok(std::fs::rename(fresh, path)?)
}

/// The number that all rules in force carry; `None` where there are none.
async fn in_force(gateway: &Gateway) -> anyhow::Result<Option<u64>> {
    let text = gateway.ask("/api/v1/rules").await?;
    let value: Value = serde_json::from_str(&text)?;
    let rules = value["rules"].as_array().context("no rules in the answer")?;
    let set = |rule: &Value| {
        let name = rule["name"].as_str()?;
        name.strip_prefix("set-")?.split('-').next()?.parse::<u64>().ok()
    };
    let Some(first) = rules.first() else { return Ok(None) };
    let first = set(first).with_context(|| format!("a strange rule: {first}"))?;
    let whole = rules.len() == 40 && rules.iter().all(|rule| set(rule) == Some(first));
    ensure!(whole, "half a set: {text}");
    Ok(Some(first))
}

#[tokio::test]
async fn no_kill_leaves_half_a_set() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yaml");
    write(&file, &rules(0))?;
    let mut gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\n\
         rules: {files: ['{dir}/rules.yaml'], snapshot: '{dir}/kept'}\n",
    )?;
    let mut set = 0;
    let (mut restored, mut behind) = (0, 0);
    for kill in 0..KILLS {
        let stop_at = std::time::Instant::now() + Duration::from_millis(fastrand::u64(5..120));
        while std::time::Instant::now() < stop_at {
            set += 1;
            write(&file, &rules(set))?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.process.kill();
        // Only the snapshot can say what the rules were.
        write(&file, "rules: [")?;
        gateway.restart()?;
        let found = in_force(&gateway).await?.with_context(|| format!("nothing after {kill}"))?;
        ensure!(found <= set, "set {found} was never written, only {set}");
        restored += 1;
        behind = behind.max(set - found);
        // The next round begins from a set that is known to be in force.
        set += 1;
        write(&file, &rules(set))?;
        eventually(Duration::from_secs(10), async || {
            let now = in_force(&gateway).await?;
            ensure!(now == Some(set), "{now:?} instead of {set}");
            Ok(())
        })
        .await?;
    }
    report(
        "crash",
        &format!(
            "{KILLS} kills (SIGKILL) while rules changed every 5 ms\n\
             starts that found one whole set: {restored}\n\
             starts that found half a set, or none: {}\n\
             sets written after the one that was found, at most: {behind}\n",
            KILLS - restored
        ),
    )
}
