use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::attendance::attend;
use super::core::{Core, Role};
use super::membership::Membership;
use super::place::Place;
use super::reader::Topic;
use crate::{Filter, MessageBroker, Side};

/// One consumer of one group, as brokers see it, while it runs.
#[derive(Debug)]
pub(super) struct Engine {
    stop: CancellationToken,
    /// Everything that it does; it ends by itself once it is stopped.
    run: JoinSet<()>,
}

impl Engine {
    /// Starts to read as this consumer.
    pub(super) fn start<B: MessageBroker>(core: &Arc<Core<B>>, role: Role) -> Self {
        let stop = CancellationToken::new();
        let mut run = JoinSet::new();
        run.spawn(consume(Arc::clone(core), Arc::new(role), stop.clone()));
        Self { stop, run }
    }

    /// Stops reading; what is being handled is finished within the time that it may take.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.run.join_next().await.is_some() {}
    }
}

async fn consume<B: MessageBroker>(core: Arc<Core<B>>, role: Arc<Role>, stop: CancellationToken) {
    let (group, client) = (Arc::clone(&role.group), Arc::clone(&role.client));
    info!(%group, %client, topics = ?role.topics, "consuming");
    let mut places = Vec::new();
    let mut members = JoinSet::new();
    for topic in topics(&core, &role) {
        let place = Arc::new(Place::new(topic.side, core.properties.lease));
        places.push(Arc::clone(&place));
        let member = Membership::new(Arc::clone(&core), Arc::clone(&role), topic, place);
        members.spawn(member.run(stop.clone()));
    }
    let present = async {
        while let Some(ended) = members.join_next().await {
            if let Err(error) = ended {
                warn!(%group, %error, "a consumer failed");
            }
        }
    };
    // Brokers have to list it for as long as it may handle anything.
    tokio::select! {
        () = attend(Arc::clone(&core), Arc::clone(&role), places) => {}
        () = present => {}
    }
    core.broker.leave(&client, &group).await;
    info!(%group, %client, "not consuming any more");
}

fn topics<B: MessageBroker>(core: &Core<B>, role: &Role) -> Vec<Topic> {
    let (side, filter) = (role.side, core.filter(role.side));
    let topic = |name: &String| {
        let name = name.clone();
        Topic { name, side, filter: filter.clone(), is_retry: false }
    };
    let own = role.topics.iter().map(topic);
    let retries = core.broker.retry_topic(&role.group).map(|name| Topic {
        name,
        side: Side::Base,
        filter: Filter::default(),
        is_retry: true,
    });
    own.chain(retries).collect()
}
