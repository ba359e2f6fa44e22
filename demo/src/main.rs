//! One service of the demos as a process of its own.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use clap::{Parser, ValueEnum};
use gray_demo::{Identity, Link, chain, order_app, user_app};
use gray_starter::{NacosProperties, Starter, StarterProperties};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A service of the demos. What is not given here is taken from the environment (`NACOS_ADDR`,
/// `GRAYLANE_VERSION`, ...).
#[derive(Debug, Parser)]
#[command(name = "graylane-demo", version)]
struct Args {
    /// Which service.
    #[arg(value_enum)]
    role: Role,
    /// Its version, as it is registered.
    #[arg(long, env = "GRAYLANE_VERSION", default_value = "V1")]
    version_label: String,
    /// The lane that it belongs to, where its version does not say.
    #[arg(long)]
    lane: Option<String>,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// The Nacos server it registers with, `host:port`.
    #[arg(long)]
    nacos: Option<String>,
    /// The namespace's id.
    #[arg(long, default_value = "")]
    namespace: String,
    /// A file with instances, instead of Nacos.
    #[arg(long)]
    registry: Option<PathBuf>,
    /// Files that say which version each lane has.
    #[arg(long, value_delimiter = ',')]
    rules: Vec<PathBuf>,
    /// Seconds between calls that a job makes, outside of any request.
    #[arg(long)]
    job: Option<u64>,
    /// Loses the tag of requests, and sends them here: for trying out `graylane probe`.
    #[arg(long, value_name = "URL")]
    lose_tag_to: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// user-app.
    User,
    /// order-app, which calls user-app.
    Order,
    /// spring-cloud-a, which calls B.
    A,
    /// spring-cloud-b, which calls C.
    B,
    /// spring-cloud-c.
    C,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).init();
    let args = Args::parse();
    let listener = TcpListener::bind(args.address).await?;
    let addr = listener.local_addr()?;
    let starter = Starter::start(args.properties()?)?;
    let router = args.router(starter.reachable(addr).await?, &starter);
    tracing::info!(service = args.role.service(), %addr, "serving");
    starter.serve(listener, router, told_to_stop()?).await.context("the service ended")
}

impl Args {
    fn properties(&self) -> anyhow::Result<StarterProperties> {
        let mut properties = StarterProperties::from_env(self.role.service())?;
        properties.version = Some(self.version_label.clone());
        properties.lane = self.lane.clone().or(properties.lane);
        if let Some(server) = &self.nacos {
            let (servers, namespace) = (vec![server.clone()], self.namespace.clone());
            properties.nacos = Some(NacosProperties { servers, namespace, ..Default::default() });
        }
        properties.registry = self.registry.clone().or(properties.registry);
        if !self.rules.is_empty() {
            properties.rules.clone_from(&self.rules);
        }
        if properties.rules.is_empty() && properties.nacos.is_none() {
            // The demo's own versions, where nobody says others.
            properties.base.get_or_insert_with(|| "V1".to_owned());
            properties.lanes.entry("gray".to_owned()).or_insert_with(|| "V2".to_owned());
        }
        Ok(properties)
    }

    fn router(&self, addr: SocketAddr, starter: &Starter) -> Router {
        let (service, version) = (self.role.service(), self.version_label.clone());
        let identity = Identity { service, version, port: addr.port() };
        let starter = starter.clone();
        let letters = match self.role {
            Role::User => return user_app(identity, starter),
            Role::Order => return order_app(identity, starter),
            Role::A => ('A', Some('B')),
            Role::B => ('B', Some('C')),
            Role::C => ('C', None),
        };
        let (letter, next) = letters;
        let loses_tag_to = self.lose_tag_to.clone();
        let link = Link { letter, next, addr, starter, loses_tag_to };
        if let Some(seconds) = self.job {
            tokio::spawn(link.clone().work(Duration::from_secs(seconds)));
        }
        chain(link)
    }
}

impl Role {
    const fn service(self) -> &'static str {
        match self {
            Self::User => "user-app",
            Self::Order => "order-app",
            Self::A => "spring-cloud-a",
            Self::B => "spring-cloud-b",
            Self::C => "spring-cloud-c",
        }
    }
}

/// Waits for the signals by which processes are asked to end.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
