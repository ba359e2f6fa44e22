//! One service of the demos as a process of its own.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use clap::{Parser, ValueEnum};
use gray_demo::{
    Astray, Identity, Link, Messages, Transport, ask, chain, job, metrics, order_app, user_app,
};
use gray_mq::{Consumer, open_store};
use gray_starter::{Starter, StarterProperties};
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
    #[arg(long)]
    namespace: Option<String>,
    /// A file with instances, instead of Nacos.
    #[arg(long)]
    registry: Option<PathBuf>,
    /// Files that say which version each lane has.
    #[arg(long, value_delimiter = ',')]
    rules: Vec<PathBuf>,
    /// How A and B call the next one on `/A/go`, and in their jobs.
    #[arg(long, value_enum, default_value_t)]
    transport: Carrier,
    /// Seconds between calls that a job makes, outside of any request: A and B call the next one,
    /// order-app calls user-app, C and user-app call themselves by their names.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    job: Option<u64>,
    /// Loses the tag of requests, and sends them here: for trying out `graylane probe`.
    #[arg(long, value_name = "URL", group = "astray")]
    lose_tag_to: Option<String>,
    /// Sends requests here as they are, whatever lane that is in.
    #[arg(long, value_name = "URL", group = "astray")]
    pass_on_to: Option<String>,
    /// Sends requests here without any of their headers.
    #[arg(long, value_name = "URL", group = "astray")]
    call_bare: Option<String>,
    /// Goes on by a task that does not know the request that it is for: for trying out what is counted then.
    #[arg(long, group = "astray")]
    lose_context: bool,
    /// The name servers of RocketMQ: C produces a message on each call, and A consumes it.
    #[arg(long, value_delimiter = ',', env = "GRAYLANE_MQ")]
    mq: Vec<String>,
    /// Where it is kept whose messages are whose: `nacos`, `postgres://…` or `mysql://…`.
    #[arg(long, env = "GRAYLANE_MQ_STATE", default_value = "nacos", hide_env_values = true)]
    mq_state: String,
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

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Carrier {
    /// HTTP.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).init();
    let args = Args::parse();
    let listener = TcpListener::bind(args.address).await?;
    let addr = listener.local_addr()?;
    let starter = Starter::start(args.properties()?)?;
    let (router, consumer) = args.service(starter.reachable(addr).await?, &starter).await?;
    let counts = consumer.as_ref().map(|consumer| consumer.counts().clone());
    tracing::info!(service = args.role.service(), %addr, "serving");
    let router = router.merge(metrics(starter.clone(), counts));
    let served = starter.serve(listener, router, told_to_stop()?).await;
    if let Some(consumer) = consumer {
        consumer.stop().await;
    }
    served.context("the service ended")
}

impl Args {
    fn properties(&self) -> anyhow::Result<StarterProperties> {
        // Flags come before variables.
        let lookup = |name: &str| {
            let flag = match name {
                "NACOS_ADDR" => self.nacos.clone(),
                "NACOS_NAMESPACE" => self.namespace.clone(),
                _ => None,
            };
            flag.or_else(|| std::env::var(name).ok())
        };
        let mut properties = StarterProperties::from(&lookup, self.role.service())?;
        properties.version = Some(self.version_label.clone());
        properties.lane = self.lane.clone().or(properties.lane);
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

    async fn service(
        &self,
        addr: SocketAddr,
        starter: &Starter,
    ) -> anyhow::Result<(Router, Option<Consumer>)> {
        let (service, version) = (self.role.service(), self.version_label.clone());
        let identity = Identity { service, version, port: addr.port() };
        let starter = starter.clone();
        let every = self.job.map(Duration::from_secs);
        if let (Some(every), Role::User | Role::Order) = (every, self.role) {
            let starter = starter.clone();
            let user = "http://user-app/user/1";
            tokio::spawn(job(every, move || ask(starter.clone(), user.to_owned())));
        }
        let (letter, next) = match self.role {
            Role::User => return Ok((user_app(identity, starter), None)),
            Role::Order => return Ok((order_app(identity, starter), None)),
            Role::A => ('A', Some('B')),
            Role::B => ('B', Some('C')),
            Role::C => ('C', None),
        };
        let astray = self.lose_tag_to.clone().map(Astray::WithoutTag);
        let astray = astray.or_else(|| self.pass_on_to.clone().map(Astray::WithTag));
        let astray = astray.or_else(|| self.call_bare.clone().map(Astray::Bare));
        let transport = match self.transport {
            Carrier::Http => Transport::Http,
            Carrier::Grpc => Transport::Grpc,
        };
        let forgets = self.lose_context;
        let producer = None;
        let mut link = Link { letter, next, addr, transport, starter, astray, forgets, producer };
        let consumer = self.messages(&mut link).await?;
        if let Some(every) = every {
            let link = link.clone();
            tokio::spawn(job(every, move || link.clone().work()));
        }
        Ok((chain(link), consumer))
    }

    /// Lets C produce messages, and A consume them.
    async fn messages(&self, link: &mut Link) -> anyhow::Result<Option<Consumer>> {
        match self.role {
            _ if self.mq.is_empty() => Ok(None),
            // Who only produces needs no state.
            Role::C => {
                let messages = Messages::new(self.mq.clone(), open_store("memory", None).await?);
                messages.produce(link).await;
                Ok(None)
            }
            Role::A => {
                let store = open_store(&self.mq_state, link.starter.nacos()).await;
                let store = store.context("consuming messages needs a state (--mq-state)")?;
                let messages = Messages::new(self.mq.clone(), store);
                Ok(Some(messages.consume(link.clone()).await?))
            }
            Role::User | Role::Order | Role::B => Ok(None),
        }
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
