//! A gateway that is killed at any moment starts again with one whole set of rules and of instances
//! (N4): both change two hundred times a second, and every other kill is aimed at a snapshot that is
//! being written.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gray_tests::{Gateway, Kind, Nacos, Relay, StandIn, Way, eventually};
use serde_json::{Value, json};

use crate::report;

/// How long it is between two pushes of each kind.
const PUSH: Duration = Duration::from_millis(5);

/// How many rules, and how many instances, make one set.
const SIZE: usize = 40;

/// How often the gateway is killed.
fn kills() -> u32 {
    std::env::var("GRAYLANE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// Rules that all carry the number of their set.
fn rules(set: u64) -> String {
    let mut text = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n".to_owned();
    for number in 0..SIZE {
        let _ = writeln!(text, "- {{name: set-{set}-{number}, when: {{path: {{equal: /{set}}}}}}}");
    }
    text
}

/// Instances that do.
fn hosts(set: u64) -> Value {
    let host = |number: usize| {
        json!({
            "ip": format!("10.0.0.{number}"), "port": 8080, "weight": 1.0, "healthy": true,
            "enabled": true, "metadata": { "version": "V1", "set": set.to_string() },
        })
    };
    (0..SIZE).map(host).collect()
}

/// The one number that all of these carry; `None` where there are none of them.
fn one_set(numbers: &[Option<u64>]) -> anyhow::Result<Option<u64>> {
    let Some(first) = numbers.first() else { return Ok(None) };
    let whole = numbers.len() == SIZE && first.is_some() && numbers.iter().all(|it| it == first);
    ensure!(whole, "half a set: {numbers:?}");
    Ok(*first)
}

async fn rules_in_force(gateway: &Gateway) -> anyhow::Result<Option<u64>> {
    let value: Value = serde_json::from_str(&gateway.ask("/api/v1/rules").await?)?;
    let rules = value["rules"].as_array().context("no rules in the answer")?;
    let set =
        |rule: &Value| rule["name"].as_str()?.strip_prefix("set-")?.split('-').next()?.parse().ok();
    one_set(&rules.iter().map(set).collect::<Vec<_>>())
}

async fn instances_in_force(gateway: &Gateway) -> anyhow::Result<Option<u64>> {
    let value: Value = serde_json::from_str(&gateway.ask("/api/v1/services").await?)?;
    let Some(instances) = value["services"]["app"].as_array() else { return Ok(None) };
    let set = |instance: &Value| instance["metadata"]["set"].as_str()?.parse().ok();
    one_set(&instances.iter().map(set).collect::<Vec<_>>())
}

/// The number of the newest set, while sets are made.
#[derive(Debug, Default)]
struct Pushing {
    newest: AtomicU64,
    paused: AtomicBool,
    ended: AtomicBool,
}

impl Pushing {
    /// Goes on until the test ends, with pauses while nobody listens.
    async fn run(&self, server: &Nacos, registry: &StandIn) -> anyhow::Result<()> {
        while !self.ended.load(Ordering::Relaxed) {
            let began = Instant::now();
            if !self.paused.load(Ordering::Relaxed) {
                let set = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
                registry.push("app", set, &hosts(set));
                server.publish("rules.yaml", &rules(set)).await?;
            }
            tokio::time::sleep(PUSH.saturating_sub(began.elapsed())).await;
        }
        Ok(())
    }
}

/// What kills fell into.
#[derive(Debug, Default)]
struct Seen {
    /// While the rules, or the instances, were being written.
    writing: [u32; 2],
    /// Starts that found a newer set than the start before.
    newer: [u32; 2],
    /// How far behind the newest set the one was that was found.
    behind: u64,
}

struct World {
    gateway: Gateway,
    relays: [Relay; 2],
    pushing: Arc<Pushing>,
    found: [u64; 2],
    seen: Seen,
}

impl World {
    fn fresh(&self, name: &str) -> PathBuf {
        self.gateway.folder.path().join(format!("{name}.fresh"))
    }

    /// Kills it: at any moment, or when one of the snapshots is being written.
    async fn kill(&mut self, number: u32) {
        let aim = match number % 4 {
            0 => Some(self.fresh("rules")),
            2 => Some(self.fresh("instances")),
            _ => None,
        };
        let patience = Duration::from_millis(fastrand::u64(5..1_500));
        let until = Instant::now() + if aim.is_some() { Duration::from_secs(3) } else { patience };
        while Instant::now() < until && !aim.as_deref().is_some_and(Path::exists) {
            // A nap would miss it: a snapshot is written within a millisecond.
            tokio::task::yield_now().await;
        }
        self.gateway.process.kill();
        for (count, name) in self.seen.writing.iter_mut().zip(["rules", "instances"]) {
            let fresh = self.gateway.folder.path().join(format!("{name}.fresh"));
            *count += u32::from(fresh.exists());
        }
    }

    /// Starts it with nothing but its snapshots, and looks at what it has.
    async fn restart(&mut self) -> anyhow::Result<()> {
        self.pushing.paused.store(true, Ordering::Relaxed);
        self.relays.iter().for_each(|relay| relay.set(Way::Cut));
        self.gateway.restart()?;
        let newest = self.pushing.newest.load(Ordering::Relaxed);
        let rules = rules_in_force(&self.gateway).await?.context("no rules")?;
        let instances = instances_in_force(&self.gateway).await?.context("no instances")?;
        for (kind, found) in [rules, instances].into_iter().enumerate() {
            let before = self.found[kind];
            ensure!(before <= found && found <= newest, "{found}, after {before}, of {newest}");
            self.seen.newer[kind] += u32::from(found > before);
            self.seen.behind = self.seen.behind.max(newest - found);
            self.found[kind] = found;
        }
        self.relays.iter().for_each(|relay| relay.set(Way::Open));
        self.pushing.paused.store(false, Ordering::Relaxed);
        self.follows(newest).await
    }

    /// Waits until what is in force is newer than this.
    async fn follows(&self, than: u64) -> anyhow::Result<()> {
        eventually(Duration::from_secs(20), async || {
            let rules = rules_in_force(&self.gateway).await?;
            let instances = instances_in_force(&self.gateway).await?;
            ensure!(rules > Some(than) && instances > Some(than), "{rules:?} {instances:?}");
            Ok(())
        })
        .await
    }
}

async fn killed(server: &Nacos, registry: &StandIn, pushing: Arc<Pushing>) -> anyhow::Result<Seen> {
    let relays =
        [Relay::start(&server.address()).await?, Relay::start(&registry.address()?).await?];
    let gateway = Gateway::start(&format!(
        "nacos: {{servers: ['{}']}}\nroutes: [{{service: app}}]\n\
         discovery:\n  nacos: [{{server: {{servers: ['{}']}}}}]\n  snapshot: '{{dir}}/instances'\n  \
         guard: {{allow: [10.0.0.0/8]}}\n\
         rules: {{nacos: {{dataIds: [rules.yaml]}}, snapshot: '{{dir}}/rules'}}\n",
        relays[0].address(),
        relays[1].address()
    ))?;
    let mut world = World { gateway, relays, pushing, found: [0; 2], seen: Seen::default() };
    world.follows(0).await?;
    // Both have been written once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for number in 0..kills() {
        world.kill(number).await;
        world.restart().await.with_context(|| format!("after kill {number}"))?;
    }
    Ok(world.seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_leaves_half_a_set() -> anyhow::Result<()> {
    let server = Nacos::start(Kind::Rnacos).await?;
    let registry = StandIn::start().await?;
    let pushing = Arc::<Pushing>::default();
    server.publish("rules.yaml", &rules(0)).await?;
    let killing = async {
        let seen = killed(&server, &registry, Arc::clone(&pushing)).await;
        pushing.ended.store(true, Ordering::Relaxed);
        seen
    };
    let (seen, ()) = tokio::try_join!(killing, pushing.run(&server, &registry))?;
    let (kills, sets) = (kills(), pushing.newest.load(Ordering::Relaxed));
    report(
        "crash",
        &format!(
            "{kills} kills (SIGKILL) while {sets} sets of {SIZE} rules (rnacos) and of {SIZE} \
             instances were pushed, one every {PUSH:?} at most\n\
             kills while the rules' snapshot was being written: {}, the instances': {}\n\
             starts that found one whole set of rules and one of instances: {kills}; half a set, none, \
             or an older one than before: 0\n\
             starts that found newer rules than the start before: {}, newer instances: {}\n\
             sets pushed after the one that was found, at most: {}\n",
            seen.writing[0], seen.writing[1], seen.newer[0], seen.newer[1], seen.behind
        ),
    )?;
    // A proof in which hardly anything was written proves nothing.
    ensure!(seen.newer.iter().all(|newer| *newer > kills / 2), "{seen:?}");
    ensure!(seen.writing.iter().all(|writing| *writing > kills / 20), "{seen:?}");
    Ok(())
}
