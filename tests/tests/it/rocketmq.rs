//! The client of RocketMQ on Apache's own servers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_mq::rocketmq::{Broker, Connection, RocketMqError, route};
use gray_mq::{
    Attendance, Filter, Message, PullRequest, Pulled, QueueKey, ReceivedMessage, Subscription,
    Unreadable,
};
use gray_tests::{Release, RocketMq, eventually};

const LIMIT: Duration = Duration::from_secs(5);
const TOPIC: &str = "orders";
const GROUP: &str = "orders-svc";

/// A broker with a topic of two queues.
struct System {
    server: RocketMq,
    broker: Broker,
}

impl System {
    async fn start(release: Release) -> anyhow::Result<Self> {
        let server = RocketMq::start(release)?;
        let broker = connect(&server).await?;
        broker.create_topic(TOPIC, 2).await?;
        Ok(Self { server, broker })
    }

    /// Sends a message of a lane, or of none.
    async fn send(&self, queue: u32, lane: Option<&str>, body: &str) -> anyhow::Result<u64> {
        let mut properties = BTreeMap::from([("KEYS".to_owned(), body.to_owned())]);
        properties.extend(lane.map(|lane| ("gray".to_owned(), lane.to_owned())));
        let body = body.to_owned().into();
        let message = Message { topic: TOPIC.to_owned(), properties, body };
        let receipt = self.broker.send("producers", &message, queue).await?;
        ensure!(receipt.queue.number == queue, "{receipt:?}");
        Ok(receipt.offset)
    }

    async fn pull(
        &self,
        topic: &str,
        offset: u64,
        filter: &Filter,
    ) -> Result<Pulled, RocketMqError> {
        let wait = Duration::from_millis(500);
        let queue = &QueueKey { broker: self.broker.name().to_owned(), number: 0 };
        let pull = PullRequest { group: GROUP, topic, queue, offset, count: 32, wait, filter };
        self.broker.pull(&pull).await
    }

    /// Asks the broker about an SQL filter.
    async fn check(&self, sql: &str) -> Result<(), RocketMqError> {
        let (topic, filter) = (TOPIC.to_owned(), Filter::Sql(sql.to_owned()));
        self.broker.check("one@1", GROUP, &Subscription { topic, filter, version: 1 }).await
    }

    async fn bodies(&self, filter: &Filter) -> anyhow::Result<Vec<String>> {
        let pulled = self.pull(TOPIC, 0, filter).await?;
        let body = |message: &ReceivedMessage| {
            String::from_utf8(message.body.to_vec()).unwrap_or_default()
        };
        Ok(pulled.messages.iter().map(body).collect())
    }
}

/// Finds the broker by its name server, and connects to it.
async fn connect(server: &RocketMq) -> anyhow::Result<Broker> {
    let names = Connection::open(&server.names(), LIMIT).await?;
    eventually(Duration::from_secs(20), async || {
        // Every broker has this topic.
        let found = route(&names, "TBW102").await?.context("no route")?;
        let (name, (address, ..)) = found.brokers.into_iter().next().context("no broker")?;
        Ok(Broker::new(name, Connection::open(&address, LIMIT).await?))
    })
    .await
}

fn everything() -> Filter {
    Filter::Tags("*".to_owned())
}

async fn messages_are_sent_pulled_and_committed(release: Release) -> anyhow::Result<()> {
    let system = System::start(release).await?;
    let names = Connection::open(&system.server.names(), LIMIT).await?;
    ensure!(route(&names, "nobody-knows-it").await?.is_none(), "a route to nowhere");
    for (number, lane) in [None, Some("GRAY"), None, Some("GRAY")].into_iter().enumerate() {
        let offset = system.send(0, lane, &format!("m{number}")).await?;
        ensure!(offset == u64::try_from(number)?, "{offset}");
    }
    let pulled = system.pull(TOPIC, 1, &everything()).await?;
    let of = |it: &ReceivedMessage| (it.offset, it.queue.number, it.body.to_vec());
    let seen: Vec<_> = pulled.messages.iter().map(of).collect();
    let expected = [(1, 0, b"m1".to_vec()), (2, 0, b"m2".to_vec()), (3, 0, b"m3".to_vec())];
    ensure!(seen == expected, "{pulled:?}");
    ensure!((pulled.next, pulled.end) == (4, 4), "{pulled:?}");
    ensure!(pulled.messages[0].properties["gray"] == "GRAY", "{pulled:?}");
    let empty = system.pull(TOPIC, 4, &everything()).await?;
    ensure!((empty.next, empty.messages.len()) == (4, 0), "{empty:?}");
    let beyond = system.pull(TOPIC, 99, &everything()).await?;
    ensure!((beyond.next, beyond.end, beyond.messages.len()) == (4, 4, 0), "{beyond:?}");

    let broker = &system.broker;
    ensure!(broker.max_offset(TOPIC, 0).await? == 4 && broker.min_offset(TOPIC, 0).await? == 0);
    ensure!(broker.max_offset(TOPIC, 1).await? == 0);
    let never = broker.committed(GROUP, TOPIC, 0).await?;
    ensure!(never == (release == Release::Four).then_some(0), "{never:?}, committed by nobody");
    broker.commit(GROUP, TOPIC, 0, 3).await?;
    ensure!(broker.committed(GROUP, TOPIC, 0).await? == Some(3));
    // A broker accepts what is out of date: nobody may rely on it to refuse.
    broker.commit(GROUP, TOPIC, 0, 2).await?;
    ensure!(broker.committed(GROUP, TOPIC, 0).await? == Some(2));
    Ok(())
}

async fn the_broker_filters_by_property(release: Release) -> anyhow::Result<()> {
    let system = System::start(release).await?;
    for (lane, body) in [(None, "a"), (Some("GRAY"), "b"), (Some("blue"), "c")] {
        system.send(0, lane, body).await?;
    }
    let sql = |text: &str| Filter::Sql(text.to_owned());
    ensure!(system.bodies(&sql("gray in ('GRAY')")).await? == ["b"]);
    ensure!(system.bodies(&sql("(gray not in ('GRAY')) or (gray is null)")).await? == ["a", "c"]);
    ensure!(system.broker.setting("enablePropertyFilter").await?.as_deref() == Some("true"));

    let server = RocketMq::start_with(release, false)?;
    let broker = connect(&server).await?;
    ensure!(broker.setting("enablePropertyFilter").await?.as_deref() == Some("false"));
    broker.create_topic(TOPIC, 2).await?;
    let unfit = System { server, broker };
    let pulled = unfit.pull(TOPIC, 0, &sql("gray in ('GRAY')")).await;
    let checked = unfit.check("gray in ('GRAY')").await;
    for refused in [pulled.map(drop), checked] {
        let text = refused.map_or_else(|error| error.to_string(), |()| "accepted".to_owned());
        ensure!(text.contains("set enablePropertyFilter=true in its broker.conf"), "{text}");
    }
    Ok(())
}

/// Brokers would leave nothing out of a pull: they are asked beforehand, whether or not the consumer has.
async fn a_filter_that_cannot_be_read_is_refused(release: Release) -> anyhow::Result<()> {
    let system = System::start(release).await?;
    system.check("(color = 'red') and (gray in ('GRAY'))").await?;
    for wrong in ["gray ===", "gray in ("] {
        let refused = system.check(wrong).await;
        ensure!(matches!(refused, Err(RocketMqError::Refused { code: 23, .. })), "{refused:?}");
        let pulled = system.pull(TOPIC, 0, &Filter::Sql(wrong.to_owned())).await;
        ensure!(matches!(pulled, Err(RocketMqError::Refused { code: 23, .. })), "{pulled:?}");
    }
    Ok(())
}

/// Whatever has become of it at the broker: a queue must not stand still because of it.
async fn what_the_broker_has_lost_comes_back_all_the_same(release: Release) -> anyhow::Result<()> {
    let system = System::start(release).await?;
    let (broker, retries) = (&system.broker, format!("%RETRY%{GROUP}"));
    let subscriptions = [TOPIC, &retries].map(|topic| Subscription {
        topic: topic.to_owned(),
        filter: everything(),
        version: 1,
    });
    let (client, limit) = ("one@1", LIMIT);
    let heartbeat = Attendance { client, group: GROUP, subscriptions: &subscriptions, limit };
    broker.heartbeat(&heartbeat).await?;
    system.send(0, Some("GRAY"), "lost").await?;
    let pulled = system.pull(TOPIC, 0, &everything()).await?;
    let mut message = pulled.messages.into_iter().next().context("no message")?;
    message.position = i64::MAX / 2;
    message.attempts = 1;
    message.flag = 77;
    // As if its producer had said that the body is packed by zlib.
    let unreadable = Some(Unreadable { why: "it is not".to_owned(), packing: 1 });
    let damaged = ReceivedMessage { unreadable, ..message.clone() };
    broker.send_back(GROUP, &message, 0, 16).await?;
    broker.send_back(GROUP, &damaged, 0, 16).await?;
    // The delay of a second attempt is half a minute.
    let again = eventually(Duration::from_mins(1), async || {
        let pulled = system.pull(&retries, 0, &everything()).await?;
        ensure!(pulled.messages.len() == 2, "no retries yet: {pulled:?}");
        Ok(pulled.messages)
    })
    .await?;
    for again in &again {
        ensure!(
            (again.attempts, again.flag, again.born_at) == (2, 77, message.born_at),
            "{again:?}"
        );
        ensure!((again.topic.as_str(), &*again.properties["gray"]) == (TOPIC, "GRAY"), "{again:?}");
        ensure!(&*again.body == b"lost", "{again:?}");
    }
    let packing = again.iter().map(|it| it.unreadable.as_ref().map(|it| it.packing));
    ensure!(packing.collect::<Vec<_>>() == [None, Some(1)], "{again:?}");

    // Nor does it come for ever.
    message.attempts = 16;
    broker.send_back(GROUP, &message, 0, 16).await?;
    let aside = format!("%DLQ%{GROUP}");
    let put_aside = eventually(Duration::from_secs(20), async || {
        let pulled = system.pull(&aside, 0, &everything()).await?;
        pulled.messages.into_iter().next().context("not put aside")
    })
    .await?;
    ensure!(put_aside.properties["gray"] == "GRAY", "{put_aside:?}");
    Ok(())
}

async fn members_are_listed_and_retries_come_back(release: Release) -> anyhow::Result<()> {
    let system = System::start(release).await?;
    let broker = &system.broker;
    ensure!(broker.consumers(GROUP).await?.is_empty(), "somebody is there");
    let retries = format!("%RETRY%{GROUP}");
    let subscription = |topic: &str| {
        let (topic, filter) = (topic.to_owned(), everything());
        Subscription { topic, filter, version: 1 }
    };
    let subscriptions = [subscription(TOPIC), subscription(&retries)];
    let limit = LIMIT;
    let heartbeat =
        Attendance { client: "one@1", group: GROUP, subscriptions: &subscriptions, limit };
    broker.heartbeat(&heartbeat).await?;
    ensure!(broker.consumers(GROUP).await? == ["one@1"]);

    system.send(0, Some("GRAY"), "again").await?;
    let pulled = system.pull(TOPIC, 0, &everything()).await?;
    let message = pulled.messages.first().context("no message")?;
    broker.send_back(GROUP, message, 1, 16).await?;
    let again = eventually(Duration::from_secs(20), async || {
        let pulled = system.pull(&retries, 0, &everything()).await?;
        pulled.messages.into_iter().next().context("no retry yet")
    })
    .await?;
    ensure!(again.attempts == 1 && &*again.body == b"again", "{again:?}");
    ensure!(again.properties["RETRY_TOPIC"] == TOPIC, "{again:?}");
    // The tag goes the whole way round.
    ensure!(again.properties["gray"] == "GRAY", "{again:?}");

    broker.leave("one@1", GROUP).await?;
    ensure!(broker.consumers(GROUP).await?.is_empty(), "it is still there");
    Ok(())
}

async fn a_killed_broker_is_told_from_a_silent_one(release: Release) -> anyhow::Result<()> {
    let mut system = System::start(release).await?;
    let offset = system.send(0, None, "kept").await?;
    system.server.kill();
    let lost = system.pull(TOPIC, offset, &everything()).await;
    ensure!(matches!(lost, Err(RocketMqError::Broken { .. })), "{lost:?}");
    ensure!(system.broker.is_broken());
    system.server.run()?;
    system.broker = connect(&system.server).await?;
    ensure!(system.bodies(&everything()).await? == ["kept"]);
    Ok(())
}

on_each_rocketmq!(
    messages_are_sent_pulled_and_committed,
    the_broker_filters_by_property,
    a_filter_that_cannot_be_read_is_refused,
    what_the_broker_has_lost_comes_back_all_the_same,
    members_are_listed_and_retries_come_back,
    a_killed_broker_is_told_from_a_silent_one,
);
