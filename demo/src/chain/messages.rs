use std::sync::Arc;
use std::time::Duration;

use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    Consumer, ConsumerError, ConsumerProperties, Message, Messaging, Producer, StateStore,
};

use super::Link;

/// The topic of the original.
const TOPIC: &str = "TEST_MQ";

/// The consumer group of A.
const GROUP: &str = "spring-cloud-a";

/// The brokers that the chain sends its messages over, and where it is kept whose they are.
#[derive(Clone, Debug)]
pub struct Messages {
    /// The name servers.
    names: Vec<String>,
    /// The brokers, as those who produce share them.
    pub broker: Arc<RocketMq>,
    /// The state store.
    pub store: Arc<dyn StateStore>,
    /// How often the consumer looks at the state.
    pub poll: Duration,
    /// After what time a consumer is gone that its brokers do not list.
    pub lease: Duration,
}

impl Messages {
    /// Messages over the brokers of these name servers.
    pub fn new(names: Vec<String>, store: Arc<dyn StateStore>) -> Self {
        let ConsumerProperties { poll, lease, .. } = ConsumerProperties::default();
        let broker = Arc::new(RocketMq::new(names.clone()));
        Self { names, broker, store, poll, lease }
    }

    /// Makes C produce a message on each call.
    pub async fn produce(&self, link: &mut Link) {
        let messaging = Messaging::of(&link.starter, Arc::clone(&self.store)).await;
        link.producer = Some(Producer::new(Arc::clone(&self.broker), messaging, "spring-cloud-c"));
    }

    /// Makes A consume these messages: for each it calls B, which calls C, and says where that went.
    ///
    /// # Errors
    ///
    /// Where A is in a lane that there can be no consumer group for.
    pub async fn consume(&self, link: Link) -> Result<Consumer, ConsumerError> {
        let messaging = Messaging::of(&link.starter, Arc::clone(&self.store)).await;
        let properties = ConsumerProperties {
            group: GROUP.to_owned(),
            topics: vec![TOPIC.to_owned()],
            poll: self.poll,
            lease: self.lease,
            ..ConsumerProperties::default()
        };
        // In a demo several copies of A are in one process; of a group one may consume over the same connections.
        let broker = Arc::new(RocketMq::new(self.names.clone()));
        Consumer::start(broker, messaging, properties, move |delivery| {
            let link = link.clone();
            async move {
                let producer = String::from_utf8_lossy(&delivery.message.body).into_owned();
                let way = link.over_http("mq").await?;
                tracing::info!("topic:{TOPIC}, producer:{producer}, invoke result:{way}");
                Ok(())
            }
        })
    }
}

/// Says by a message who has been called.
pub(super) async fn tell(producer: &Producer<RocketMq>, name: &str) -> anyhow::Result<()> {
    producer.send(Message::new(TOPIC, name.to_owned())).await?;
    Ok(())
}
