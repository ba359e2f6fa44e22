//! One service of the demo as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
        tokio::spawn(stay_registered(link, service, addr, args.version_label));
    }
    serve(listener, router).await?;
    Ok(())
}

/// Finds user-app as order-app does: V1 in production, V2 gray.
fn caller(args: &Args, link: Option<Link>) -> anyhow::Result<Caller> {
    let registry: Box<dyn Discovery> = match (link, &args.registry) {
        (Some(link), _) => {
            let group = NacosGroup { group: "DEFAULT_GROUP".into(), clusters: vec![], lane: None };
            Box::new(NacosDiscovery::new(link, group, vec![ServiceName::new("user-app")]))
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

/// Registers on every connection to Nacos, as the server forgets when one breaks.
async fn stay_registered(link: Link, service: &str, addr: SocketAddr, version: String) {
    const PAUSE: Duration = Duration::from_secs(1);
    let instance = NacosInstance {
        ip: addr.ip().to_string(),
        port: addr.port().into(),
        metadata: [("version".to_owned(), version)].into(),
        ..NacosInstance::default()
    };
    let mut states = link.state();
    let mut registered = 0;
    loop {
        let (epoch, connected) = {
            let state = states.borrow_and_update();
            (state.epoch, state.connected)
        };
        if connected && epoch != registered {
            match link.register(service, "DEFAULT_GROUP", &instance).await {
                Ok(()) => registered = epoch,
                Err(error) => {
                    tracing_error(&error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn tracing_error(error: &dyn std::error::Error) {
    use std::io::Write;
    // Nothing is left to be done where even this cannot be written.
    let _ = writeln!(std::io::stderr(), "not registered: {error}");
}
