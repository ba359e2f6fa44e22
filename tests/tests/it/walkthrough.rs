//! Seed S2, steps three to five, with the gateway in front: services A, B and C on Nacos, messages from
//! C to A over RocketMQ, rules that change while everything runs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Kind, Nacos, Release, RocketMq, binary, eventually};

use crate::chain::Chain;

/// How long it may take until services follow.
const PATIENCE: Duration = Duration::from_mins(1);

const BASE: &str = "topic:TEST_MQ, producer:C[127.0.0.1], invoke result:A[127.0.0.1] -> \
                    B[127.0.0.1] -> C[127.0.0.1]";
const GRAY: &str = "topic:TEST_MQ, producer:Cgray[127.0.0.1], invoke result:Agray[127.0.0.1] -> \
                    Bgray[127.0.0.1] -> Cgray[127.0.0.1]";
/// Base's copy of A with a gray message: what it calls is gray.
const GRAY_BY_BASE: &str = "topic:TEST_MQ, producer:Cgray[127.0.0.1], invoke \
                            result:A[127.0.0.1] -> Bgray[127.0.0.1] -> Cgray[127.0.0.1]";

fn rules(messages: &str) -> String {
    format!(
        "base: {{version: V1}}\n\
         lanes: [{{name: gray, version: V2}}]\n\
         rules: [{{name: canary, when: {{header: {{name: x-canary, equal: '1'}}}}}}]\n\
         messages: {messages}\n"
    )
}

struct Walk {
    chain: Chain,
    broker: RocketMq,
}

impl Walk {
    async fn start(kind: Kind, release: Release) -> anyhow::Result<Self> {
        let (chain, broker) = (Chain::start(kind, &[]).await?, RocketMq::start(release)?);
        Ok(Self { chain, broker })
    }

    fn deploy(&mut self, version: &'static str) -> anyhow::Result<()> {
        for role in ["a", "b", "c"] {
            self.chain.run(role, version, &["--mq", &self.broker.names()])?;
        }
        Ok(())
    }

    async fn rules(&self, messages: &str) -> anyhow::Result<()> {
        self.chain.server.publish("common-config.yaml", &rules(messages)).await
    }

    /// How often a copy of A has said each of the lines.
    fn said(&self, version: &'static str) -> anyhow::Result<[usize; 3]> {
        let printed = self.chain.services.get(&("a", version)).context("A")?.printed();
        Ok([BASE, GRAY, GRAY_BY_BASE].map(|line| printed.matches(line).count()))
    }

    /// Sends requests of both lanes, and waits until each copy of A has said so many more lines.
    async fn expect(&self, base: [usize; 3], gray: [usize; 3]) -> anyhow::Result<()> {
        let before = (self.said("V1")?, self.said("V2").unwrap_or_default());
        for gray in [false, true, false, true] {
            let way = self.chain.get("/A/dubbo", gray).await?;
            ensure!(way.contains("-> C"), "{way}");
        }
        let more =
            |now: [usize; 3], before: [usize; 3]| [0, 1, 2].map(|line| now[line] - before[line]);
        let same = async || {
            let now = (self.said("V1")?, self.said("V2").unwrap_or_default());
            let now = (more(now.0, before.0), more(now.1, before.1));
            let printed = self.chain.services.values().map(gray_tests::Process::printed);
            let printed = || printed.collect::<Vec<_>>().join("\n\n");
            ensure!(now == (base, gray), "{now:?}, not {:?}:\n{}", (base, gray), printed());
            Ok(())
        };
        eventually(PATIENCE, same).await?;
        // Nobody else comes late.
        tokio::time::sleep(Duration::from_secs(1)).await;
        same().await
    }

    /// How many messages both copies of A have handled, of base's and of gray's C.
    fn handled(&self) -> [usize; 2] {
        let copies = ["V1", "V2"].map(|version| self.chain.services.get(&("a", version)));
        let printed = copies.into_iter().flatten().map(gray_tests::Process::printed);
        let printed = printed.collect::<String>();
        ["C[", "Cgray["]
            .map(|producer| printed.matches(&format!("topic:TEST_MQ, producer:{producer}")).count())
    }

    /// Sends requests of both lanes, and waits until each message has been handled once, by anybody.
    async fn expect_once(&self) -> anyhow::Result<()> {
        let before = self.handled();
        for gray in [false, true, false, true] {
            self.chain.get("/A/dubbo", gray).await?;
        }
        let same = async || {
            let now = self.handled();
            let more = [now[0] - before[0], now[1] - before[1]];
            ensure!(more == [2, 2], "{more:?} handled, not two of each");
            Ok(())
        };
        eventually(PATIENCE, same).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        same().await
    }

    /// What `graylane mq` prints.
    fn mq(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(binary("graylane")?);
        command.arg("mq").args(arguments).args(["--names", &self.broker.names()]);
        let output = command.args(["--nacos", &self.chain.server.address()]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{:?}: {text}{said}", output.status);
        Ok(text)
    }

    /// Waits until `graylane mq status` shows these words.
    async fn status(&self, words: &[&str]) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let text = self.mq(&["status"])?;
            ensure!(words.iter().all(|word| text.contains(word)), "{text}");
            Ok(())
        })
        .await
    }
}

async fn the_walkthrough(kind: Kind, release: Release) -> anyhow::Result<()> {
    let mut walk = Walk::start(kind, release).await?;
    // Step two: the base environment only. A gray request is served by base, and so is its message.
    walk.rules("{ignoredLanes: []}").await?;
    walk.deploy("V1")?;
    eventually(PATIENCE, async || walk.chain.get("/A/dubbo", false).await).await?;
    walk.status(&["spring-cloud-a TEST_MQ", "state: steady", "consumer"]).await?;
    // Step four: gray is deployed, and base told to leave its messages alone.
    walk.rules("{ignoredLanes: [gray]}").await?;
    walk.deploy("V2")?;
    walk.status(&["spring-cloud-a_gray (lane gray, its consumers')", "of gray reads"]).await?;
    eventually(PATIENCE, async || walk.expect([2, 0, 0], [0, 2, 0]).await).await?;
    // Step five: base is to consume everything, at once and without a restart.
    walk.rules("{consumeMode: BASE}").await?;
    walk.status(&["(lane gray, base's)", "state: steady"]).await?;
    walk.expect([2, 0, 2], [0, 2, 0]).await?;
    // Each its own again, by who is alive; and an operator decides otherwise.
    walk.rules("{consumeMode: AUTO}").await?;
    walk.status(&["spring-cloud-a_gray (lane gray, its consumers')"]).await?;
    walk.expect([2, 0, 0], [0, 2, 0]).await?;
    let said = walk.mq(&["drain", "spring-cloud-a", "TEST_MQ", "gray"])?;
    ensure!(said.contains("done: what is produced in gray now is base's"), "{said}");
    walk.status(&["decided by an operator: gray is base's"]).await?;
    walk.expect([2, 0, 2], [0, 0, 0]).await?;
    walk.mq(&["open", "spring-cloud-a", "TEST_MQ", "gray"])?;
    walk.expect([2, 0, 0], [0, 2, 0]).await?;
    walk.mq(&["release", "spring-cloud-a", "TEST_MQ", "gray"])?;
    // Off, and on again, while everything runs.
    walk.rules("{consumeMode: \"OFF\"}").await?;
    walk.status(&["(lane gray, base's)", "state: steady"]).await?;
    walk.expect_once().await?;
    walk.rules("{consumeMode: AUTO}").await?;
    walk.status(&["spring-cloud-a_gray (lane gray, its consumers')"]).await?;
    walk.expect([2, 0, 0], [0, 2, 0]).await?;
    // Each copy's own page says what it did.
    let handled = |group: &str, lane: &str| {
        format!(
            "graylane_mq_messages_total{{topic=\"TEST_MQ\",group=\"{group}\",lane=\"{lane}\",outcome=\"handled\"}}"
        )
    };
    for (version, group, lane) in
        [("V1", "spring-cloud-a", "base"), ("V2", "spring-cloud-a_gray", "gray")]
    {
        let counted = walk.chain.counter(("a", version), &handled(group, lane)).await?;
        let said: usize = walk.said(version)?.iter().sum();
        ensure!(counted > 0 && counted <= u64::try_from(said)?, "{version}: {counted} of {said}");
    }
    Ok(())
}

/// A server that does not compare before it writes is refused, and it is said why.
async fn a_nacos_that_does_not_compare_is_refused(broker: &RocketMq) -> anyhow::Result<()> {
    let server = Nacos::start(Kind::Rnacos).await?;
    let mut command = Command::new(binary("graylane-demo")?);
    command.args(["a", "--nacos", &server.address(), "--mq", &broker.names()]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it started: {said}");
    ensure!(said.contains("does not compare before it writes"), "{said}");
    Ok(())
}

mod on_rocketmq_5 {
    use super::*;

    mod on_nacos {
        use super::*;

        #[tokio::test]
        async fn the_walkthrough() -> anyhow::Result<()> {
            super::super::the_walkthrough(Kind::Java, Release::Five).await
        }
    }

    mod on_rnacos {
        use super::*;

        #[tokio::test]
        async fn a_nacos_that_does_not_compare_is_refused() -> anyhow::Result<()> {
            let broker = RocketMq::start(Release::Five)?;
            super::super::a_nacos_that_does_not_compare_is_refused(&broker).await
        }
    }
}
