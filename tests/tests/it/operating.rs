//! `graylane mq` as an operator uses it, on a real broker and a real database.

mod ending;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gray_config::live;
use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    Attendance, Consumer, ConsumerProperties, Filter, Ledger, Message, MessageBroker,
    MessageSettings, MessageSink, Messaging, OwnStatus, Owner, QueueKey, Settings, SqlStore,
    StateStore, Subscription,
};
use gray_propagation::{GrayStatus, Lane, MessageCarrier};
use gray_tests::{
    Database, Gateway, Release, RocketMq as Server, Sql, binary, eventually, free_port,
};
use serde_json::Value;

const TOPIC: &str = "orders";
const GROUP: &str = "orders-svc";
const PATIENCE: Duration = Duration::from_mins(1);

struct Desk {
    server: Server,
    database: Database,
}

impl Desk {
    async fn start() -> anyhow::Result<Self> {
        Self::start_on(Server::start(Release::Five)?).await
    }

    async fn start_on(server: Server) -> anyhow::Result<Self> {
        let database = Database::start(Sql::Postgres)?;
        let admin = RocketMq::new(vec![server.names()]);
        eventually(PATIENCE, async || {
            ensure!(!admin.route("TBW102").await?.brokers.is_empty(), "no broker");
            let broker = admin.brokers().into_iter().next().context("no broker")?;
            admin.broker(&broker).await?.create_topic(TOPIC, 2).await?;
            ensure!(!admin.route(TOPIC).await?.brokers.is_empty(), "no topic");
            Ok(())
        })
        .await?;
        Ok(Self { server, database })
    }

    fn store(&self) -> anyhow::Result<Arc<dyn StateStore>> {
        Ok(Arc::new(SqlStore::open(&self.database.url())?))
    }

    fn consumer(&self, own: GrayStatus) -> anyhow::Result<Consumer> {
        let settings = MessageSettings::of_all(Settings::default(), [Lane::GRAY].into());
        let messaging = Messaging {
            application: "orders".to_owned(),
            own: OwnStatus::by(move || own),
            settings: live(settings).1,
            carrier: MessageCarrier::default(),
            store: self.store()?,
        };
        let properties = ConsumerProperties {
            group: GROUP.to_owned(),
            topics: vec![TOPIC.to_owned()],
            ..ConsumerProperties::default()
        };
        let cluster = Arc::new(RocketMq::new(vec![self.server.names()]));
        Ok(Consumer::start(cluster, messaging, properties, |_| async { Ok(()) })?)
    }

    /// Runs `graylane mq`; returns what it prints, and whether it went well.
    fn mq(&self, arguments: &[&str]) -> anyhow::Result<(String, bool)> {
        let (said, code) = self.ends(arguments)?;
        Ok((said, code == Some(0)))
    }

    /// Runs `graylane mq audit`; returns what it prints, and its exit code.
    fn audit(&self) -> anyhow::Result<(String, Option<i32>)> {
        self.ends(&["audit"])
    }

    /// Runs `graylane mq`; returns what it prints, where it fails also as an error, and its exit code.
    fn ends(&self, arguments: &[&str]) -> anyhow::Result<(String, Option<i32>)> {
        let mut command = Command::new(binary("graylane")?);
        command.arg("mq").args(arguments).args(["--names", &self.server.names()]);
        let output = command.args(["--state", &self.database.url()]).output()?;
        let good = output.status.success();
        let said = if good { output.stdout } else { [output.stdout, output.stderr].concat() };
        Ok((String::from_utf8_lossy(&said).into_owned(), output.status.code()))
    }

    /// Waits until an audit ends with this code, and says so.
    async fn audits(&self, expected: Option<i32>, part: &str) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let (text, code) = self.audit()?;
            ensure!(code == expected && text.contains(part), "{code:?} {text}");
            Ok(())
        })
        .await
    }

    /// Waits until the status of the topic is so.
    async fn status(&self, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        eventually(PATIENCE, async || {
            let (text, good) =
                self.mq(&["status", "--json", "--group", GROUP, "--topic", TOPIC])?;
            let all: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
            let status = all.get(0).with_context(|| text.clone())?;
            ensure!(good && is_so(status), "{text}");
            Ok(())
        })
        .await
    }
}

/// The owner of the lane, where the status tells of it.
fn owner(status: &Value) -> Option<&str> {
    let sides = status["sides"].as_array()?;
    sides.iter().find(|side| side["lane"] == "gray")?["owner"].as_str()
}

fn members(status: &Value) -> usize {
    status["members"].as_array().map_or(0, Vec::len)
}

async fn a_broker_that_is_gone_for_good_is_forgotten() -> anyhow::Result<()> {
    let desk = Desk::start().await?;
    let base = desk.consumer(GrayStatus::Prod)?;
    desk.status(|status| status["state"] == "steady" && members(status) == 1).await?;
    // A broker that was taken away while nobody looked has left a queue in the table.
    let ledger = Ledger::new(desk.store()?, GROUP, TOPIC);
    let gone = QueueKey { broker: "broker-gone".to_owned(), number: 0 };
    let add = |table: &mut gray_mq::Ownership| {
        table.add_queue(gone.clone());
        Ok::<_, std::convert::Infallible>(())
    };
    ledger.change(add).await?;
    let gray = desk.consumer(GrayStatus::Gray(Lane::GRAY))?;
    let waits = |status: &Value| {
        let unknown = status["unknown"].to_string();
        members(status) == 2 && unknown.contains("broker-gone") && owner(status) != Some("lane")
    };
    desk.status(waits).await?;
    // What is misspelt was said to be forgotten; what is there would be read anew as if nobody owned it.
    let there = RocketMq::new(vec![desk.server.names()]).queues(TOPIC).await?;
    let there = there.first().context("no queue")?.broker.clone();
    for (broker, why) in [("broker-gon", "no queue of broker"), (&*there, "it is not gone")] {
        let (text, code) = desk.ends(&["forget-broker", GROUP, TOPIC, broker])?;
        ensure!(code == Some(2) && text.contains(why) && text.contains(broker), "{code:?} {text}");
    }
    let (text, good) = desk.mq(&["forget-broker", GROUP, TOPIC, "broker-gone"])?;
    ensure!(good && text.contains("broker-gone is forgotten; 2 queues"), "{text}");
    desk.status(|status| owner(status) == Some("lane") && status["state"] == "steady").await?;
    gray.stop().await;
    desk.status(|status| owner(status) == Some("base")).await?;
    base.stop().await;
    Ok(())
}

/// An audit finds nothing where all is well, a consumer of another kind in the group, and messages for
/// which nobody is there.
async fn an_audit_finds_what_is_wrong() -> anyhow::Result<()> {
    let desk = Desk::start().await?;
    let base = desk.consumer(GrayStatus::Prod)?;
    let gray = desk.consumer(GrayStatus::Gray(Lane::GRAY))?;
    desk.status(|status| owner(status) == Some("lane") && status["state"] == "steady").await?;
    let audits = async |code: Option<i32>, part: &str| desk.audits(code, part).await;
    audits(Some(0), "all is well with 1 topics").await?;

    // As a Java consumer does it: it says that it is there, and registers nowhere else.
    let brokers = RocketMq::new(vec![desk.server.names()]);
    let subscription =
        Subscription { topic: TOPIC.to_owned(), filter: Filter::default(), version: 1 };
    let attendance = Attendance {
        client: "10.0.0.9@4711#java",
        group: GROUP,
        subscriptions: &[subscription],
        limit: Duration::from_secs(3),
    };
    eventually(PATIENCE, async || {
        ensure!(!brokers.attend(&attendance).await.is_empty(), "no broker has answered");
        Ok(())
    })
    .await?;
    audits(Some(2), "10.0.0.9@4711#java consumes without being registered").await?;
    brokers.leave("10.0.0.9@4711#java", GROUP).await;
    audits(Some(0), "all is well").await?;

    // Its lane stays its own, by an operator's word, and messages come.
    let (text, good) = desk.mq(&["open", GROUP, TOPIC, "gray"])?;
    ensure!(good, "{text}");
    gray.stop().await;
    let message = Message::new(TOPIC, "for gray").with("gray", "GRAY");
    let queues = brokers.writable(TOPIC).await?;
    let queue = queues.first().context("no queue")?;
    brokers.send("operators", &message, queue).await?;
    audits(Some(1), "orders-svc_gray has no consumer, and at most 1 messages wait for one").await?;
    audits(Some(1), "give gray to base with `graylane mq drain`").await?;

    // A broker that has lost messages, by what a table knows of it.
    let queues = brokers.queues(TOPIC).await?;
    let switched = |table: &mut gray_mq::Ownership| {
        queues.iter().cloned().for_each(|queue| table.add_queue(queue));
        table.request(Lane::GRAY, Owner::Lane);
        table.fence(&queues.iter().map(|queue| (queue.clone(), 100)).collect())
    };
    Ledger::new(desk.store()?, "another", TOPIC).change(switched).await?;
    audits(Some(2), "before the last fence of gray at 100: the broker has lost messages").await?;
    base.stop().await;
    Ok(())
}

/// A consumer whose filter its broker refuses says that it is there. It was to be started, by the audit's word,
/// or all was well.
async fn an_audit_tells_of_a_filter_that_is_refused() -> anyhow::Result<()> {
    let desk = Desk::start_on(Server::start_with(Release::Five, false)?).await?;
    let base = desk.consumer(GrayStatus::Prod)?;
    desk.audits(Some(0), "all is well with 1 topics").await?;
    let gray = desk.consumer(GrayStatus::Gray(Lane::GRAY))?;
    let said = format!("{}@gray of gray is there and does not read {TOPIC}", gray.client());
    desk.audits(Some(1), &said).await?;
    desk.audits(Some(1), "set enablePropertyFilter=true in its broker.conf").await?;
    // Base has seen that there are gray consumers; messages wait for them.
    desk.status(|status| owner(status) == Some("lane") && status["state"] == "steady").await?;
    let brokers = RocketMq::new(vec![desk.server.names()]);
    let message = Message::new(TOPIC, "for gray").with("gray", "GRAY");
    let queues = brokers.writable(TOPIC).await?;
    brokers.send("operators", &message, queues.first().context("no queue")?).await?;
    desk.audits(Some(1), "1 are in the group and do not read it (notReading)").await?;
    let (text, _) = desk.audit()?;
    ensure!(!text.contains("start one") && !text.contains("stranger"), "{text}");
    let (text, good) = desk.mq(&["status"])?;
    ensure!(good && text.contains("NOT READING: "), "{text}");
    gray.stop().await;
    base.stop().await;
    Ok(())
}

/// A release has come and gone: who stays to read what the lane has left behind is no stranger.
async fn an_audit_after_a_release_finds_nothing() -> anyhow::Result<()> {
    let desk = Desk::start().await?;
    let base = desk.consumer(GrayStatus::Prod)?;
    let gray = desk.consumer(GrayStatus::Gray(Lane::GRAY))?;
    desk.status(|status| owner(status) == Some("lane") && status["state"] == "steady").await?;
    gray.stop().await;
    desk.status(|status| owner(status) == Some("base") && status["state"] == "steady").await?;
    let brokers = RocketMq::new(vec![desk.server.names()]);
    eventually(PATIENCE, async || {
        brokers.queues(TOPIC).await?;
        let listed = brokers.listed(&format!("{GROUP}_gray"), &brokers.brokers()).await?;
        ensure!(listed.iter().any(|client| client.ends_with("~drain")), "{listed:?}");
        // It reads what was left until there is nothing, and goes on reading retries.
        let (status, _) = desk.mq(&["status", "--json", "--group", GROUP, "--topic", TOPIC])?;
        ensure!(!status.contains("~drain"), "{status}");
        let (text, code) = desk.audit()?;
        ensure!(code == Some(0) && text.contains("all is well"), "{code:?} {text}");
        Ok(())
    })
    .await?;
    base.stop().await;
    Ok(())
}

/// Sends a question or an order to the page of a gateway.
async fn ask(
    gateway: &Gateway,
    method: &str,
    path: &str,
    body: &str,
    origin: Option<&str>,
) -> anyhow::Result<(u16, Value)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/api/v1/messages{path}", gateway.admin);
    let request = client.request(method.parse()?, url).header("content-type", "application/json");
    let request = origin.into_iter().fold(request, |it, origin| it.header("origin", origin));
    let answer = request.body(body.to_owned()).send().await?;
    let (status, text) = (answer.status().as_u16(), answer.text().await?);
    Ok((status, serde_json::from_str(&text).with_context(|| text.clone())?))
}

/// What `graylane mq` says and does can be had from the page of a gateway, which decides nothing unless
/// it is made writable, and nothing that a page in a browser asks for.
async fn the_page_of_a_gateway_says_and_decides_the_same() -> anyhow::Result<()> {
    let desk = Desk::start().await?;
    let base = desk.consumer(GrayStatus::Prod)?;
    desk.status(|status| status["state"] == "steady" && members(status) == 1).await?;
    let start = |more: &str| {
        Gateway::start(&format!(
            "routes: [{{service: app}}]\n{more}messages: {{rocketmq: ['{}'], state: '{}'}}\n",
            desk.server.names(),
            desk.database.url()
        ))
    };
    let order = |group: &str, to: &str| {
        format!(r#"{{"group": "{group}", "topic": "{TOPIC}", "lane": "gray", "to": "{to}"}}"#)
    };
    let readable = start("")?;
    let (status, answer) = ask(&readable, "POST", "/switch", &order(GROUP, "lane"), None).await?;
    ensure!(status == 403 && answer["error"].to_string().contains("admin.writable"), "{answer}");
    ensure!(!readable.ask("/api/v1/config").await?.contains("postgres://"), "a password is shown");

    let page = start("admin: {address: '127.0.0.1:0', writable: true}\n")?;
    let (status, answer) = ask(&page, "GET", "", "", None).await?;
    ensure!(status == 200 && answer["topics"][0]["members"][0]["listed"] == true, "{answer}");
    ensure!(answer["topics"][0]["sides"][0]["group"] == GROUP, "{answer}");
    let (_, answer) = ask(&page, "GET", "?group=another", "", None).await?;
    ensure!(answer["topics"] == serde_json::json!([]), "{answer}");
    let (_, answer) = ask(&page, "GET", "/audit", "", None).await?;
    ensure!(answer == serde_json::json!({ "topics": 1, "findings": [] }), "{answer}");

    for (body, origin, expected) in [
        (order(GROUP, "lane"), Some("http://evil.example"), 403),
        (order("order-svc", "lane"), None, 404),
        (order(GROUP, "nobody"), None, 400),
        (order(GROUP, "lane").replace("gray", "team_a"), None, 400),
        // Nobody has consumed in it yet.
        (order(GROUP, "lane"), None, 404),
        (order(GROUP, "lane").replace('}', r#", "new": true}"#), None, 202),
    ] {
        let (status, answer) = ask(&page, "POST", "/switch", &body, origin).await?;
        ensure!(status == expected, "{body}: {status} {answer}");
    }
    desk.status(|status| owner(status) == Some("lane") && status["state"] == "steady").await?;
    ask(&page, "POST", "/switch", &order(GROUP, "rules"), None).await?;
    desk.status(|status| owner(status) == Some("base") && status["state"] == "steady").await?;
    base.stop().await;
    Ok(())
}

/// Without brokers, and without a store that answers, the page says what is missing.
#[tokio::test]
async fn the_page_says_what_is_missing() -> anyhow::Result<()> {
    let without = Gateway::start("routes: [{service: app}]\n")?;
    let (status, answer) = ask(&without, "GET", "", "", None).await?;
    ensure!(status == 404 && answer["error"].to_string().contains("messages.rocketmq"), "{answer}");
    let nobody = free_port(&[1000]);
    let away = Gateway::start(&format!(
        "routes: [{{service: app}}]\nmessages: {{rocketmq: ['127.0.0.1:{nobody}'], \
         state: 'postgres://x:hush@127.0.0.1:{nobody}/x'}}\n"
    ))?;
    let (status, answer) = ask(&away, "GET", "/audit", "", None).await?;
    ensure!(status == 503 && !answer.to_string().contains("hush"), "{status} {answer}");
    Ok(())
}

async fn what_is_misspelt_changes_nothing() -> anyhow::Result<()> {
    let desk = Desk::start().await?;
    let (text, good) = desk.mq(&["status"])?;
    ensure!(!good && text.contains("no consumer has registered yet"), "{text}");
    // Another database, or another namespace: nothing is known to be well.
    let (text, code) = desk.audit()?;
    ensure!(code == Some(1) && text.contains("no consumer has registered yet"), "{code:?} {text}");
    let base = desk.consumer(GrayStatus::Prod)?;
    desk.status(|status| members(status) == 1).await?;
    let (text, good) = desk.mq(&["status", "--group", "order-svc"])?;
    ensure!(!good && text.contains(&format!("there are: {GROUP} {TOPIC}")), "{text}");
    let (text, good) = desk.mq(&["drain", "order-svc", TOPIC, "gray"])?;
    ensure!(!good && text.contains(&format!("there are: {GROUP} {TOPIC}")), "{text}");
    let (text, good) = desk.mq(&["drain", GROUP, TOPIC, "no lane"])?;
    ensure!(!good && text.contains("no lane"), "{text}");
    // It once was done at once, and `gray` was not drained.
    let gray = desk.consumer(GrayStatus::Gray(Lane::GRAY))?;
    desk.status(|status| members(status) == 2).await?;
    for what in ["drain", "open"] {
        let (text, good) = desk.mq(&[what, GROUP, TOPIC, "grey"])?;
        let near = "nobody has consumed in lane grey yet; did you mean `gray`?";
        ensure!(!good && text.contains(near), "{what}: {text}");
    }
    let (text, good) = desk.mq(&["drain", GROUP, TOPIC, "grey", "--new"])?;
    ensure!(good && text.contains("done"), "{text}");
    gray.stop().await;
    base.stop().await;
    Ok(())
}

mod on_rocketmq_5 {
    mod on_postgresql {
        #[tokio::test]
        async fn a_broker_that_is_gone_for_good_is_forgotten() -> anyhow::Result<()> {
            super::super::a_broker_that_is_gone_for_good_is_forgotten().await
        }

        #[tokio::test]
        async fn an_audit_finds_what_is_wrong() -> anyhow::Result<()> {
            super::super::an_audit_finds_what_is_wrong().await
        }

        #[tokio::test]
        async fn an_audit_tells_of_a_filter_that_is_refused() -> anyhow::Result<()> {
            super::super::an_audit_tells_of_a_filter_that_is_refused().await
        }

        #[tokio::test]
        async fn an_audit_after_a_release_finds_nothing() -> anyhow::Result<()> {
            super::super::an_audit_after_a_release_finds_nothing().await
        }

        #[tokio::test]
        async fn the_page_of_a_gateway_says_and_decides_the_same() -> anyhow::Result<()> {
            super::super::the_page_of_a_gateway_says_and_decides_the_same().await
        }

        #[tokio::test]
        async fn what_is_misspelt_changes_nothing() -> anyhow::Result<()> {
            super::super::what_is_misspelt_changes_nothing().await
        }
    }
}
