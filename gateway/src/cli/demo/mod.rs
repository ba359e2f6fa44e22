//! The whole Spring Cloud design's demo in one process: gateway, services, registry and rules.

#[cfg(feature = "mq")]
mod messages;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use gray_config::Document;
use gray_demo::{Identity, Starter, StarterProperties, order_app, user_app};
use gray_gateway::{App, GatewayProperties, Running, Settings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{runtime, say, told_to_stop};
#[cfg(feature = "mq")]
use messages::Chain;

/// The rules that every service reads, as in the Spring Cloud design.
const COMMON: &str = "\
kerwin:
  tool:
    gray:
      # whether gray release is loaded at all
      load: true
      # the versions, as instances announce them in their metadata
      version:
        prodVersion: V1
        grayVersion: V2
";

/// The rules of the gateway, as in the Spring Cloud design, with the header rule only.
const GATEWAY: &str = "\
kerwin:
  tool:
    gray:
      gateway:
        # false: every request reaches every version (scene one)
        enabled: true
        # the header that marks a request as gray, and the value it must have
        grayHeadKey: gray
        grayHeadValue: gray-996
        # client addresses that are gray, such as - '127.0.0.1'
        grayIPList:
        # cities that are gray, such as - 本地 (which is what loopback is)
        grayCityList:
        # user numbers that are gray, such as - 1001 (header x-user-no)
        grayUserNoList:
";

/// Tries gray release out: gateway, services and rules in one process.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// The gateway's port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The admin page's port.
    #[arg(long, default_value_t = 9901)]
    admin_port: u16,
    /// The ports of user-app V1 and V2; free ones where 7201 and 7202 are taken.
    #[arg(long, value_delimiter = ',')]
    user_ports: Vec<u16>,
    /// The ports of order-app V1 and V2; free ones where 7301 and 7302 are taken.
    #[arg(long, value_delimiter = ',')]
    order_ports: Vec<u16>,
    /// Tries messages as well, over the RocketMQ of this name server (127.0.0.1:9876 where none is
    /// named), which `cargo xtask servers rocketmq` starts.
    #[cfg(feature = "mq")]
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:9876")]
    mq: Option<String>,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        runtime()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<ExitCode> {
        let folder = tempfile::Builder::new().prefix("graylane-demo-").tempdir()?;
        let users = bind(&self.user_ports, [7201, 7202]).await?;
        let orders = bind(&self.order_ports, [7301, 7302]).await?;
        write_documents(folder.path(), &users, &orders)?;
        #[cfg(feature = "mq")]
        let chain = self.chain(folder.path()).await?;
        let secret = secret()?;
        let running = App::new(self.settings(folder.path(), &secret)?).start().await?;
        let mut services = JoinSet::new();
        for (service, listeners) in [("user-app", users), ("order-app", orders)] {
            for (version, listener) in listeners {
                services.spawn(copy(folder.path(), &secret, service, version, listener)?);
            }
        }
        #[cfg_attr(not(feature = "mq"), allow(unused_mut, reason = "there is no more to say"))]
        let mut text = introduction(&running, folder.path(), &secret)?;
        #[cfg(feature = "mq")]
        let consumers = match chain {
            Some(chain) => {
                let gateway = running.addrs().first().context("there is no listener")?;
                text += &messages::introduction(*gateway);
                chain.serve(folder.path(), &mut services).await?
            }
            None => Vec::new(),
        };
        say(&text)?;
        told_to_stop().await?;
        #[cfg(feature = "mq")]
        for consumer in consumers {
            consumer.stop().await;
        }
        running.stop().await;
        Ok(ExitCode::SUCCESS)
    }

    /// Tells whether the chain of services with messages is there too.
    const fn with_chain(&self) -> bool {
        #[cfg(feature = "mq")]
        return self.mq.is_some();
        #[cfg(not(feature = "mq"))]
        return false;
    }

    #[cfg(feature = "mq")]
    async fn chain(&self, folder: &Path) -> anyhow::Result<Option<Chain>> {
        let Some(names) = &self.mq else { return Ok(None) };
        let names: Vec<_> = names.split(',').map(str::to_owned).collect();
        let chain = Chain::prepare(&names).await?;
        let path = folder.join("registry.yaml");
        let mut registry = std::fs::read_to_string(&path)?;
        chain.register(&mut registry)?;
        std::fs::write(path, registry)?;
        Ok(Some(chain))
    }

    fn settings(&self, folder: &Path, secret: &str) -> anyhow::Result<Settings> {
        let (port, admin) = (self.port, self.admin_port);
        let folder = folder.display();
        let route = "- {service: spring-cloud-a, match: {path: {prefix: /A}}}\n";
        let chain = if self.with_chain() { route } else { "" };
        let text = format!(
            "listeners: [{{address: '127.0.0.1:{port}'}}]\n\
             admin: {{address: '127.0.0.1:{admin}'}}\n\
             routes:\n\
             - {{service: order-app, match: {{path: {{prefix: /order}}}}}}\n\
             - {{service: user-app, match: {{path: {{prefix: /user}}}}}}\n\
             {chain}\
             discovery: {{files: ['{folder}/registry.yaml']}}\n\
             rules: {{files: ['{folder}/common-config.yaml', '{folder}/gateway-app.yaml']}}\n\
             propagation: {{decisionHeader: true}}\n\
             signedTags: [{{id: demo, secret: {secret}}}]\n\
             limits: {{unready: 0s, drain: 2s}}\n"
        );
        let document = Document::parse("demo", &text)?;
        let mut faults = gray_config::Faults::default();
        let properties: Option<GatewayProperties> =
            document.read(&gray_config::KeyPath::ROOT, &mut faults);
        if faults.has_errors() {
            anyhow::bail!("{}", document.problems(&faults));
        }
        Ok(Settings::new(properties.context("no properties")?, &document)?)
    }
}

/// Draws a secret for signed tags, for as long as the demo runs.
fn secret() -> anyhow::Result<String> {
    let mut bytes = [0; 20];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat())
}

/// Starts a copy of a service, with the starter that any service would use.
fn copy(
    folder: &Path,
    secret: &str,
    service: &'static str,
    version: String,
    listener: TcpListener,
) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    let mut properties = StarterProperties::of(service);
    properties.version = Some(version.clone());
    properties.registry = Some(folder.join("registry.yaml"));
    properties.rules = vec![folder.join("common-config.yaml")];
    properties.tag_keys = vec![format!("demo:{secret}")];
    let starter = Starter::start(properties)?;
    let identity = Identity { service, version, port: listener.local_addr()?.port() };
    let router = match service {
        "user-app" => user_app(identity, starter.clone()),
        _ => order_app(identity, starter.clone()),
    };
    Ok(async move {
        if let Err(error) = starter.serve(listener, router, std::future::pending()).await {
            tracing::warn!(service, %error, "a service of the demo ended");
        }
    })
}

/// Takes a port for V1 and one for V2: those that were asked for, or the usual ones if they are free.
async fn bind(asked: &[u16], usual: [u16; 2]) -> anyhow::Result<Vec<(String, TcpListener)>> {
    let mut listeners = Vec::new();
    for (index, (version, usual)) in ["V1", "V2"].into_iter().zip(usual).enumerate() {
        let addr = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = match asked.get(index) {
            Some(port) => TcpListener::bind(addr(*port)).await.with_context(|| {
                format!("port {port} is taken; choose another by --user-ports or --order-ports")
            })?,
            None => match TcpListener::bind(addr(usual)).await {
                Ok(listener) => listener,
                Err(_) => TcpListener::bind(addr(0)).await?,
            },
        };
        listeners.push((version.to_owned(), listener));
    }
    Ok(listeners)
}

fn write_documents(
    folder: &Path,
    users: &[(String, TcpListener)],
    orders: &[(String, TcpListener)],
) -> anyhow::Result<()> {
    let mut registry = String::from("services:\n");
    for (service, copies) in [("user-app", users), ("order-app", orders)] {
        writeln!(registry, "  {service}:")?;
        for (version, listener) in copies {
            let addr = listener.local_addr()?;
            writeln!(registry, "  - {{address: '{addr}', metadata: {{version: {version}}}}}")?;
        }
    }
    std::fs::write(folder.join("registry.yaml"), registry)?;
    std::fs::write(folder.join("common-config.yaml"), COMMON)?;
    std::fs::write(folder.join("gateway-app.yaml"), GATEWAY)?;
    Ok(())
}

fn introduction(running: &Running, folder: &Path, secret: &str) -> anyhow::Result<String> {
    let gateway = running.addrs().first().context("there is no listener")?;
    let admin = running.admin().map(|addr| addr.to_string()).unwrap_or_default();
    let rules = folder.join("gateway-app.yaml");
    let rules = rules.display();
    // `cargo run` does not put the binary where a shell finds it.
    let graylane = std::env::current_exe()?;
    let graylane = graylane.display();
    Ok(format!(
        "\
Graylane is serving on http://{gateway}, with two versions each of order-app and user-app behind it.

  curl http://{gateway}/order/1

Gray release is on, and nothing marks that request: order-app V1 calls user-app V1.

  curl -H 'gray: gray-996' http://{gateway}/order/1

The header makes it gray: order-app V2 calls user-app V2. Why is it so?

  curl -si -H 'gray: gray-996' -H 'x-graylane-explain: 1' http://{gateway}/order/1 | grep -i decision

The rules are watched. Edit {rules}
and the next request follows:

  enabled: false                  both versions in turn
  grayIPList: ['127.0.0.1']       gray by address:  curl http://{gateway}/order/1
  grayCityList: [本地]             gray by city:     curl http://{gateway}/order/1
  grayUserNoList: [1001]          gray by user:     curl -H 'x-user-no: 1001' http://{gateway}/order/1

Where do requests of the gray lane go?

  {graylane} probe http://{gateway}/order/1 --lane gray -n 20 --key demo:{secret}

State and metrics: http://{admin}/readyz, http://{admin}/metrics. Ctrl-C ends it."
    ))
}
