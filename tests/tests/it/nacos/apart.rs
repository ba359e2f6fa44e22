//! Documents and instances that stand apart from others on the same server: in a namespace and a group
//! of their own, and instances that are not to be called, or less.

use std::time::Duration;

use anyhow::ensure;
use gray_config::nacos::{Link, NacosInstance, NacosProperties};
use gray_tests::{Echo, Gateway, Kind, Nacos, Stub, eventually};

use super::registry::{GROUP, SERVICE, connected, connected_with, instance, knows, start};

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules: [{name: vips, when: {user: {inList: vips}}}]
";

async fn version(gateway: &Gateway, user: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(gateway.url("/")).header("x-user-no", user);
    Ok(Echo::read(request.send().await?.error_for_status()?).await?.version)
}

/// Registers an instance; a Java server may refuse for a moment after the connection stands.
async fn register(link: &Link, group: &str, instance: &NacosInstance) -> anyhow::Result<()> {
    let patience = Duration::from_secs(10);
    eventually(patience, async || Ok(link.register(SERVICE, group, instance).await?)).await
}

/// Another team's documents and instances have the same names, elsewhere on the server.
async fn a_namespace_and_a_group_are_a_world_of_their_own(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let stubs =
        [Stub::start("V1").await?, Stub::start("V2").await?, Stub::start("another's").await?];
    let everybody = "lanes: [{name: gray, version: V1}]\nrules: [{name: all}]\n";
    server.publish("rules.yaml", everybody).await?;
    server.publish("vips.txt", "1002\n").await?;
    server.publish_in("team", "G", "rules.yaml", RULES).await?;
    server.publish_in("team", "G", "vips.txt", "1001\n").await?;
    let namespace = || NacosProperties {
        servers: vec![server.address()],
        namespace: "team".to_owned(),
        ..NacosProperties::default()
    };
    let mut links = Vec::new();
    for (stub, version) in stubs.iter().zip(["V1", "V2"]) {
        let link = connected_with(namespace()).await?;
        register(&link, "G", &instance(stub.addr, version)).await?;
        links.push(link);
    }
    // Same name, and each time something else is another's.
    for (group, properties) in
        [("G", NacosProperties { namespace: String::new(), ..namespace() }), (GROUP, namespace())]
    {
        let link = connected_with(properties).await?;
        register(&link, group, &instance(stubs[2].addr, "V1")).await?;
        links.push(link);
    }
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['{}'], namespace: team}}\nroutes: [{{service: {SERVICE}}}]\n\
         discovery: {{nacos: [{{group: G}}]}}\n\
         rules: {{nacos: {{group: G, dataIds: [rules.yaml]}}, lists: {{vips: {{dataId: vips.txt}}}}}}\n",
        server.address()
    ))?;
    knows(&gateway, &[stubs[0].addr, stubs[1].addr]).await?;
    gateway.ready().await?;
    for (user, expected) in [("1001", "V2"), ("1002", "V1")] {
        let version = version(&gateway, user).await?;
        ensure!(version == expected, "{user} is served by {version}");
    }
    // The list alone is replaced, there and elsewhere.
    server.publish("vips.txt", "1001\n").await?;
    server.publish_in("team", "G", "vips.txt", "1002\n").await?;
    eventually(Duration::from_secs(15), async || {
        ensure!(version(&gateway, "1002").await? == "V2", "not yet");
        Ok(())
    })
    .await?;
    ensure!(version(&gateway, "1001").await? == "V1");
    ensure!(stubs[2].requests() == 0, "another's instance was called");
    Ok(())
}

/// What an operator switches off in the console, or gives no weight, is not called; other weights are
/// shares.
async fn switches_and_weights_are_followed(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let mut stubs = Vec::new();
    for _ in 0..4 {
        stubs.push(Stub::start("V1").await?);
    }
    let one = |number: usize, weight: f64, enabled: bool| NacosInstance {
        weight: weight.into(),
        enabled,
        ..instance(stubs[number].addr, "V1")
    };
    let wanted = [one(0, 1.0, true), one(1, 3.0, true), one(2, 0.0, true), one(3, 1.0, false)];
    let mut links = Vec::new();
    for instance in &wanted {
        let link = connected(&server).await?;
        register(&link, GROUP, instance).await?;
        links.push(link);
    }
    let gateway = start(&server, "nacos: [{}]", "base: {version: V1}\n")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let counts = async || {
        let before: Vec<usize> = stubs.iter().map(Stub::requests).collect();
        for _ in 0..40 {
            client.get(gateway.url("/")).send().await?.error_for_status()?;
        }
        let after = stubs.iter().map(Stub::requests);
        anyhow::Ok(after.zip(before).map(|(after, before)| after - before).collect::<Vec<_>>())
    };
    eventually(Duration::from_secs(20), async || {
        let counts = counts().await?;
        ensure!(counts == [10, 30, 0, 0], "{counts:?}: {}", gateway.ask("/api/v1/services").await?);
        Ok(())
    })
    .await?;
    if kind == Kind::Rnacos {
        // It lists an instance no more that was registered as switched off once.
        return Ok(());
    }
    // The one is switched on, and the other off.
    register(&links[3], GROUP, &one(3, 1.0, true)).await?;
    register(&links[1], GROUP, &one(1, 3.0, false)).await?;
    eventually(Duration::from_secs(20), async || {
        let counts = counts().await?;
        ensure!(counts == [20, 0, 0, 20], "{counts:?}: {}", gateway.ask("/api/v1/services").await?);
        Ok(())
    })
    .await
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn a_namespace_and_a_group_are_a_world_of_their_own() -> anyhow::Result<()> {
        super::a_namespace_and_a_group_are_a_world_of_their_own(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn switches_and_weights_are_followed() -> anyhow::Result<()> {
        super::switches_and_weights_are_followed(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn a_namespace_and_a_group_are_a_world_of_their_own() -> anyhow::Result<()> {
        super::a_namespace_and_a_group_are_a_world_of_their_own(Kind::Java).await
    }

    #[tokio::test]
    async fn switches_and_weights_are_followed() -> anyhow::Result<()> {
        super::switches_and_weights_are_followed(Kind::Java).await
    }
}
