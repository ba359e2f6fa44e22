use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::FutureExt;
use tokio::time::Instant;
use tracing::{info, warn};

use super::connection::OnRequest;
use super::slot::Slot;
use super::{Broker, Connection, RocketMqError};
use crate::{Attendance, ConnectionId};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// A broker whose address is known.
#[derive(Debug)]
pub(super) struct Known {
    name: String,
    address: Mutex<String>,
    connection: Slot<Broker>,
    /// Whether the last heartbeat was not answered.
    is_silent: AtomicBool,
}

impl Known {
    pub(super) fn new(name: String, address: String) -> Self {
        let (address, connection) = (Mutex::new(address), Slot::default());
        Self { name, address, connection, is_silent: AtomicBool::new(false) }
    }

    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> String {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of where it is now.
    pub(super) fn moved(&self, address: &str) {
        address.clone_into(&mut self.address.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns a connection, and which one it is.
    ///
    /// # Errors
    ///
    /// Where none can be made, or the last was made less than a second ago.
    pub(super) async fn connect(
        &self,
        on_request: OnRequest,
    ) -> Result<(u64, Arc<Broker>), RocketMqError> {
        let address = self.address();
        let stands = |it: &Broker| !it.is_broken() && it.address() == address;
        let make = || {
            let (name, address) = (self.name.clone(), address.clone());
            async move {
                let connection = Connection::open_with(&address, CONNECT, on_request).await?;
                Ok(Broker::new(name, connection))
            }
            .boxed()
        };
        self.connection.get(&address, stands, make).await
    }

    /// Tells it that a consumer is there; returns the connection over which it answered, and when it was
    /// told. That it does not answer is said once.
    pub(super) async fn beat(
        &self,
        on_request: OnRequest,
        attendance: &Attendance<'_>,
    ) -> Option<(ConnectionId, Instant)> {
        let (broker, group) = (&self.name, attendance.group);
        match self.tell(on_request, attendance).await {
            Ok(answered) => {
                if self.is_silent.swap(false, Ordering::Relaxed) {
                    info!(broker, group, "heartbeats are answered again");
                }
                Some(answered)
            }
            Err(error) => {
                if !self.is_silent.swap(true, Ordering::Relaxed) {
                    let causes = gray_config::causes(&error);
                    warn!(broker, group, causes, "a heartbeat is not answered, trying on");
                }
                None
            }
        }
    }

    async fn tell(
        &self,
        on_request: OnRequest,
        attendance: &Attendance<'_>,
    ) -> Result<(ConnectionId, Instant), RocketMqError> {
        let until = Instant::now() + attendance.limit;
        let timeout =
            |_| RocketMqError::Timeout { address: self.address(), limit: attendance.limit };
        let connection = tokio::time::timeout_at(until, self.connect(on_request)).await;
        let (number, broker) = connection.map_err(timeout)??;
        let sent = Instant::now();
        // Its own limit, so that a connection through which nothing comes is taken for lost: before a
        // consumer has registered nothing else goes through it.
        let limit = until.saturating_duration_since(sent);
        broker.heartbeat(&Attendance { limit, ..*attendance }).await?;
        Ok((ConnectionId { broker: self.name.clone(), number }, sent))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A consumer that had not registered yet waited for ever: nobody missed the answers to its heartbeats.
    #[tokio::test]
    async fn a_connection_on_which_no_heartbeat_is_answered_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let known = Known::new("a".to_owned(), listener.local_addr().unwrap().to_string());
        let limit = Duration::from_millis(100);
        let attendance = Attendance { client: "client", group: "group", subscriptions: &[], limit };
        let beats = async {
            loop {
                assert_eq!(known.beat(Arc::new(drop), &attendance).await, None);
            }
        };
        let accepted = async {
            let _mute = listener.accept().await.unwrap();
            listener.accept().await.unwrap();
        };
        tokio::select! {
            () = beats => {}
            () = accepted => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("it is not connected to again"),
        }
    }
}
