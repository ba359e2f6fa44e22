//! How one message is handled, in its own lane, until it is done or given back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{FutureExt, pending};
use gray_propagation::{Context, Lane, MessageCarrier, scope};
use tracing::warn;

use super::core::{Core, Delivery, Order, Role};
use super::counts::Outcome;
use super::place::Place;
use crate::{MessageBroker, ReceivedMessage};

/// How long it takes until what failed is tried again, at first and at most.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A message that was pulled, with the context that it was produced in.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) message: Arc<ReceivedMessage>,
    context: Arc<Context>,
}

impl Arrived {
    pub(super) fn new(message: ReceivedMessage, carrier: &MessageCarrier) -> Self {
        let context = carrier.extract(&message.properties).into();
        Self { message: Arc::new(message), context }
    }

    /// The lane that it was produced in; none for base.
    pub(super) fn lane(&self) -> Option<Lane> {
        self.context.status.lane().copied()
    }
}

/// How long to wait after so many failures: longer each time, and not all at the same moment.
pub(super) fn backoff(failures: u32) -> Duration {
    let most = PAUSE.0.saturating_mul(1 << failures.min(10)).min(PAUSE.1);
    most.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

/// Handles a message until it is done, or somebody else will do it: it was given back.
pub(super) async fn handle_until_done<B: MessageBroker>(
    core: &Core<B>,
    role: &Role,
    place: &Place,
    arrived: &Arrived,
) -> Outcome {
    match handle_once(core, role, arrived).await {
        Ok(()) => Outcome::Handled,
        // It is rare, and in one piece with the rest would make every message's task large.
        Err(error) => Box::pin(after_failure(core, role, place, arrived, error)).await,
    }
}

/// Tries again where the order asks for it, and gives the message back in the end.
async fn after_failure<B: MessageBroker>(
    core: &Core<B>,
    role: &Role,
    place: &Place,
    arrived: &Arrived,
    mut error: String,
) -> Outcome {
    let message = &arrived.message;
    let in_order = core.properties.order == Order::Queue;
    let mut attempt = 1;
    loop {
        let (group, topic, offset) = (&role.group, &message.topic, message.offset);
        warn!(%group, topic, offset, error, "a message could not be handled, it comes again");
        if !in_order || attempt >= core.properties.attempts {
            give_back(core, role, place, message).await;
            return Outcome::GivenBack;
        }
        attempt += 1;
        tokio::time::sleep(PAUSE.1 / 2).await;
        match handle_once(core, role, arrived).await {
            Ok(()) => return Outcome::Handled,
            Err(again) => error = again,
        }
    }
}

async fn give_back<B: MessageBroker>(
    core: &Core<B>,
    role: &Role,
    place: &Place,
    message: &ReceivedMessage,
) {
    let mut failures = 0;
    while let Err(error) =
        core.broker.give_back(&role.group, message, core.properties.attempts).await
    {
        failures += 1;
        if failures == 1 {
            let (group, topic, offset) = (&role.group, &message.topic, message.offset);
            warn!(%group, topic, offset, %error, "a message cannot be given back, trying again");
        }
        if !place.is_held() {
            // Whoever reads the queue next gets it again, since nothing is committed any more.
            pending::<()>().await;
        }
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Handles a message in its own lane. A panic is an error like others.
async fn handle_once<B: MessageBroker>(
    core: &Core<B>,
    role: &Role,
    arrived: &Arrived,
) -> Result<(), String> {
    if let Some(unreadable) = &arrived.message.unreadable {
        return Err(unreadable.why.clone());
    }
    let _permit = core.permits.acquire().await;
    let (message, group) = (Arc::clone(&arrived.message), Arc::clone(&role.group));
    let delivery = Delivery { message, group, side: role.side };
    // A handler may panic before its future is there.
    let handled = async { (core.handle)(delivery).await.map_err(|error| error.to_string()) };
    let handled = AssertUnwindSafe(scope(Arc::clone(&arrived.context), handled)).catch_unwind();
    let mut handled = std::pin::pin!(handled);
    let limit = core.properties.limit;
    // A handler that waits for nothing is over before a timer would be set.
    let over = match futures_util::poll!(handled.as_mut()) {
        Poll::Ready(handled) => Ok(handled),
        Poll::Pending => tokio::time::timeout(limit, handled).await,
    };
    match over {
        Ok(Ok(handled)) => handled,
        Ok(Err(_)) => Err("the handler panicked".to_owned()),
        Err(_) => Err(format!("the handler took longer than {limit:?}")),
    }
}
