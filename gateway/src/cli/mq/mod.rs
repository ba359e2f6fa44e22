//! `graylane mq`: how the messages of lanes stand, and who is to handle them.

mod show;
mod switch;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use gray_config::nacos::NacosProperties;
use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    FindError, ForgetError, Ledger, OpenError, Owner, StateStore, StoreError, TopicStatus,
    open_store, status,
};
use gray_propagation::Lane;

use super::{WRONG, fail, runtime, say};

/// The exit code where the tables cannot be had, so that nothing is known of how messages stand.
const AWAY: u8 = 3;

/// What is said where there is no table at all.
const NO_TABLE: &str = "no consumer has registered yet, or its tables are elsewhere: --state, and for \
                        Nacos --nacos and --namespace, have to be those of the consumers";

/// Shows how the messages of lanes stand, and decides who handles them.
///
/// Exits with 2 where it is told something wrong, and with 3 where the tables cannot be had.
#[derive(Debug, Args)]
pub(super) struct Mq {
    #[command(subcommand)]
    task: Task,
    #[command(flatten)]
    place: Place,
}

/// Where brokers and tables are.
#[derive(Debug, Args)]
struct Place {
    /// The name servers of RocketMQ.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        env = "GRAYLANE_MQ",
        default_value = "127.0.0.1:9876"
    )]
    names: Vec<String>,
    /// Where the tables are: `nacos`, `postgres://…` or `mysql://…`.
    #[arg(
        long,
        global = true,
        env = "GRAYLANE_MQ_STATE",
        default_value = "nacos",
        hide_env_values = true
    )]
    state: String,
    /// The Nacos servers, where the tables are in Nacos.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        env = "NACOS_ADDR",
        default_value = "127.0.0.1:8848"
    )]
    nacos: Vec<String>,
    /// The namespace's id.
    #[arg(long, global = true, env = "NACOS_NAMESPACE", default_value = "")]
    namespace: String,
    /// The user, where Nacos asks for one.
    #[arg(long, global = true, env = "NACOS_USERNAME", default_value = "")]
    username: String,
    /// The user's password.
    #[arg(long, global = true, env = "NACOS_PASSWORD", default_value = "", hide_env_values = true)]
    password: String,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Shows for each group and topic what is going on, who is there, and what is to be read.
    ///
    /// Exits with 1 where there is none.
    Status {
        /// This consumer group only, as it is in the base environment.
        #[arg(long)]
        group: Option<String>,
        /// This topic only.
        #[arg(long)]
        topic: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Looks for what is wrong: consumers that are not registered or do not read, messages that nobody
    /// reads, switches that wait for somebody, brokers that have lost messages. It changes nothing.
    ///
    /// Exits with 0 where all is well, with 1 where something waits or there is no table at all, with 2
    /// where messages may be handled by the wrong consumers or are lost, and with 3 where the tables cannot
    /// be had.
    Audit {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Gives what is produced in a lane from now on to the lane's consumers, even while there are
    /// none, until it is drained or released.
    Open(switch::Switch),
    /// Gives what is produced in a lane from now on to base, even while the lane has consumers, until
    /// it is opened or released.
    Drain(switch::Switch),
    /// Leaves a lane to its consumers' being alive and to the rules again.
    Release(switch::Switch),
    /// Takes the queues of a broker off that is gone for good, so that nobody waits for it.
    ForgetBroker {
        /// The consumer group, as it is in the base environment.
        group: String,
        /// The topic.
        topic: String,
        /// The broker's name.
        broker: String,
    },
}

impl Mq {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match runtime()?.block_on(self.perform()) {
            Err(error) if is_away(&error) => {
                fail(&error);
                Ok(ExitCode::from(AWAY))
            }
            done => done,
        }
    }

    async fn perform(self) -> anyhow::Result<ExitCode> {
        if let Task::Open(switch) = &self.task {
            switch.can_be_opened()?;
        }
        let brokers = RocketMq::new(self.place.names.clone());
        let store = self.place.store().await?;
        match self.task {
            Task::Status { group, topic, json } => {
                let fits = |status: &TopicStatus| {
                    group.as_ref().is_none_or(|group| *group == status.group)
                        && topic.as_ref().is_none_or(|topic| *topic == status.topic)
                };
                show::status(status(&brokers, &store).await?, fits, json)
            }
            Task::Audit { json } => show::audit(&status(&brokers, &store).await?, json),
            Task::Open(switch) => switch.run(&store, Some(Owner::Lane)).await,
            Task::Drain(switch) => switch.run(&store, Some(Owner::Base)).await,
            Task::Release(switch) => switch.run(&store, None).await,
            Task::ForgetBroker { group, topic, broker } => {
                let ledger = Ledger::find(&store, &group, &topic).await?;
                let table = ledger.forget_broker(&brokers, &broker).await?;
                let queues = table.fences().queues().count();
                say(&format!("{broker} is forgotten; {queues} queues of other brokers are left"))
            }
        }
    }
}

impl Place {
    async fn store(&self) -> anyhow::Result<Arc<dyn StateStore>> {
        let nacos = NacosProperties {
            servers: self.nacos.clone(),
            namespace: self.namespace.clone(),
            username: self.username.clone(),
            password: self.password.clone(),
            ..NacosProperties::default()
        };
        if self.state == "memory" {
            anyhow::bail!("a state that is kept in memory is in the process that consumes only");
        }
        open_store(&self.state, Some(&nacos)).await.context("the tables cannot be had (--state)")
    }
}

/// Tells whether it is the tables that cannot be had, and not what was asked for that is wrong.
fn is_away(error: &anyhow::Error) -> bool {
    error.is::<OpenError>()
        || error.is::<StoreError>()
        || matches!(error.downcast_ref(), Some(FindError::Store(_)))
        || matches!(error.downcast_ref(), Some(ForgetError::Store(_)))
}

/// A lane as an operator names it.
fn lane(text: &str) -> Result<Lane, String> {
    text.parse::<Lane>().map_err(|error| error.to_string())
}

/// What could not be finished in time.
fn unfinished(text: &str) -> anyhow::Result<ExitCode> {
    say(text)?;
    Ok(ExitCode::from(WRONG))
}
