//! What a server does that is busy, about to go, or late: it refuses at first, sends its clients away, and
//! pushes what is out of date.

use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Prepared, StandIn, Stub, eventually};
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

/// The port that the gateway knows of a service's only instance, which says how new it is.
async fn known(gateway: &Gateway, service: &str) -> anyhow::Result<Option<u64>> {
    let text = gateway.ask("/api/v1/services").await?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let address = value["services"][service][0]["address"].as_str();
    let port = address.and_then(|address| address.rsplit_once(':')).map(|(_, port)| port.parse());
    Ok(port.transpose()?)
}

/// Pushes that come late, twice and in any order, also after the server has sent its clients away, never
/// undo a newer one (N8).
#[tokio::test]
async fn nothing_that_is_out_of_date_is_believed() -> anyhow::Result<()> {
    const FIRST: u64 = 20_000;
    let server = StandIn::start().await?;
    let push = |service: &str, number: u64| -> Prepared {
        let host = json!({ "ip": "127.0.0.1", "port": FIRST + number });
        StandIn::prepare(service, number, &json!([host]))
    };
    for service in ["a", "b"] {
        server.send(&push(service, 1));
    }
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['{}']}}\ndiscovery: {{nacos: [{{}}], recoveryGrace: 0s}}\nroutes:\n\
         - {{service: a, match: {{path: {{prefix: /a}}}}}}\n- {{service: b}}\n",
        server.address()?
    ))?;
    let reaches = async |service: &str, number: u64| {
        eventually(Duration::from_secs(10), async || {
            let port = known(&gateway, service).await?;
            ensure!(port == Some(FIRST + number), "{port:?}, not {}", FIRST + number);
            Ok(())
        })
        .await
    };
    reaches("a", 1).await?;
    let mut newest = 0;
    for number in 2..=120 {
        if number % 40 == 0 {
            let subscriptions = server.subscriptions();
            server.reset();
            eventually(Duration::from_secs(10), async || {
                ensure!(server.subscriptions() > subscriptions + 1, "it has not come back");
                Ok(())
            })
            .await?;
        }
        server.send(&push("a", number));
        if number % 10 == 0 {
            reaches("a", number).await?;
            // What is late comes alone. The other service says when it has been read.
            server.replay(&push("a", number / 2));
            server.replay(&push("a", number - 1));
            server.send(&push("b", number));
            reaches("b", number).await?;
            let seen = known(&gateway, "a").await?;
            ensure!(seen == Some(FIRST + number), "{seen:?} after {number}");
        }
        for late in [number, number * 7 / 11, number * 3 / 4] {
            server.replay(&push("a", late.max(1)));
        }
        let seen = known(&gateway, "a").await?.unwrap_or_default();
        ensure!(seen >= newest, "{seen} after {newest}");
        newest = seen;
    }
    reaches("a", 120).await?;
    let connected = gateway.connections_to_nacos().await?;
    ensure!(connected == 4, "it did not go where it was sent: {connected}");
    Ok(())
}
