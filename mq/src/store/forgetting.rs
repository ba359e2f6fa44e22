use super::{ChangeError, Ledger, StoreError};
use crate::{MessageBroker, Ownership, UnknownBroker};

/// Why a broker was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The table has no queue of it.
    #[error(transparent)]
    Unknown(#[from] UnknownBroker),
    /// It is not gone: its queues would be there again at once, but not who owns what in them.
    #[error(
        "broker `{broker}` has queues of topic `{topic}`, as the name servers say: it is not gone, and \
         who owns which of its messages must not be forgotten"
    )]
    Listed {
        /// The name.
        broker: String,
        /// The topic.
        topic: String,
    },
    /// Nobody says whether it is gone.
    #[error("nobody says which brokers have queues of topic `{topic}`")]
    Route {
        /// The topic.
        topic: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// Takes the queues of a broker off that is gone for good, so that nobody waits for it; returns the table
    /// as it then is.
    ///
    /// # Errors
    ///
    /// Where the table has none of its queues, where it still holds the topic or nobody says whether it
    /// does, and where the store fails.
    pub async fn forget_broker<B: MessageBroker>(
        &self,
        brokers: &B,
        broker: &str,
    ) -> Result<Ownership, ForgetError> {
        // What is misspelt is not asked about.
        self.read().await?.remove_broker(broker)?;
        let topic = Self::names(self.key()).map(|(_, topic)| topic).unwrap_or_default();
        match brokers.holders(&topic).await {
            Ok(holders) if holders.contains(broker) => {
                return Err(ForgetError::Listed { broker: broker.to_owned(), topic });
            }
            Ok(_) => {}
            Err(error) => return Err(ForgetError::Route { topic, source: Box::new(error) }),
        }
        match self.change(|table| table.remove_broker(broker)).await {
            Ok((table, ())) => Ok(table),
            Err(ChangeError::Step(error)) => Err(error.into()),
            Err(ChangeError::Store(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueueKey;
    use crate::consumer::fake::{Case, queue};

    /// The queues of a broker that was alive were added again at the next look, and who had owned what in them
    /// was not known any more.
    #[tokio::test]
    async fn only_a_broker_that_is_gone_is_forgotten() {
        let case = Case::new(2);
        let gone = QueueKey { broker: "gone".to_owned(), number: 0 };
        case.step(|table| {
            for queue in [queue(0), queue(1), gone.clone()] {
                table.add_queue(queue);
            }
        })
        .await;
        let before = case.ledger().read().await.unwrap();
        let forget = async |broker| case.ledger().forget_broker(&*case.fake, broker).await;
        let error = forget("a").await.unwrap_err();
        assert!(matches!(error, ForgetError::Listed { .. }), "{error}");
        let error = forget("nobody").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the table has no queue of broker `nobody`; there is: a, gone"
        );
        assert_eq!(case.ledger().read().await.unwrap(), before);
        let table = forget("gone").await.unwrap();
        assert_eq!(table.fences().queues().collect::<Vec<_>>(), [&queue(0), &queue(1)]);
        assert!(matches!(forget("gone").await, Err(ForgetError::Unknown(_))));
    }
}
