//! The README's first command, and what it says one can try.

use std::process::Command;
use std::time::Duration;

use gray_tests::{Process, binary, eventually, free_port, scene_documents, verify};

#[tokio::test]
async fn the_demo_plays_all_scenes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (port, admin) = (free_port(&[]), free_port(&[]));
    let mut command = Command::new(binary("graylane")?);
    command.arg("demo").args(["--port", &port.to_string()]);
    command.args(["--admin-port", &admin.to_string()]);
    command.args(["--user-ports", "0,0", "--order-ports", "0,0"]);
    let began = tokio::time::Instant::now();
    let mut process = Process::start(&mut command, &folder.path().join("log"))?;
    let rules = process.until(Duration::from_secs(10), |printed| {
        let line = printed.lines().find(|line| line.contains("The rules are watched"))?;
        line.rsplit(' ').next().map(str::to_owned)
    })?;
    // Once built it starts in under a second; what is built for debugging, beside other tests, may
    // take longer.
    let took = began.elapsed();
    if let Some(report) = std::env::var_os("GRAYLANE_REPORT") {
        std::fs::write(report, format!("graylane demo served {took:.2?} after it was started\n"))?;
        assert!(took < Duration::from_secs(1), "it took {took:?}");
    }
    let health = || {
        let admin = format!("127.0.0.1:{admin}");
        Command::new(binary("graylane")?)
            .args(["healthcheck", "--admin", &admin])
            .output()
            .map_err(anyhow::Error::from)
    };
    let healthy = health()?;
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
    assert!(String::from_utf8_lossy(&healthy.stdout).contains("\"ready\":true"), "{healthy:?}");
    let printed = process.printed();
    let first_curl = printed.lines().find(|line| line.contains("curl"));
    assert!(first_curl.is_some_and(|line| line.ends_with("/order/1")), "{printed}");
    let place = |text: &str| printed.find(text).unwrap_or_else(|| panic!("no {text}: {printed}"));
    for key in ["grayIPList", "grayCityList", "grayUserNoList"] {
        assert!(place(key) > place("/order/1"), "{key}: {printed}");
    }

    let gateway = format!("127.0.0.1:{port}").parse()?;
    verify(gateway, "two").await?;
    verify(gateway, "header").await?;
    let probe = printed.lines().find_map(|line| Some(line.split_once("graylane probe ")?.1));
    let arguments = probe.unwrap_or_default().split(' ');
    let probe = Command::new(binary("graylane")?).arg("probe").args(arguments).output()?;
    let told = String::from_utf8_lossy(&probe.stdout).into_owned();
    assert_eq!(probe.status.code(), Some(0), "{told}");
    for service in ["order-app", "user-app"] {
        let line = told.lines().find(|line| line.contains(service)).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, [service, "V2", "GRAY", "20"], "{told}");
    }
    for (scene, document) in scene_documents() {
        std::fs::write(&rules, document)?;
        eventually(Duration::from_secs(10), async || verify(gateway, scene).await).await?;
    }

    process.terminate()?;
    assert_eq!(process.wait(Duration::from_secs(10))?, Some(0));
    Ok(())
}

mod on_rocketmq_5 {
    use anyhow::ensure;
    use gray_tests::{Release, RocketMq};

    use super::*;

    /// `graylane demo --mq`: each lane's message is handled in it, and the log says so.
    #[tokio::test]
    async fn the_demo_keeps_messages_in_their_lanes() -> anyhow::Result<()> {
        let broker = RocketMq::start(Release::Five)?;
        let folder = tempfile::tempdir()?;
        let port = free_port(&[]).to_string();
        let mut command = Command::new(binary("graylane")?);
        command.arg("demo").args(["--port", &port, "--admin-port", &free_port(&[]).to_string()]);
        command.args(["--user-ports", "0,0", "--order-ports", "0,0", "--mq", &broker.names()]);
        let mut process = Process::start(&mut command, &folder.path().join("log"))?;
        process
            .until(Duration::from_secs(30), |printed| printed.contains("/A/dubbo").then_some(()))?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{port}/A/dubbo");
        let limit = Duration::from_secs(40);
        // Gray has its own consumers once the lane is open; before that base handles for it.
        for (header, lane) in [("none", ""), ("gray-996", "gray")] {
            let way = ["A", "B", "C"].map(|letter| format!("{letter}{lane}[127.0.0.1]"));
            let line = format!("producer:{}, invoke result:{}", way[2], way.join(" -> "));
            eventually(limit, async || {
                let answer = client.get(&url).header("gray", header).send().await?;
                ensure!(answer.text().await?.trim_end() == way.join(" -> "), "another way");
                tokio::time::sleep(Duration::from_millis(300)).await;
                ensure!(process.printed().contains(&line), "{}", process.printed());
                Ok(())
            })
            .await?;
        }
        process.terminate()?;
        assert_eq!(process.wait(Duration::from_secs(20))?, Some(0));
        Ok(())
    }
}
