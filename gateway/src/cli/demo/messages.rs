//! The chain A -> B -> C with messages from C to A, where there is a RocketMQ for it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use gray_demo::{Link, Messages, Starter, StarterProperties, Transport, chain};
use gray_mq::rocketmq::RocketMq;
use gray_mq::{Consumer, open_store};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The letters of the chain, each with the next one.
const LETTERS: [(char, Option<char>); 3] = [('A', Some('B')), ('B', Some('C')), ('C', None)];

const VERSIONS: [&str; 2] = ["V1", "V2"];

/// What the chain sends its messages over.
const TOPIC: &str = "TEST_MQ";
const QUEUES: u32 = 4;

/// The chain, before it serves.
pub(super) struct Chain {
    messages: Messages,
    copies: Vec<(char, Option<char>, &'static str, TcpListener)>,
}

fn service(letter: char) -> String {
    format!("spring-cloud-{}", letter.to_ascii_lowercase())
}

impl Chain {
    /// Looks for the brokers, and takes ports.
    pub(super) async fn prepare(names: &[String]) -> anyhow::Result<Self> {
        let store = open_store("memory", None).await?;
        let mut messages = Messages::new(names.to_vec(), store);
        // In one process nobody is asked far away.
        messages.poll = Duration::from_millis(200);
        messages.lease = Duration::from_secs(3);
        create_topic(&messages.broker).await.with_context(|| {
            let names = names.join(", ");
            format!("no RocketMQ at {names}; `cargo xtask servers rocketmq` starts one")
        })?;
        let mut copies = Vec::new();
        for (letter, next) in LETTERS {
            for version in VERSIONS {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                copies.push((letter, next, version, listener));
            }
        }
        Ok(Self { messages, copies })
    }

    /// Adds its instances to a registry document.
    pub(super) fn register(&self, registry: &mut String) -> anyhow::Result<()> {
        for (letter, _) in LETTERS {
            writeln!(registry, "  {}:", service(letter))?;
            for (_, _, version, listener) in self.copies.iter().filter(|copy| copy.0 == letter) {
                let addr = listener.local_addr()?;
                writeln!(registry, "  - {{address: '{addr}', metadata: {{version: {version}}}}}")?;
            }
        }
        Ok(())
    }

    /// Serves; returns what consumes messages meanwhile.
    pub(super) async fn serve(
        self,
        folder: &Path,
        services: &mut JoinSet<()>,
    ) -> anyhow::Result<Vec<Consumer>> {
        let mut consumers = Vec::new();
        for (letter, next, version, listener) in self.copies {
            let addr: SocketAddr = listener.local_addr()?;
            let mut properties = StarterProperties::of(service(letter));
            properties.version = Some(version.to_owned());
            properties.registry = Some(folder.join("registry.yaml"));
            properties.rules = vec![folder.join("common-config.yaml")];
            let starter = Starter::start(properties)?;
            let (astray, producer) = (None, None);
            let serving = starter.clone();
            let mut link = Link {
                letter,
                next,
                addr,
                transport: Transport::Http,
                starter,
                astray,
                forgets: false,
                producer,
            };
            match letter {
                'A' => consumers.push(self.messages.consume(link.clone()).await?),
                'C' => self.messages.produce(&mut link).await,
                _ => {}
            }
            services.spawn(async move {
                let served = serving.serve(listener, chain(link), std::future::pending()).await;
                if let Err(error) = served {
                    tracing::warn!(%error, "a service of the demo ended");
                }
            });
        }
        Ok(consumers)
    }
}

async fn create_topic(cluster: &RocketMq) -> anyhow::Result<()> {
    // A broker that has just started makes itself known after a moment, on a busy machine a longer one.
    const MOMENT: Duration = Duration::from_secs(20);
    let began = Instant::now();
    let brokers = loop {
        cluster.route("TBW102").await?;
        let brokers = cluster.brokers();
        if !brokers.is_empty() {
            break brokers;
        }
        anyhow::ensure!(began.elapsed() < MOMENT, "its name server knows no broker");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for name in brokers {
        cluster.broker(&name).await?.create_topic(TOPIC, QUEUES).await?;
    }
    Ok(())
}

/// What a person may try with it.
pub(super) fn introduction(gateway: SocketAddr) -> String {
    format!(
        "\n\nThe chain A -> B -> C of seed S2: C produces a message on each call, and A consumes it by \
         calling B\nand C once more. Each lane keeps its own; the log says so (invoke result):\n\n  \
         curl http://{gateway}/A/dubbo\n  curl -H 'gray: gray-996' http://{gateway}/A/dubbo\n"
    )
}
