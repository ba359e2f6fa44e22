//! Services of the Spring Cloud design, in Java, beside services with our starter.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Gateway, Kind, Nacos, Process, binary, eventually, spring_service, verify};

const COMMON: &str = "\
kerwin:
  tool:
    gray:
      load: true
      version: {prodVersion: V1, grayVersion: V2}
user-app:
  ribbon:
    NFLoadBalancerRuleClassName: com.kerwin.gray.loadbalancer.GrayRoundRobinRule
order-app:
  ribbon:
    NFLoadBalancerRuleClassName: com.kerwin.gray.loadbalancer.GrayRoundRobinRule
";

const GATEWAY: &str = "kerwin: {tool: {gray: {gateway: {enabled: true}}}}\n";

/// In production Java calls Rust, and in the gray lane Rust calls Java: each finds the other in
/// Nacos, by its version, and takes the lane over from its header.
async fn java_and_rust_share_the_lanes(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    server.publish("common-config.yaml", COMMON).await?;
    server.publish("gateway-app.yaml", GATEWAY).await?;
    let folder = tempfile::tempdir()?;
    let mut services = Vec::new();
    for (service, version) in [("order-app", "V1"), ("user-app", "V2")] {
        services.push(spring_service(service, version, &server.address(), folder.path(), &[])?);
    }
    for (role, version) in [("user", "V1"), ("order", "V2")] {
        let mut command = Command::new(binary("graylane-demo")?);
        command.args([role, "--version-label", version, "--nacos", &server.address()]);
        services.push(Process::start(&mut command, &folder.path().join(role))?);
    }
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['{}']}}\n\
         routes: [{{service: order-app}}]\n\
         discovery: {{nacos: [{{}}]}}\n\
         rules: {{nacos: {{}}}}\n",
        server.address()
    ))?;
    for scene in ["two", "header"] {
        // The Java client asks for servers anew every 30 seconds.
        eventually(Duration::from_mins(1), async || verify(gateway.addr, scene).await).await?;
    }
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (header, java) in [("none", "order-app"), ("gray-996", "user-app")] {
        let request = client.get(gateway.url("/order/1")).header("gray", header);
        let text = request.send().await?.text().await?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let in_java = |it: &serde_json::Value| it["language"] == "Java" && it["service"] == java;
        ensure!(in_java(&value) || in_java(&value["user"]), "{java} is not in Java: {text}");
        let lane = if header == "none" { "PROD" } else { "GRAY" };
        ensure!(value["lane"] == lane && value["user"]["lane"] == lane, "{text}");
    }
    Ok(())
}

/// In a group and a cluster of their own Java and Rust find each other as well, and the gateway keeps to
/// the cluster that it is told.
async fn groups_and_clusters_are_shared(kind: Kind) -> anyhow::Result<()> {
    const GROUP: &str = "SHOP";
    let server = Nacos::start(kind).await?;
    server.publish_in("", GROUP, "common-config.yaml", COMMON).await?;
    server.publish_in("", GROUP, "gateway-app.yaml", GATEWAY).await?;
    let folder = tempfile::tempdir()?;
    let group = ("SPRING_CLOUD_NACOS_DISCOVERY_GROUP", GROUP);
    let cluster = ("SPRING_CLOUD_NACOS_DISCOVERY_CLUSTER_NAME", "SH");
    let more = [group, cluster];
    let java = |role| spring_service(role, "V1", &server.address(), folder.path(), &more);
    let rust = |role: &str, cluster: &str| {
        let mut command = Command::new(binary("graylane-demo")?);
        command.args([role, "--version-label", "V1", "--nacos", &server.address()]);
        command.env("NACOS_GROUP", GROUP).env("NACOS_CLUSTER", cluster);
        command.env("NACOS_CLUSTERS", "SH");
        Process::start(&mut command, &folder.path().join(format!("{role}-{cluster}")))
    };
    let users = [java("user-app")?, rust("user", "BJ")?];
    let _services = (users, java("order-app")?, rust("order", "BJ")?);
    let gateway = |clusters: &str| {
        Gateway::start(&format!(
            "nacos: {{servers: ['{}']}}\nroutes: [{{service: order-app}}]\n\
             discovery: {{nacos: [{{group: {GROUP}{clusters}}}]}}\nrules: {{nacos: {{group: {GROUP}}}}}\n",
            server.address()
        ))
    };
    let languages = async |gateway: &Gateway| -> anyhow::Result<BTreeSet<bool>> {
        let mut in_java = BTreeSet::new();
        for _ in 0..10 {
            let text =
                reqwest::get(gateway.url("/order/1")).await?.error_for_status()?.text().await?;
            let value: serde_json::Value = serde_json::from_str(&text)?;
            ensure!(value["user"]["service"] == "user-app", "{text}");
            let speaks_java = value["language"] == "Java";
            // In Rust it takes instances of the other cluster only, where user-app is in Java.
            ensure!(speaks_java || value["user"]["language"] == "Java", "{text}");
            in_java.insert(speaks_java);
        }
        Ok(in_java)
    };
    let (of_sh, of_all) = (gateway(", clusters: [SH]")?, gateway("")?);
    eventually(Duration::from_mins(1), async || {
        let (sh, all) = (languages(&of_sh).await?, languages(&of_all).await?);
        ensure!((sh.len(), all.len()) == (1, 2), "{sh:?}, {all:?}");
        ensure!(sh.contains(&true), "it is in the other cluster");
        Ok(())
    })
    .await
}

mod on_spring {
    mod on_rnacos {
        use super::super::*;

        #[tokio::test]
        async fn groups_and_clusters_are_shared() -> anyhow::Result<()> {
            super::super::groups_and_clusters_are_shared(Kind::Rnacos).await
        }

        #[tokio::test]
        async fn java_and_rust_share_the_lanes() -> anyhow::Result<()> {
            super::super::java_and_rust_share_the_lanes(Kind::Rnacos).await
        }
    }

    mod on_nacos {
        use super::super::*;

        #[tokio::test]
        async fn groups_and_clusters_are_shared() -> anyhow::Result<()> {
            super::super::groups_and_clusters_are_shared(Kind::Java).await
        }

        #[tokio::test]
        async fn java_and_rust_share_the_lanes() -> anyhow::Result<()> {
            super::super::java_and_rust_share_the_lanes(Kind::Java).await
        }
    }
}
