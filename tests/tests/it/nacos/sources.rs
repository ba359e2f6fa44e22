//! Where rules and registries come from more than one place.

use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Kind, Nacos, Relay, Stub, Way, eventually, free_port};

use super::registry::{Registered, SERVICE, knows};

async fn version(gateway: &Gateway, header: (&str, &str)) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(gateway.url("/")).header(header.0, header.1);
    Ok(Echo::read(request.send().await?.error_for_status()?).await?.version)
}

/// A list of servers of which the first does not exist and the second falls silent: the others serve.
async fn any_server_of_the_list_will_do(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    server.publish("rules.yaml", "base: {version: V1}\n").await?;
    let one = Registered::start(&server).await?;
    let (first, second) =
        (Relay::start(&server.address()).await?, Relay::start(&server.address()).await?);
    let nobody = free_port(&[1000]);
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['127.0.0.1:{nobody}', '{}', '{}']}}\nroutes: [{{service: {SERVICE}}}]\n\
         discovery: {{nacos: [{{}}]}}\nrules: {{nacos: {{dataIds: [rules.yaml]}}}}\n",
        first.address(),
        second.address()
    ))?;
    knows(&gateway, &[one.stub.addr]).await?;
    // Whichever it has chosen goes; the other one takes over.
    for (relay, number) in [(&first, 2), (&second, 3)] {
        relay.set(Way::Cut);
        let rule = format!("rule-{number}");
        let document = format!("base: {{version: V1}}\nrules: [{{name: {rule}, lane: base}}]\n");
        server.publish("rules.yaml", &document).await?;
        eventually(Duration::from_secs(15), async || {
            let text = gateway.ask("/api/v1/rules").await?;
            ensure!(text.contains(&rule), "{text}");
            Ok(())
        })
        .await?;
        relay.set(Way::Open);
    }
    Ok(())
}

/// A gateway in front of these instances, which has its rules from where it is told.
fn edge(server: &Nacos, stubs: &[Stub], rules: &str) -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir()?;
    let lines: String = stubs.iter().map(Stub::registry_line).collect();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("registry.yaml", &format!("services:\n  app:\n{lines}"))?;
    write("vips.txt", "1001\n")?;
    write(
        "common-config.yaml",
        "kerwin: {tool: {gray: {load: true, version: {prodVersion: V1, grayVersion: V2}}}}\n",
    )?;
    Gateway::start_in(
        folder,
        &format!(
            "nacos: {{servers: ['{}']}}\nroutes: [{{service: app}}]\n\
                 discovery: {{files: ['{{dir}}/registry.yaml']}}\nrules: {{{rules}}}\n",
            server.address()
        ),
    )
}

/// Rules stand on Nacos and the list that they use in a file; or the two documents of the Spring Cloud
/// design stand in different places. A wrong document in either place changes nothing.
async fn files_and_nacos_are_one_set(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
    let start = |rules: &str| edge(&server, &stubs, rules);
    let document = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n\
                    rules: [{name: vips, when: {user: {inList: vips}}}]\n";
    server.publish("rules.yaml", document).await?;
    let gateway = start("nacos: {dataIds: [rules.yaml]}, lists: {vips: {file: '{dir}/vips.txt'}}")?;
    gateway.ready().await?;
    ensure!(version(&gateway, ("x-user-no", "1001")).await? == "V2");
    ensure!(version(&gateway, ("x-user-no", "1002")).await? == "V1");
    std::fs::write(gateway.folder.path().join("vips.txt"), "1002\n")?;
    eventually(Duration::from_secs(15), async || {
        ensure!(version(&gateway, ("x-user-no", "1002")).await? == "V2", "not yet");
        Ok(())
    })
    .await?;
    ensure!(version(&gateway, ("x-user-no", "1001")).await? == "V1");

    let of_design = |value: &str| {
        format!(
            "kerwin: {{tool: {{gray: {{gateway: {{enabled: true, grayHeadValue: {value}}}}}}}}}\n"
        )
    };
    server.publish("gateway-app.yaml", &of_design("one")).await?;
    let gateway =
        start("files: ['{dir}/common-config.yaml'], nacos: {dataIds: [gateway-app.yaml]}")?;
    gateway.ready().await?;
    ensure!(version(&gateway, ("gray", "one")).await? == "V2");
    server.publish("gateway-app.yaml", &of_design("two")).await?;
    eventually(Duration::from_secs(15), async || {
        ensure!(version(&gateway, ("gray", "two")).await? == "V2", "not yet");
        Ok(())
    })
    .await?;
    server.publish("gateway-app.yaml", "kerwin: {tool: {gray: {gatewy: {}}}}\n").await?;
    eventually(Duration::from_secs(15), async || {
        let text = gateway.ask("/readyz").await?;
        ensure!(text.contains("gateway-app.yaml:1:") && text.contains("`gatewy`"), "{text}");
        Ok(())
    })
    .await?;
    ensure!(version(&gateway, ("gray", "two")).await? == "V2");
    ensure!(version(&gateway, ("gray", "one")).await? == "V1");
    Ok(())
}

/// Whatever is wrong with what stands on the server is said with its place, and nothing changes.
async fn a_wrong_document_changes_nothing(kind: Kind) -> anyhow::Result<()> {
    const GOOD: &str = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n\
                        rules: [{name: good, when: {header: {name: x, exists: true}}}]\n";
    let server = Nacos::start(kind).await?;
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
    server.publish("rules.yaml", GOOD).await?;
    let gateway = edge(&server, &stubs, "nacos: {dataIds: [rules.yaml]}")?;
    gateway.ready().await?;
    let mut rejected = 0.0;
    for (document, message) in crate::edge::wrong_documents() {
        // What the server does not take never reaches the gateway.
        if let Err(refused) = server.publish("rules.yaml", &document).await {
            ensure!(document.len() > 1 << 20, "the server refused {document}: {refused}");
            continue;
        }
        rejected += 1.0;
        eventually(Duration::from_secs(20), async || {
            let text = gateway.ask("/readyz").await?;
            ensure!(text.contains(message), "{message} is not in {text}");
            let counted = gateway.metric("graylane_rules_rejected_total").await?;
            ensure!(counted >= rejected, "{message}: {counted} of {rejected} rejected");
            Ok(())
        })
        .await?;
        ensure!(version(&gateway, ("x", "1")).await? == "V2");
        ensure!(version(&gateway, ("y", "1")).await? == "V1");
    }
    ensure!(rejected > 7.0, "only {rejected} were tried");
    server.publish("rules.yaml", GOOD).await?;
    eventually(Duration::from_secs(15), async || {
        let text = gateway.ask("/readyz").await?;
        ensure!(!text.contains("rejected"), "{text}");
        Ok(())
    })
    .await
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn any_server_of_the_list_will_do() -> anyhow::Result<()> {
        super::any_server_of_the_list_will_do(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn files_and_nacos_are_one_set() -> anyhow::Result<()> {
        super::files_and_nacos_are_one_set(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn a_wrong_document_changes_nothing() -> anyhow::Result<()> {
        super::a_wrong_document_changes_nothing(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn any_server_of_the_list_will_do() -> anyhow::Result<()> {
        super::any_server_of_the_list_will_do(Kind::Java).await
    }

    #[tokio::test]
    async fn a_wrong_document_changes_nothing() -> anyhow::Result<()> {
        super::a_wrong_document_changes_nothing(Kind::Java).await
    }
}
