use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_mq::rocketmq::RocketMq as Cluster;
use gray_mq::{MessageBroker, StateStore};
use gray_tests::{Process, Release, RocketMq, eventually};
use serde_json::Value;

use crate::events::{Durable, Events};
use crate::store::{Place, Server, open};

pub(crate) const TOPIC: &str = "audit";
pub(crate) const GROUP: &str = "audit-svc";
const QUEUES: u32 = 4;

/// How long members may be missed before they are gone; short, so that many cycles fit.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// How long a server or a step of a switch may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Real servers, the processes that consume, and the logs.
pub(crate) struct System {
    pub(crate) broker: RocketMq,
    pub(crate) tables: Server,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) logs: PathBuf,
    pub(crate) events: Events,
    pub(crate) members: BTreeMap<String, Running>,
    /// What members are told beside where they belong.
    pub(crate) more: Vec<String>,
    started: u32,
    pub(crate) kills: u32,
    pub(crate) sleeps: u32,
    pub(crate) restarts: u32,
    /// All fences that there ever were, by queue: consumers forget what they need no more.
    pub(crate) fences: BTreeMap<String, Vec<Value>>,
    /// How often each fail point killed a process.
    pub(crate) failed: BTreeMap<String, u32>,
}

/// A process that consumes.
pub(crate) struct Running {
    process: Process,
    pub(crate) gray: bool,
    point: Option<String>,
    /// What was durable of each group when it fell asleep.
    asleep: Option<BTreeMap<String, Durable>>,
}

impl System {
    pub(crate) async fn start(
        release: Release,
        place: Place,
        logs: PathBuf,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&logs)?;
        let broker = RocketMq::start(release)?;
        let tables = Server::start(place).await?;
        let store = open(&tables.url()).await?;
        let cluster = Arc::new(Cluster::new(vec![broker.names()]));
        eventually(PATIENCE, async || {
            ensure!(!cluster.route("TBW102").await?.brokers.is_empty(), "no broker");
            let name = cluster.brokers().into_iter().next().context("no broker")?;
            cluster.broker(&name).await?.create_topic(TOPIC, QUEUES).await?;
            ensure!(!cluster.queues(TOPIC).await?.is_empty(), "no topic");
            Ok(())
        })
        .await?;
        let events = Events::create(&logs.join("killed.tsv"))?;
        Ok(Self {
            broker,
            tables,
            cluster,
            store,
            logs,
            events,
            members: BTreeMap::new(),
            more: Vec::new(),
            started: 0,
            kills: 0,
            sleeps: 0,
            restarts: 0,
            fences: BTreeMap::new(),
            failed: BTreeMap::new(),
        })
    }

    /// Starts a process that consumes, and dies at a fail point if it is given one.
    pub(crate) fn member(&mut self, gray: bool, point: Option<&str>) -> anyhow::Result<()> {
        self.started += 1;
        let side = if gray { "gray" } else { "base" };
        let client = format!("{side}-{}", self.started);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["member", "--group", GROUP, "--topic", TOPIC, "--client", &client]);
        command.args(["--names", &self.broker.names(), "--store", &self.tables.url()]);
        command.arg("--log").arg(self.logs.join(format!("handled-{client}.tsv")));
        if gray {
            command.arg("--gray");
        }
        command.args(&self.more);
        command.env("FAILPOINTS", point.unwrap_or_default()).env("RUST_LOG", "info");
        let process = Process::start(&mut command, &self.logs.join(format!("{client}.log")))?;
        let point = point.map(str::to_owned);
        self.members.insert(client, Running { process, gray, point, asleep: None });
        Ok(())
    }

    /// The members of a side.
    pub(crate) fn of(&self, gray: bool) -> Vec<String> {
        let members = self.members.iter().filter(|(_, running)| running.gray == gray);
        members.map(|(client, _)| client.clone()).collect()
    }

    /// Kills a process at once.
    pub(crate) async fn kill(&mut self, client: &str) -> anyhow::Result<()> {
        let mut running = self.members.remove(client).context("nobody of that name")?;
        running.process.kill();
        self.kills += 1;
        self.note(client).await
    }

    /// Has a process sleep, as a machine does that is short of memory or being moved.
    pub(crate) async fn put_to_sleep(&mut self, client: &str) -> anyhow::Result<()> {
        let running = self.members.get(client).context("nobody of that name")?;
        running.process.signal("-STOP")?;
        // What it has handled since may be handled by others.
        let durable = self.durable().await?;
        for (group, durable) in &durable {
            self.events.killed(client, group, durable)?;
        }
        let running = self.members.get_mut(client).context("nobody of that name")?;
        running.asleep = Some(durable);
        Ok(())
    }

    /// Wakes it up, in the middle of what it was doing; tells whether it is of the lane.
    pub(crate) fn wake(&mut self, client: &str) -> anyhow::Result<bool> {
        let running = self.members.get_mut(client).context("nobody of that name")?;
        let durable = running.asleep.take().context("it was not asleep")?;
        running.process.signal("-CONT")?;
        self.sleeps += 1;
        // What it had in its hands others may have handled meanwhile.
        for (group, durable) in &durable {
            self.events.killed(client, group, durable)?;
        }
        Ok(running.gray)
    }

    /// Tells a process to stop, and leaves it to whoever waits for it.
    pub(crate) fn dismiss(&mut self, client: &str) -> anyhow::Result<Process> {
        let running = self.members.remove(client).context("nobody of that name")?;
        running.process.terminate()?;
        Ok(running.process)
    }

    /// Tells a process to stop, and waits until it has. It may come to its fail point on the way.
    pub(crate) async fn stop(&mut self, client: &str) -> anyhow::Result<()> {
        let point = self.members.get(client).and_then(|running| running.point.clone());
        let code = self.dismiss(client)?.wait(Duration::from_secs(30))?;
        match code {
            Some(_) => Ok(()),
            None => self.died(client, point).await,
        }
    }

    /// Takes note of a process that has died at its fail point, the only one that it may die at.
    async fn died(&mut self, client: &str, point: Option<String>) -> anyhow::Result<()> {
        let point = point.with_context(|| format!("{client} died of its own"))?;
        let name = point.split('=').next().unwrap_or_default().to_owned();
        *self.failed.entry(name).or_default() += 1;
        self.note(client).await
    }

    /// Takes note of processes that died at a fail point, and starts others in their stead.
    pub(crate) async fn reap(&mut self, gray_too: bool) -> anyhow::Result<()> {
        let mut dead = Vec::new();
        for (client, running) in &mut self.members {
            if running.process.has_ended()? {
                dead.push(client.clone());
            }
        }
        for client in dead {
            let running = self.members.remove(&client).context("it was there")?;
            self.died(&client, running.point).await?;
            if !running.gray || gray_too {
                self.member(running.gray, None)?;
            }
        }
        Ok(())
    }

    /// Takes down what was committed when somebody died: nobody has read its queues further since. A process
    /// of base may have been reading what the lane had left behind.
    async fn note(&self, client: &str) -> anyhow::Result<()> {
        for (group, durable) in self.durable().await? {
            self.events.killed(client, &group, &durable)?;
        }
        Ok(())
    }

    async fn durable(&self) -> anyhow::Result<BTreeMap<String, Durable>> {
        let mut all = BTreeMap::new();
        for group in [false, true].map(group) {
            let durable = eventually(PATIENCE, async || self.committed(&group).await).await?;
            all.insert(group, durable);
        }
        Ok(all)
    }

    async fn committed(&self, group: &str) -> anyhow::Result<Durable> {
        let mut durable = Durable::new();
        let retry = format!("%RETRY%{group}");
        for (source, topic) in [("topic", TOPIC), ("retry", &retry)] {
            let queues = self.cluster.queues(topic).await?;
            // A broker that has just been restarted is not known to its name server yet; what was durable
            // in queues that are left out here would be missed.
            ensure!(source != "topic" || usize::try_from(QUEUES) == Ok(queues.len()), "{queues:?}");
            for queue in queues {
                let committed = self.cluster.committed(group, topic, &queue).await?;
                let key = (source.to_owned(), queue.to_string());
                durable.insert(key, committed.unwrap_or_default());
            }
        }
        Ok(durable)
    }

    /// Kills the broker and starts it again; what was durable then is what it had on disk.
    pub(crate) fn restart_broker(&mut self) -> anyhow::Result<()> {
        self.broker.kill();
        for group in [false, true].map(group) {
            let durable = durable(&on_disk(&self.broker.offsets()), &group);
            self.events.killed("*", &group, &durable)?;
        }
        self.broker.run()
    }

    /// The table as it stands in the database.
    pub(crate) async fn table(&self) -> anyhow::Result<String> {
        let key = format!("graylane.mq.{GROUP}.{TOPIC}");
        Ok(self.store.read(&key).await?.context("there is no table yet")?.text)
    }

    /// Adds the fences of a table to those of before, of which it has the last ones.
    fn remember(&mut self, table: &Value) {
        let queues = table.pointer("/table/fences").and_then(Value::as_object);
        for (queue, lanes) in queues.into_iter().flatten() {
            let now = lanes.get("gray").and_then(Value::as_array).cloned().unwrap_or_default();
            let all = self.fences.entry(queue.clone()).or_default();
            let kept = (0..=all.len())
                .find(|at| now.starts_with(all.get(*at..).unwrap_or_default()))
                .unwrap_or_default();
            all.truncate(kept);
            all.extend(now);
        }
    }

    /// The table with all fences that there ever were.
    pub(crate) async fn whole_table(&mut self) -> anyhow::Result<String> {
        let mut table: Value = serde_json::from_str(&self.table().await?)?;
        self.remember(&table);
        let fences = table.pointer_mut("/table/fences").and_then(Value::as_object_mut);
        for (queue, lanes) in fences.into_iter().flatten() {
            let all = self.fences.get(queue).cloned().unwrap_or_default();
            *lanes = serde_json::json!({ "gray": all });
        }
        Ok(table.to_string())
    }

    /// Waits until the lane is open, or is not, and nothing is to be changed.
    pub(crate) async fn until_open(&mut self, open: bool) -> anyhow::Result<()> {
        let began = tokio::time::Instant::now();
        loop {
            self.reap(open).await?;
            let text = self.table().await.unwrap_or_default();
            let table: Value = serde_json::from_str(&text).unwrap_or_default();
            self.remember(&table);
            let lanes = table.pointer("/table/open").and_then(Value::as_array).map_or(0, Vec::len);
            let settled = table.pointer("/table/intent").is_none();
            if !text.is_empty() && (lanes > 0) == open && settled {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn group(gray: bool) -> String {
    if gray { format!("{GROUP}_gray") } else { GROUP.to_owned() }
}

/// Reads what a broker has written of offsets, or what it had written before, as it does itself
/// where it was killed while it wrote.
fn on_disk(path: &Path) -> String {
    let before = PathBuf::from(format!("{}.bak", path.display()));
    let texts = [path, &before].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let count = |text: &str, brace| text.matches(brace).count();
    let is_whole = |text: &String| count(text, '{') > 0 && count(text, '{') == count(text, '}');
    texts.into_iter().find(is_whole).unwrap_or_default()
}

/// Reads a group's offsets of what a broker has written: `"topic@group":{0:12,1:7}`. Of what is not
/// named there it has nothing, and starts again at the first message.
fn durable(text: &str, group: &str) -> Durable {
    let retry = format!("%RETRY%{group}");
    let mut durable = Durable::new();
    for (source, topic, queues) in [("topic", TOPIC, QUEUES), ("retry", &retry, 1)] {
        for queue in 0..queues {
            durable.insert((source.to_owned(), format!("broker-a/{queue}")), 0);
        }
        let start = format!("\"{topic}@{group}\":{{");
        let Some((_, rest)) = text.split_once(&start) else { continue };
        for pair in rest.split('}').next().unwrap_or_default().split(',') {
            let Some((queue, offset)) = pair.split_once(':') else { continue };
            let queue = queue.trim().trim_matches('"');
            let Ok(offset) = offset.trim().parse() else { continue };
            durable.insert((source.to_owned(), format!("broker-a/{queue}")), offset);
        }
    }
    durable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that is killed before it has written an offset of the retries once delivers them
    /// all again, and the checker took that for a fault of ours.
    #[test]
    fn what_a_broker_has_not_written_is_not_durable() {
        let written = r#"{"offsetTable":{"audit@audit-svc":{0:12,3:7}}}"#;
        let durable = durable(written, GROUP);
        let of = |source: &str, queue: &str| durable.get(&(source.to_owned(), queue.to_owned()));
        assert_eq!(of("topic", "broker-a/0"), Some(&12));
        assert_eq!(of("topic", "broker-a/1"), Some(&0));
        assert_eq!(of("topic", "broker-a/3"), Some(&7));
        assert_eq!(of("retry", "broker-a/0"), Some(&0));
    }

    #[test]
    fn half_a_file_is_not_read_but_the_one_before() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("offsets.json");
        std::fs::write(&path, r#"{"offsetTable":{"a@g":{0:1},"b@g":{0:1}"#)?;
        assert_eq!(on_disk(&path), "");
        std::fs::write(folder.path().join("offsets.json.bak"), "{}\n")?;
        assert_eq!(on_disk(&path), "{}\n");
        std::fs::write(&path, r#"{"offsetTable":{}}"#)?;
        assert_eq!(on_disk(&path), r#"{"offsetTable":{}}"#);
        Ok(())
    }
}
