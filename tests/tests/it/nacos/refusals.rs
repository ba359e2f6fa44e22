//! A server that refuses at first, as one does that has just started beside much else.

use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, StandIn, Stub, eventually};
use serde_json::json;

#[tokio::test]
async fn a_refused_subscription_is_tried_again_soon() -> anyhow::Result<()> {
    let (server, stub) = (StandIn::start().await?, Stub::start("V1").await?);
    let host = json!({ "ip": "127.0.0.1", "port": stub.addr.port() });
    for service in ["a", "b"] {
        server.push(service, 1, &json!([host]));
    }
    server.refuse(4);
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['{}']}}\ndiscovery: {{nacos: [{{}}]}}\n\
         routes:\n- {{service: a, match: {{path: {{prefix: /a}}}}}}\n- {{service: b}}\n",
        server.address()?
    ))?;
    // Each service in its turn would take longer.
    eventually(Duration::from_secs(10), async || {
        for path in ["/a", "/b"] {
            let answer = reqwest::get(gateway.url(path)).await?;
            ensure!(answer.status() == 200, "{path}: {}", answer.status());
            ensure!(Echo::read(answer).await?.version == "V1");
        }
        Ok(())
    })
    .await
}
