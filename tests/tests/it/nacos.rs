//! The gateway and the demo's services on real Nacos servers.

mod apart;
mod checking;
mod grouped;
mod leaving;
mod partition;
mod refusals;
mod registry;
mod replacing;
mod sources;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gray_config::nacos::{ConfigKey, Link, Module, NacosProperties};
use gray_tests::{Gateway, Kind, Nacos, Process, binary, eventually, scene_documents, verify};

const COMMON: &str = "\
kerwin:
  tool:
    gray:
      load: true
      version:
        prodVersion: V1
        grayVersion: V2
user-app:
  ribbon:
    NFLoadBalancerRuleClassName: com.kerwin.gray.loadbalancer.GrayRoundRobinRule
order-app:
  ribbon:
    NFLoadBalancerRuleClassName: com.kerwin.gray.loadbalancer.GrayRoundRobinRule
spring:
  application: {name: anything}
";

const GATEWAY: &str = "kerwin: {tool: {gray: {gateway: {enabled: true}}}}\n";

fn config(server: &str) -> String {
    format!(
        "nacos: {{servers: ['{server}']}}\n\
         routes:\n\
         - {{service: order-app, match: {{path: {{prefix: /order}}}}}}\n\
         - {{service: user-app, match: {{path: {{prefix: /user}}}}}}\n\
         discovery: {{nacos: [{{}}], snapshot: '{{dir}}/instances.snapshot'}}\n\
         rules: {{nacos: {{}}, snapshot: '{{dir}}/rules.snapshot'}}\n"
    )
}

/// Everything of the design's demo, on one server.
struct System {
    server: Nacos,
    gateway: Gateway,
    services: Vec<Process>,
    _folder: tempfile::TempDir,
}

impl System {
    async fn start(kind: Kind) -> anyhow::Result<Self> {
        let server = Nacos::start(kind).await?;
        server.publish("common-config.yaml", COMMON).await?;
        server.publish("gateway-app.yaml", GATEWAY).await?;
        let folder = tempfile::tempdir()?;
        let mut services = Vec::new();
        for role in ["user", "order"] {
            for version in ["V1", "V2"] {
                let mut command = Command::new(binary("graylane-demo")?);
                command.args([role, "--version-label", version, "--nacos", &server.address()]);
                let log = folder.path().join(format!("{role}-{version}"));
                services.push(Process::start(&mut command, &log)?);
            }
        }
        let gateway = Gateway::start(&config(&server.address()))?;
        let system = Self { server, gateway, services, _folder: folder };
        system.gateway.ready().await?;
        Ok(system)
    }

    /// Waits until a scene plays.
    async fn plays(&self, scene: &str) -> anyhow::Result<()> {
        let gateway = self.gateway.addr;
        eventually(Duration::from_secs(30), async || verify(gateway, scene).await).await
    }

    async fn plays_all_scenes(&self) -> anyhow::Result<()> {
        for (scene, document) in scene_documents() {
            self.server.publish("gateway-app.yaml", &document).await?;
            self.plays(scene).await?;
        }
        Ok(())
    }

    /// Nacos goes, the gateway goes on; the gateway starts without Nacos; Nacos comes back.
    async fn survives_an_outage(mut self) -> anyhow::Result<()> {
        self.plays("two").await?;
        self.plays("header").await?;
        self.server.kill();
        verify(self.gateway.addr, "two").await?;
        verify(self.gateway.addr, "header").await?;
        connected(&self.gateway, false).await?;
        self.gateway.restart()?;
        let text = self.gateway.ask("/readyz").await?;
        assert!(text.contains("rules come from the snapshot"), "{text}");
        verify(self.gateway.addr, "two").await?;

        self.server.run().await?;
        let off = GATEWAY.replace("true", "false");
        self.server.publish("gateway-app.yaml", &off).await?;
        self.plays("one").await?;
        connected(&self.gateway, true).await?;
        // The server has forgotten everybody: each service has to come back by itself.
        assert_eq!(self.services.len(), 4);
        for service in ["user-app", "order-app"] {
            eventually(Duration::from_secs(20), async || {
                let text = self.server.instances(service).await?;
                anyhow::ensure!(text.matches("\"port\"").count() == 2, "{text}");
                Ok(())
            })
            .await?;
        }
        eventually(Duration::from_secs(5), async || {
            let text = self.gateway.ask("/readyz").await?;
            anyhow::ensure!(text.contains("\"warnings\":[]"), "{text}");
            Ok(())
        })
        .await
    }
}

/// Sends requests of both kinds until it is told to stop; every one must be served by its lane.
async fn load(gateway: std::net::SocketAddr, done: &AtomicBool) -> anyhow::Result<u64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        for (header, version) in [("none", "V1"), ("gray-996", "V2")] {
            let url = format!("http://{gateway}/order/1");
            let answer = client.get(url).header("gray", header).send().await?;
            let text = answer.error_for_status()?.text().await?;
            let both = text.matches(&format!("\"version\":\"{version}\"")).count();
            anyhow::ensure!(both == 2, "{header}: {text}");
            count += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(count)
}

/// Waits until all of the gateway's connections to Nacos stand, or none does, by its metrics.
async fn connected(gateway: &Gateway, wanted: bool) -> anyhow::Result<()> {
    eventually(Duration::from_secs(30), async || {
        let text = gateway.ask("/metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with("graylane_nacos_connected{"));
        let values: Vec<_> = lines.filter_map(|line| line.rsplit_once(' ')).collect();
        let expected = if wanted { "1" } else { "0" };
        let all = values.iter().all(|(_, value)| *value == expected);
        anyhow::ensure!(all && values.len() == 2, "{values:?}");
        Ok(())
    })
    .await
}

/// How many connections to Nacos the gateway has made.
async fn connections(gateway: &Gateway) -> anyhow::Result<f64> {
    let text = gateway.ask("/metrics").await?;
    let lines = text.lines().filter(|line| line.starts_with("graylane_nacos_connections_made"));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// How long ago the server that was silent longest has last been heard, as the metrics say.
async fn silence(gateway: &Gateway) -> anyhow::Result<f64> {
    let text = gateway.ask("/metrics").await?;
    let name = "graylane_nacos_last_heard_timestamp_seconds{";
    let lines = text.lines().filter(|line| line.starts_with(name));
    let heard = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    let oldest = heard.fold(f64::INFINITY, f64::min);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(now.as_secs_f64() - oldest)
}

/// Nacos falls silent under load, long enough for its connections to be given up, and is heard again.
async fn a_silent_server_fails_no_request(kind: Kind) -> anyhow::Result<()> {
    let system = System::start(kind).await?;
    system.plays("two").await?;
    system.plays("header").await?;
    let before = connections(&system.gateway).await?;
    let (gateway, done) = (system.gateway.addr, AtomicBool::new(false));
    let outage = async {
        let before = silence(&system.gateway).await?;
        system.server.silence(true)?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let meanwhile = silence(&system.gateway).await?;
        system.server.silence(false)?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = silence(&system.gateway).await?;
        let told = before < 10.0 && meanwhile > 19.0 && after < 10.0;
        anyhow::ensure!(told, "silent for {before}, {meanwhile} and {after} seconds");
        done.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (count, ()) = tokio::try_join!(load(gateway, &done), outage)?;
    anyhow::ensure!(count > 500, "only {count} requests");
    let after = connections(&system.gateway).await?;
    anyhow::ensure!(after > before, "the silence was not noticed: {before} connections, {after}");
    system.server.publish("gateway-app.yaml", &GATEWAY.replace("true", "false")).await?;
    eventually(Duration::from_secs(5), async || verify(gateway, "one").await).await
}

/// Nacos is away for a minute under load, and a rule changes right after it is back.
async fn a_minute_without_nacos(kind: Kind) -> anyhow::Result<()> {
    let mut system = System::start(kind).await?;
    system.plays("two").await?;
    system.plays("header").await?;
    let (gateway, done) = (system.gateway.addr, AtomicBool::new(false));
    let outage = async {
        system.server.kill();
        tokio::time::sleep(Duration::from_mins(1)).await;
        system.server.run().await?;
        // It changes before anybody is connected again, and takes effect while requests go on.
        let marked = GATEWAY.replace("true", "true, grayUserNoList: [424242]");
        system.server.publish("gateway-app.yaml", &marked).await?;
        eventually(Duration::from_secs(30), async || {
            let client = reqwest::Client::builder().no_proxy().build()?;
            let url = format!("http://{gateway}/order/1");
            let answer = client.get(url).header("x-user-no", "424242").send().await?;
            let text = answer.error_for_status()?.text().await?;
            anyhow::ensure!(text.contains("V2"), "the rule is not in force: {text}");
            Ok(())
        })
        .await?;
        done.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (count, ()) = tokio::try_join!(load(gateway, &done), outage)?;
    anyhow::ensure!(count > 1000, "only {count} requests");
    system.server.publish("gateway-app.yaml", &GATEWAY.replace("true", "false")).await?;
    eventually(Duration::from_secs(5), async || verify(gateway, "one").await).await
}

/// Of rules, all that are missing; of instances, where they were looked for.
async fn a_wrong_group_or_namespace_is_named(kind: Kind) -> anyhow::Result<()> {
    let server = Nacos::start(kind).await?;
    // They are there, elsewhere.
    server.publish("common-config.yaml", COMMON).await?;
    let config = format!(
        "nacos: {{servers: ['{}'], namespace: nowhere}}\n\
         routes: [{{service: a}}]\n\
         discovery: {{nacos: [{{group: H}}]}}\n\
         rules: {{nacos: {{group: G}}}}\n",
        server.address()
    );
    let gateway = Gateway::start(&config)?;
    eventually(Duration::from_secs(20), async || {
        let text = gateway.ask("/readyz").await?;
        let missing = "there is no data id common-config.yaml in group G, nor gateway-app.yaml in \
                       group G of namespace nowhere";
        let nobody = "no instance of a is registered in group H of namespace nowhere of Nacos";
        anyhow::ensure!(text.contains(missing) && text.contains(nobody), "{text}");
        Ok(())
    })
    .await
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn a_wrong_group_or_namespace_is_named() -> anyhow::Result<()> {
        super::a_wrong_group_or_namespace_is_named(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn its_silence_fails_no_request() -> anyhow::Result<()> {
        a_silent_server_fails_no_request(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn a_minute_without_it_fails_no_request() -> anyhow::Result<()> {
        a_minute_without_nacos(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn all_scenes_play() -> anyhow::Result<()> {
        System::start(Kind::Rnacos).await?.plays_all_scenes().await
    }

    #[tokio::test]
    async fn an_outage_is_survived() -> anyhow::Result<()> {
        System::start(Kind::Rnacos).await?.survives_an_outage().await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn its_silence_fails_no_request() -> anyhow::Result<()> {
        a_silent_server_fails_no_request(Kind::Java).await
    }

    #[tokio::test]
    async fn a_minute_without_it_fails_no_request() -> anyhow::Result<()> {
        a_minute_without_nacos(Kind::Java).await
    }

    #[tokio::test]
    async fn all_scenes_play() -> anyhow::Result<()> {
        System::start(Kind::Java).await?.plays_all_scenes().await
    }

    #[tokio::test]
    async fn an_outage_is_survived() -> anyhow::Result<()> {
        System::start(Kind::Java).await?.survives_an_outage().await
    }

    #[tokio::test]
    async fn a_login_is_needed_where_the_server_asks_for_one() -> anyhow::Result<()> {
        let server = Nacos::start_with_login("right").await?;
        let login = |password: &str| {
            format!(
                "{}nacos: {{servers: ['{}'], username: nacos, password: {password}}}\n",
                config("x").replace("nacos: {servers: ['x']}\n", ""),
                server.address()
            )
        };
        let gateway = Gateway::start(&login("wrong"))?;
        eventually(Duration::from_secs(20), async || {
            let text = gateway.ask("/readyz").await?;
            anyhow::ensure!(text.contains("does not accept user"), "{text}");
            Ok(())
        })
        .await?;
        let gateway = Gateway::start(&login("right"))?;
        eventually(Duration::from_secs(20), async || {
            let text = gateway.ask("/readyz").await?;
            anyhow::ensure!(text.contains("there is no data id common-config.yaml"), "{text}");
            Ok(())
        })
        .await?;
        logins_are_renewed(&server, &gateway).await
    }

    /// Logins are good for six seconds there. Connections stay, since with them goes what is registered.
    async fn logins_are_renewed(server: &Nacos, gateway: &Gateway) -> anyhow::Result<()> {
        let nacos = NacosProperties {
            servers: vec![server.address()],
            username: "nacos".to_owned(),
            password: "right".to_owned(),
            ..NacosProperties::default()
        };
        let link = Link::new(nacos, Module::Config);
        let key = |data_id: &str| ConfigKey {
            data_id: data_id.to_owned(),
            group: "DEFAULT_GROUP".to_owned(),
        };
        let publish = async |id: &str, text: &str| {
            eventually(Duration::from_secs(10), async || {
                Ok(link.publish(&key(id), text, None).await?)
            })
            .await
        };
        publish("common-config.yaml", COMMON).await?;
        publish("gateway-app.yaml", "kerwin: {tool: {gray: {gateway: {enabled: true}}}}\n").await?;
        gateway.ready().await?;
        let began = tokio::time::Instant::now();
        let mut number = 0;
        while began.elapsed() < Duration::from_secs(14) {
            number += 1;
            let text = format!(
                "kerwin: {{tool: {{gray: {{gateway: {{enabled: true, grayHeadValue: v{number}}}}}}}}}\n"
            );
            let before = gateway.ask("/api/v1/rules").await?;
            publish("gateway-app.yaml", &text).await?;
            eventually(Duration::from_secs(5), async || {
                let rules = gateway.ask("/api/v1/rules").await?;
                anyhow::ensure!(rules != before, "{rules}");
                Ok(())
            })
            .await?;
        }
        let connections = gateway.connections_to_nacos().await?;
        // One for each half of Nacos.
        anyhow::ensure!(connections == 2, "it has connected {connections} times");
        let own = link.stats().connections.load(Ordering::Relaxed);
        anyhow::ensure!(own == 1, "the link has connected {own} times");
        Ok(())
    }

    #[tokio::test]
    async fn the_gateway_registers_itself() -> anyhow::Result<()> {
        let server = Nacos::start(Kind::Java).await?;
        let config = format!(
            "nacos: {{servers: ['{}']}}\nroutes: [{{service: a}}]\n\
             discovery: {{register: {{service: gateway-app, address: '10.0.0.9:8080', \
             metadata: {{version: V1}}}}}}\n",
            server.address()
        );
        let mut gateway = Gateway::start(&config)?;
        eventually(Duration::from_secs(20), async || {
            let text = server.instances("gateway-app").await?;
            let found = text.contains("10.0.0.9") && text.contains("\"version\":\"V1\"");
            anyhow::ensure!(found, "{text}");
            Ok(())
        })
        .await?;
        // It is taken off before the gateway stops accepting, not when its connection is missed.
        gateway.process.terminate()?;
        eventually(Duration::from_secs(20), async || {
            let text = server.instances("gateway-app").await?;
            anyhow::ensure!(!text.contains("10.0.0.9"), "{text}");
            Ok(())
        })
        .await?;
        anyhow::ensure!(gateway.process.wait(Duration::from_secs(20))? == Some(0));
        anyhow::ensure!(!gateway.process.printed().contains("not deregistered"));
        Ok(())
    }

    #[tokio::test]
    async fn a_wrong_group_or_namespace_is_named() -> anyhow::Result<()> {
        super::a_wrong_group_or_namespace_is_named(Kind::Java).await
    }
}
