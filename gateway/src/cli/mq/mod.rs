//! `graylane mq`: how the messages of lanes stand, and who is to handle them.

mod show;
mod switch;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use gray_config::nacos::NacosProperties;
use gray_mq::rocketmq::RocketMq;
use gray_mq::{Ledger, Owner, Severity, StateStore, TopicStatus, audit, open_store, status};
use gray_propagation::Lane;

use super::{WRONG, runtime, say};

/// Shows how the messages of lanes stand, and decides who handles them.
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
    #[arg(long, global = true, env = "GRAYLANE_MQ_STATE", default_value = "nacos")]
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
    /// Looks for what is wrong: consumers that are not registered, messages that nobody reads, switches
    /// that wait for somebody, brokers that have lost messages. It changes nothing.
    ///
    /// Exits with 0 where all is well, with 1 where something waits, and with 2 where messages may be
    /// handled by the wrong consumers or are lost.
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
        runtime()?.block_on(self.perform())
    }

    async fn perform(self) -> anyhow::Result<ExitCode> {
        let brokers = RocketMq::new(self.place.names.clone());
        let store = self.place.store().await?;
        match self.task {
            Task::Status { group, topic, json } => {
                let fits = |status: &TopicStatus| {
                    group.as_ref().is_none_or(|group| *group == status.group)
                        && topic.as_ref().is_none_or(|topic| *topic == status.topic)
                };
                let mut all = status(&brokers, &store).await?;
                all.retain(fits);
                if json {
                    return say(&serde_json::to_string_pretty(&all)?);
                }
                if all.is_empty() {
                    say("no consumer has registered yet")?;
                    return Ok(ExitCode::FAILURE);
                }
                say(all.iter().map(show::show).collect::<Vec<_>>().join("\n\n").trim_end())
            }
            Task::Audit { json } => {
                let all = status(&brokers, &store).await?;
                let findings: Vec<_> = all.iter().flat_map(audit).collect();
                let text = if json {
                    serde_json::to_string_pretty(&findings)?
                } else {
                    show::findings(&findings, all.len())
                };
                say(&text)?;
                Ok(match findings.iter().map(|finding| finding.severity).max() {
                    None => ExitCode::SUCCESS,
                    Some(Severity::Warning) => ExitCode::FAILURE,
                    Some(Severity::Error) => ExitCode::from(WRONG),
                })
            }
            Task::Open(switch) => switch.run(&store, Some(Owner::Lane)).await,
            Task::Drain(switch) => switch.run(&store, Some(Owner::Base)).await,
            Task::Release(switch) => switch.run(&store, None).await,
            Task::ForgetBroker { group, topic, broker } => {
                let ledger = Ledger::find(&store, &group, &topic).await?;
                let (before, ()) = ledger
                    .change(|table| {
                        table.remove_broker(&broker);
                        Ok::<_, std::convert::Infallible>(())
                    })
                    .await?;
                let queues = before.fences().queues().count();
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

/// A lane as an operator names it.
fn lane(text: &str) -> Result<Lane, String> {
    text.parse::<Lane>().map_err(|error| error.to_string())
}

/// What could not be finished in time.
fn unfinished(text: &str) -> anyhow::Result<ExitCode> {
    say(text)?;
    Ok(ExitCode::from(WRONG))
}
