use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::{Core, Role};
use super::place::Place;
use crate::{Attendance, Filter, MessageBroker, Subscription};

/// How many heartbeats are sent while a lease lasts.
const BEATS: u32 = 10;

/// How often a broker is told at least; it closes connections that it has not heard on.
const SLOWEST: Duration = Duration::from_secs(10);

/// Says to all brokers that this consumer is there, for as long as it is polled, and tells its places
/// who has answered.
pub(super) async fn attend<B: MessageBroker>(
    core: Arc<Core<B>>,
    role: Arc<Role>,
    places: Vec<Arc<Place>>,
) {
    let every = (core.properties.lease / BEATS).min(SLOWEST);
    let subscriptions = subscriptions(&core, &role);
    loop {
        let attendance = Attendance {
            client: &role.client,
            group: &role.group,
            subscriptions: &subscriptions,
            // One that is silent must not keep the others from hearing of it in time.
            limit: core.properties.lease / 4,
        };
        let answered = core.broker.attend(&attendance).await;
        let now = Instant::now();
        for place in &places {
            place.heard(&answered, now);
        }
        tokio::time::sleep(every).await;
    }
}

fn subscriptions<B: MessageBroker>(core: &Core<B>, role: &Role) -> Vec<Subscription> {
    let filter = core.filter(role.side);
    let version = core.version;
    let subscription =
        |topic: &String| Subscription { topic: topic.clone(), filter: filter.clone(), version };
    let own = role.topics.iter().map(subscription);
    let retries = core.broker.retry_topic(&role.group);
    let retries = retries.map(|topic| Subscription { topic, filter: Filter::default(), version });
    own.chain(retries).collect()
}
