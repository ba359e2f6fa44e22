//! `graylane check` on rules that stand on a server.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use gray_tests::{Kind, Nacos, binary, free_port};

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules: [{name: canary, lane: gary}]
";

/// Returns the exit code and what was printed.
fn check(folder: &Path, server: &str) -> anyhow::Result<(Option<i32>, String)> {
    let config = format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nroutes: [{{service: app}}]\n\
         nacos: {{servers: ['{server}']}}\ndiscovery: {{files: [registry.yaml]}}\n\
         rules: {{nacos: {{dataIds: [rules.yaml]}}}}\n"
    );
    std::fs::write(folder.join("graylane.yaml"), config)?;
    let output = Command::new(binary("graylane")?).arg("check").current_dir(folder).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// What stands on the server is checked as files are: with its line, its column and its key.
async fn rules_on_a_server_are_checked(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let folder = tempfile::tempdir()?;
    let registry = "services:\n  app:\n  - {address: '127.0.0.1:7201', metadata: {version: V1}}\n";
    std::fs::write(folder.path().join("registry.yaml"), registry)?;
    let right = RULES.replace("gary", "gray");
    for (document, code, expected) in [
        (RULES, 2, "rules.yaml:3:24: rules[0].lane: there is no lane `gary`"),
        (&right, 1, "rules.yaml:2:22: lanes[0].version: lane gray has no instance of app"),
        ("base: {version: V1}\n", 0, "all is well"),
    ] {
        server.publish("rules.yaml", document).await?;
        gray_tests::eventually(std::time::Duration::from_secs(10), async || {
            let (ended, text) = check(folder.path(), &server.address())?;
            ensure!(ended == Some(code) && text.contains(expected), "{ended:?}: {text}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A server that is not there is an error that names it, and nothing waits for ever.
#[test]
fn a_server_that_is_away_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("registry.yaml"), "services: {}\n")?;
    let server = format!("127.0.0.1:{}", free_port(&[1000]));
    let (code, text) = check(folder.path(), &server)?;
    ensure!(code == Some(2) && text.contains(&server), "{code:?}: {text}");
    Ok(())
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn rules_on_a_server_are_checked() -> anyhow::Result<()> {
        super::rules_on_a_server_are_checked(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn rules_on_a_server_are_checked() -> anyhow::Result<()> {
        super::rules_on_a_server_are_checked(Kind::Java).await
    }
}
