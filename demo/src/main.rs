//! One service of the demo as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use gray_config::nacos::{Link, Module, NacosInstance, NacosProperties};
use gray_config::{FileSource, live};
use gray_demo::{Caller, Identity, order_app, serve, user_app};
use gray_lb::{
    Balancer, Directory, Discovery, FileDiscovery, GrayVersionProperties, Guard, GuardProperties,
    LaneTable, Maintenance, NacosDiscovery, NacosGroup, ServiceName, maintain,
};
use tokio::net::TcpListener;

/// A service of the Spring Cloud design's demo.
#[derive(Debug, Parser)]
#[command(name = "graylane-demo", version)]
struct Args {
    /// Which service.
    #[arg(value_enum)]
    role: Role,
    /// Its version, as it is registered.
    #[arg(long, default_value = "V1")]
    version_label: String,
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
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// user-app.
    User,
    /// order-app, which calls user-app.
    Order,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let listener = TcpListener::bind(args.address).await?;
    let addr = listener.local_addr()?;
    let service = match args.role {
        Role::User => "user-app",
        Role::Order => "order-app",
    };
    let identity = Identity { service, version: args.version_label.clone(), port: addr.port() };
    let link = args.nacos.as_ref().map(|server| {
        let servers = vec![server.clone()];
        let namespace = args.namespace.clone();
        Link::new(NacosProperties { servers, namespace, ..Default::default() }, Module::Naming)
    });
    let router = match args.role {
        Role::User => user_app(identity),
        Role::Order => order_app(identity, caller(&args, link.clone())?),
    };
    if let Some(link) = link {
        let instance = NacosInstance {
            ip: addr.ip().to_string(),
            port: addr.port().into(),
            metadata: [("version".to_owned(), args.version_label)].into(),
            ..NacosInstance::default()
        };
        tokio::spawn(async move {
            link.keep_registered(service, "DEFAULT_GROUP", &instance).await;
        });
    }
    serve(listener, router).await?;
    Ok(())
}

/// Finds user-app as order-app does: V1 in production, V2 gray.
fn caller(args: &Args, link: Option<Link>) -> anyhow::Result<Caller> {
    let registry: Box<dyn Discovery> = match (link, &args.registry) {
        (Some(link), _) => {
            let group = NacosGroup { group: "DEFAULT_GROUP".into(), clusters: vec![], lane: None };
            Box::new(NacosDiscovery::new(
                link,
                group,
                [ServiceName::new("user-app")].into_iter().collect(),
            ))
        }
        (None, Some(path)) => {
            let source = FileSource::new([path.clone()], 1 << 20);
            Box::new(FileDiscovery::new(Box::new(source)))
        }
        (None, None) => anyhow::bail!("name a registry by --nacos or --registry"),
    };
    let allow = ["0.0.0.0/0", "::/0"].map(str::to_owned).into();
    let guard = Guard::new(&GuardProperties { allow, ..Default::default() }, Vec::new());
    let guard = guard.ok().context("the guard's own settings are wrong")?;
    let (publisher, directory) = live(Directory::default());
    tokio::spawn(maintain(vec![registry], Maintenance::new(guard), publisher));
    let versions = GrayVersionProperties {
        prod_version: Some("V1".to_owned()),
        gray_version: Some("V2".to_owned()),
    };
    let lanes: LaneTable = versions.lanes(&[]);
    Caller::new(Balancer::new(directory), move |service| lanes.of(service).clone())
}
