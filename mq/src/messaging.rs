use std::fmt;
use std::sync::Arc;

use gray_config::Live;
use gray_propagation::{GrayStatus, MessageCarrier};
use gray_starter::Starter;

use crate::{MessageSettings, Settings, StateStore};

/// Says in which lane a process is, at any time: what it does of its own accord is of this status.
#[derive(Clone)]
pub struct OwnStatus(Arc<dyn Fn() -> GrayStatus + Send + Sync>);

impl OwnStatus {
    /// Asks a function.
    pub fn by(status: impl Fn() -> GrayStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(status))
    }

    /// Returns it as it is now.
    pub fn current(&self) -> GrayStatus {
        (self.0)()
    }
}

impl fmt::Debug for OwnStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnStatus").field(&self.current()).finish()
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
        let own = starter.clone();
        Self {
            application: starter.service().to_owned(),
            own: OwnStatus::by(move || own.own_status()),
            settings: starter.follow(initial, parse),
            carrier: MessageCarrier::default(),
            store,
        }
    }
}
