use std::fmt;
use std::sync::Arc;

use gray_config::Live;
use gray_lb::ServedLanes;
use gray_propagation::{GrayStatus, MessageCarrier};
use gray_starter::Starter;

use crate::{MessageSettings, Settings, StateStore};

/// Says in which lane a process is, at any time: what it does of its own accord is of this status.
#[derive(Clone)]
pub struct OwnStatus(Arc<Ask>);

/// The status by some documents, or by those that are in force.
type Ask = dyn Fn(Option<&ServedLanes>) -> GrayStatus + Send + Sync;

impl OwnStatus {
    /// Asks a function.
    pub fn by(status: impl Fn() -> GrayStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |_| status()))
    }

    /// The status of a service that has a starter, by the same documents as the settings.
    fn of(starter: Starter) -> Self {
        Self(Arc::new(move |served| match served {
            Some(served) => starter.own_status_in(served),
            None => starter.own_status(),
        }))
    }

    /// Returns it as it is now, whether or not the documents say anything about messages that can be read.
    pub fn current(&self) -> GrayStatus {
        (self.0)(None)
    }

    /// Returns it as it is by the documents of these settings: what is decided by both must not see one of
    /// them before and the other after a change.
    pub fn with(&self, settings: &MessageSettings) -> GrayStatus {
        (self.0)(settings.served())
    }
}

impl fmt::Debug for OwnStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnStatus").finish_non_exhaustive()
    }
}

/// How a process takes part in gray release, as far as messages go.
#[derive(Clone, Debug)]
pub struct Messaging {
    /// The application's name.
    pub application: String,
    /// In which lane this process is.
    pub own: OwnStatus,
    /// What rule documents say about messages.
    pub settings: Live<MessageSettings>,
    /// The property that carries the lane.
    pub carrier: MessageCarrier,
    /// Where the tables are kept.
    pub store: Arc<dyn StateStore>,
}

impl Messaging {
    /// What a service does that has a starter: its own lane, and what the documents say about messages
    /// that it follows. Waits until it is known which version each lane has.
    pub async fn of(starter: &Starter, store: Arc<dyn StateStore>) -> Self {
        starter.known().await;
        let initial = MessageSettings::of_all(Settings::default(), starter.lanes());
        let (how, apart) = (starter.lane_documents(), starter.lanes_apart());
        let parse = move |documents: &_| MessageSettings::parse(documents, &how, &apart);
        Self {
            application: starter.service().to_owned(),
            own: OwnStatus::of(starter.clone()),
            settings: starter.follow(initial, parse),
            carrier: starter.message_carrier(),
            store,
        }
    }
}
