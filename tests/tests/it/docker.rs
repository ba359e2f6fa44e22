//! The deployments of `docker/`, as far as they can be tried without Docker: what the compose file
//! runs is run as processes, and what it says one can try is tried.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Kind, Nacos, Process, Release, RocketMq, binary, eventually, free_port};

fn docker(file: &str) -> anyhow::Result<String> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("no workspace")?;
    Ok(std::fs::read_to_string(root.join("docker").join(file))?)
}

/// The arguments of each service that the compose file runs.
fn commands(compose: &str) -> Vec<Vec<String>> {
    let listed = compose.lines().filter(|line| line.contains("<<: *service"));
    let inside = listed.filter_map(|line| line.split_once("command: [")?.1.split(']').next());
    let word = |part: &str| part.trim().trim_matches('\'').to_owned();
    inside.map(|list| list.split(',').map(word).collect()).collect()
}

async fn the_compose_file_runs_both_demos(kind: Kind) -> anyhow::Result<()> {
    let compose = docker("compose.yaml")?;
    let broker = RocketMq::start(Release::Five)?;
    let server = Nacos::start(kind).await?;
    server.publish("common-config.yaml", &docker("rules.yaml")?).await?;
    let folder = tempfile::tempdir()?;
    let mut services = Vec::new();
    for (number, arguments) in commands(&compose).into_iter().enumerate() {
        let here = |it: &String| {
            it.replace("0.0.0.0:8080", "127.0.0.1:0").replace("mq-names:9876", &broker.names())
        };
        let arguments: Vec<_> = arguments.iter().map(here).collect();
        let mut command = Command::new(binary("graylane-demo")?);
        command.args(arguments).env("NACOS_ADDR", server.address());
        services.push(Process::start(&mut command, &folder.path().join(number.to_string()))?);
    }
    ensure!(services.len() == 10, "{} services", services.len());
    let (port, admin) = (free_port(&[]), free_port(&[]));
    let state = folder.path().display().to_string();
    let config = docker("graylane.yaml")?.replace("/var/lib/graylane", &state);
    std::fs::write(folder.path().join("graylane.yaml"), config.replace("0.0.0.0", "127.0.0.1"))?;
    let mut command = Command::new(binary("graylane")?);
    command.args(["run", "--set", &format!("admin.address=127.0.0.1:{admin}")]);
    command.arg("--set").arg(format!("listeners=[{{address: '127.0.0.1:{port}'}}]"));
    command.current_dir(folder.path()).env("NACOS_ADDR", server.address());
    let _gateway = Process::start(&mut command, &folder.path().join("log"))?;
    let tries = compose.lines().filter_map(|line| line.strip_prefix("#   curl "));
    let tries: Vec<String> =
        tries.map(|it| it.replace("localhost:8080", &format!("127.0.0.1:{port}"))).collect();
    ensure!(tries.len() == 2, "{tries:?}");
    for (arguments, expected) in tries.iter().zip([
        "\"service\":\"user-app\",\"userId\":\"1\",\"version\":\"V1\"",
        "Agray[127.0.0.1] -> Bgray[127.0.0.1] -> Cgray[127.0.0.1]",
    ]) {
        eventually(Duration::from_secs(40), async || {
            let line = format!("curl -s --max-time 5 {arguments}");
            let output = tokio::process::Command::new("sh").args(["-c", &line]).output().await?;
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(printed.contains(expected), "{arguments}: {printed}");
            Ok(())
        })
        .await?;
    }
    // What was produced before gray owned its messages was base's.
    let consumed = "topic:TEST_MQ, producer:Cgray[127.0.0.1], invoke result:Agray[127.0.0.1]";
    let again = format!("curl -s --max-time 5 {}", tries[1]);
    eventually(Duration::from_mins(1), async || {
        tokio::process::Command::new("sh").args(["-c", &again]).output().await?;
        let printed: Vec<String> = services.iter().map(Process::printed).collect();
        ensure!(printed.iter().any(|it| it.contains(consumed)), "{}", printed.join("\n"));
        Ok(())
    })
    .await
}

/// The configuration in the manifest is one: all that is wrong is that there is no Nacos here.
#[test]
fn the_manifests_configuration_is_right() -> anyhow::Result<()> {
    let manifest = docker("kubernetes/gateway.yaml")?;
    let (_, rest) = manifest.split_once("graylane.yaml: |\n").context("no configuration")?;
    let (config, _) = rest.split_once("---").context("no end")?;
    let lines = config.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    let folder = tempfile::tempdir()?;
    let port = free_port(&[1000]);
    let text =
        lines.collect::<Vec<_>>().join("\n").replace("nacos:8848", &format!("127.0.0.1:{port}"));
    std::fs::write(folder.path().join("graylane.yaml"), text)?;
    let mut command = Command::new(binary("graylane")?);
    let output = command.arg("check").current_dir(folder.path()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
    let nacos = |line: &&str| line.starts_with("error: nacos 127.0.0.1");
    ensure!(!errors.is_empty() && errors.iter().all(nacos), "{printed}");
    Ok(())
}

/// As the compose file has it: rnacos keeps no tables of messages.
mod on_nacos {
    mod on_rocketmq_5 {
        use super::super::*;

        #[tokio::test(flavor = "multi_thread")]
        async fn the_compose_file_runs_both_demos() -> anyhow::Result<()> {
            super::super::the_compose_file_runs_both_demos(Kind::Java).await
        }
    }
}
