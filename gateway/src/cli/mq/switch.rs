use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gray_config::{HumanDuration, did_you_mean};
use gray_mq::{GroupName, InvalidGroup, Ledger, Owner, Ownership, Side, StateStore};
use gray_propagation::Lane;
use tokio::time::Instant;

use super::{lane, say, unfinished};

/// Of which lane it is to be decided who handles its messages.
#[derive(Debug, Args)]
pub(super) struct Switch {
    /// The consumer group, as it is in the base environment.
    group: String,
    /// The topic.
    topic: String,
    /// The lane.
    #[arg(value_parser = lane)]
    lane: Lane,
    /// The lane is one that has had no consumer yet.
    #[arg(long)]
    new: bool,
    /// How long it is waited for the consumers to have switched.
    #[arg(long, default_value = "60s")]
    wait: HumanDuration,
}

/// What to say of a lane that nobody has been in: it may be misspelt.
pub(super) fn unknown_lane(lane: Lane, known: &BTreeSet<Lane>) -> String {
    let near = did_you_mean(lane.as_str(), known.iter().map(Lane::as_str));
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("nobody has consumed in lane {lane} yet{near} (--new, where none has)")
}

impl Switch {
    /// Refuses a lane that no consumer can be in: its messages would wait for ever.
    pub(super) fn can_be_opened(&self) -> Result<(), InvalidGroup> {
        GroupName::new(&self.group)?.of(Side::Lane(self.lane)).map(drop)
    }

    /// Decides, and waits until the consumers have switched.
    pub(super) async fn run(
        &self,
        store: &Arc<dyn StateStore>,
        owner: Option<Owner>,
    ) -> anyhow::Result<ExitCode> {
        let ledger = Ledger::find(store, &self.group, &self.topic).await?;
        let known = ledger.read().await?.lanes();
        if !self.new && !known.contains(&self.lane) {
            anyhow::bail!("{}", unknown_lane(self.lane, &known));
        }
        ledger.pin(self.lane, owner).await?;
        let Some(owner) = owner else {
            return say("released: who is alive and the rules decide");
        };
        self.follow(&ledger, owner).await
    }

    /// Says how far the switch is, until it is done.
    async fn follow(&self, ledger: &Ledger, owner: Owner) -> anyhow::Result<ExitCode> {
        const STEP: Duration = Duration::from_millis(100);
        let began = Instant::now();
        let mut said = String::new();
        loop {
            let table = ledger.read().await?;
            let now = self.progress(&table, owner);
            let done = now.is_none();
            let now = now.unwrap_or_else(|| {
                let whose = if owner == Owner::Lane { "its consumers'" } else { "base's" };
                format!("done: what is produced in {} now is {whose}", self.lane)
            });
            if now != said {
                say(&format!("{:>6.1?} {now}", began.elapsed()))?;
                said = now;
            }
            if done {
                return Ok(ExitCode::SUCCESS);
            }
            if began.elapsed() > self.wait.0 {
                return unfinished("not done yet; it goes on as soon as it can (see mq status)");
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Says what is waited for; nothing where the switch is done.
    fn progress(&self, table: &Ownership, owner: Owner) -> Option<String> {
        let Some(_) = table.intent() else {
            let is = if table.is_open(self.lane) { Owner::Lane } else { Owner::Base };
            let none = table.members().is_empty();
            return match (is == owner, none) {
                (true, _) => None,
                (false, true) => Some("nobody consumes: the next to come will switch".to_owned()),
                (false, false) => Some("waiting for a consumer to ask for it".to_owned()),
            };
        };
        let awaited: Vec<_> = table.awaited().iter().map(ToString::to_string).collect();
        Some(if awaited.is_empty() {
            "everybody has agreed, fences are written".to_owned()
        } else {
            format!("waiting for {}", awaited.join(", "))
        })
    }
}
