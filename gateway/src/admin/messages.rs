use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use gray_config::causes;
use gray_mq::rocketmq::RocketMq;
use gray_mq::{
    FindError, GroupName, Ledger, OpenError, Owner, Side, StateStore, StoreError, TopicStatus,
    audit, open_store, status,
};
use gray_propagation::Lane;
use http::StatusCode;
use http::header::{HeaderMap, ORIGIN};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use super::View;
use super::api::refuse;
use crate::properties::GatewayProperties;

/// How long brokers and the state's store may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the page knows of the messages of lanes.
#[derive(Debug)]
pub(crate) struct Messages {
    brokers: RocketMq,
    properties: GatewayProperties,
    /// Opened when somebody first asks; held while somebody does, so that whoever asks often does not
    /// make brokers answer at once as often.
    store: Mutex<Option<Arc<dyn StateStore>>>,
}

impl Messages {
    /// Nothing where no brokers are configured.
    pub(crate) fn new(properties: &GatewayProperties) -> Option<Self> {
        let names = properties.messages.rocketmq.clone();
        (!names.is_empty()).then(|| Self {
            brokers: RocketMq::new(names),
            properties: properties.clone(),
            store: Mutex::default(),
        })
    }

    /// Opens the store, unless it is open, and keeps others waiting for as long as it is held.
    async fn store(&self) -> Result<(Held<'_>, Arc<dyn StateStore>), AskError> {
        let mut place = self.store.lock().await;
        let store = if let Some(store) = &*place {
            Arc::clone(store)
        } else {
            let GatewayProperties { messages, nacos, .. } = &self.properties;
            let opened = open_store(&messages.state, Some(nacos)).await;
            Arc::clone(place.insert(opened.map_err(AskError::Open)?))
        };
        Ok((place, store))
    }

    async fn status(&self) -> Result<Vec<TopicStatus>, AskError> {
        within(async {
            let (_held, store) = self.store().await?;
            Ok(status(&self.brokers, &store).await?)
        })
        .await
    }

    async fn switch(&self, asked: &Switch) -> Result<Response, AskError> {
        within(async {
            let (_held, store) = self.store().await?;
            Ok(decide(&store, asked).await?)
        })
        .await
    }
}

type Held<'a> = MutexGuard<'a, Option<Arc<dyn StateStore>>>;

async fn within<T>(answer: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| AskError::Late)?
}

/// Why nothing can be said of messages.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// The store cannot be opened.
    #[error("the tables cannot be had (messages.state)")]
    Open(#[source] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody does not answer.
    #[error("brokers or the state's store did not answer within {PATIENCE:?}")]
    Late,
}

impl IntoResponse for AskError {
    fn into_response(self) -> Response {
        refuse(StatusCode::SERVICE_UNAVAILABLE, &causes(&self))
    }
}

/// Which topics are asked about.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The consumer group, as it is in the base environment.
    group: Option<String>,
    /// The topic.
    topic: Option<String>,
}

#[utoipa::path(
    get,
    path = "/api/v1/messages",
    params(Which),
    responses(
        (status = 200, description = "How the messages of each group and topic stand", content_type = "application/json"),
        (status = 404, description = "No brokers are configured", content_type = "application/json"),
        (status = 503, description = "The state's store does not answer", content_type = "application/json")
    )
)]
pub(super) async fn list(State(view): State<Arc<View>>, Query(which): Query<Which>) -> Response {
    let Some(messages) = &view.messages else { return not_configured() };
    let fits = |status: &TopicStatus| {
        which.group.as_ref().is_none_or(|group| *group == status.group)
            && which.topic.as_ref().is_none_or(|topic| *topic == status.topic)
    };
    match messages.status().await {
        Ok(mut topics) => {
            topics.retain(fits);
            Json(json!({ "topics": topics })).into_response()
        }
        Err(error) => error.into_response(),
    }
}

#[utoipa::path(
    get,
    path = "/api/v1/messages/audit",
    responses(
        (status = 200, description = "What is wrong with messages, or waits for somebody", content_type = "application/json"),
        (status = 404, description = "No brokers are configured", content_type = "application/json"),
        (status = 503, description = "The state's store does not answer", content_type = "application/json")
    )
)]
pub(super) async fn findings(State(view): State<Arc<View>>) -> Response {
    let Some(messages) = &view.messages else { return not_configured() };
    match messages.status().await {
        Ok(topics) => {
            let findings: Vec<_> = topics.iter().flat_map(audit).collect();
            Json(json!({ "topics": topics.len(), "findings": findings })).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Who is to handle the messages of a lane.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Switch {
    /// The consumer group, as it is in the base environment.
    group: String,
    /// The topic.
    topic: String,
    /// The lane.
    #[schema(value_type = String)]
    lane: Lane,
    /// Who is to have what is produced in it from now on.
    to: To,
    /// Whether the lane is one that has had no consumer yet; otherwise one that is not known is refused.
    #[serde(default)]
    new: bool,
}

/// Who is to have what is produced in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
enum To {
    /// Its consumers, even while there are none.
    Lane,
    /// Base, even while the lane has consumers.
    Base,
    /// Whoever is alive, by the rules.
    Rules,
}

#[utoipa::path(
    post,
    path = "/api/v1/messages/switch",
    request_body(content = Switch, content_type = "application/json"),
    responses(
        (status = 202, description = "It is decided; consumers are switching, or have", content_type = "application/json"),
        (status = 400, description = "What is asked for is no switch, or the lane can have no consumers", content_type = "application/json"),
        (status = 403, description = "The page is read-only, or the request comes from another page", content_type = "application/json"),
        (status = 404, description = "No brokers are configured, or there is no such group and topic", content_type = "application/json"),
        (status = 503, description = "The state's store does not answer", content_type = "application/json")
    )
)]
pub(super) async fn switch(
    State(view): State<Arc<View>>,
    headers: HeaderMap,
    asked: Result<Json<Switch>, JsonRejection>,
) -> Response {
    let Some(messages) = &view.messages else { return not_configured() };
    if !view.properties.admin.writable {
        let error = "the page is read-only: admin.writable is false; `graylane mq` decides, too";
        return refuse(StatusCode::FORBIDDEN, error);
    }
    // Browsers name where a page comes from whenever it makes them write.
    if headers.contains_key(ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "pages of browsers may not decide anything");
    }
    let asked = match asked {
        Ok(Json(asked)) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match messages.switch(&asked).await {
        Ok(answer) => answer,
        Err(error) => error.into_response(),
    }
}

async fn decide(store: &Arc<dyn StateStore>, asked: &Switch) -> Result<Response, StoreError> {
    let twin = || GroupName::new(&asked.group).and_then(|it| it.of(Side::Lane(asked.lane)));
    // Messages would wait for ever for consumers that there cannot be. Whoever has given them to these
    // before may still take that back.
    if let (To::Lane, Err(error)) = (asked.to, twin()) {
        return Ok(refuse(StatusCode::BAD_REQUEST, &error.to_string()));
    }
    let ledger = match Ledger::find(store, &asked.group, &asked.topic).await {
        Ok(ledger) => ledger,
        Err(error @ FindError::Unknown { .. }) => {
            return Ok(refuse(StatusCode::NOT_FOUND, &error.to_string()));
        }
        Err(FindError::Store(error)) => return Err(error),
    };
    let owner = match asked.to {
        To::Lane => Some(Owner::Lane),
        To::Base => Some(Owner::Base),
        To::Rules => None,
    };
    if !asked.new && !ledger.read().await?.lanes().contains(&asked.lane) {
        let error =
            format!("nobody has consumed in lane {} yet; say \"new\": true if so", asked.lane);
        return Ok(refuse(StatusCode::NOT_FOUND, &error));
    }
    let table = ledger.pin(asked.lane, owner).await?;
    let now = if table.is_open(asked.lane) { To::Lane } else { To::Base };
    let done = asked.to == To::Rules || (now == asked.to && table.intent().is_none());
    let awaited: Vec<_> = match table.intent() {
        Some(_) => table.awaited().iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    tracing::info!(group = asked.group, topic = asked.topic, lane = %asked.lane, to = ?asked.to,
        "an operator has decided who handles messages");
    let body = json!({ "now": now, "done": done, "awaited": awaited });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

fn not_configured() -> Response {
    let error = "no brokers are configured: set messages.rocketmq and messages.state";
    refuse(StatusCode::NOT_FOUND, error)
}

/// The description of these pages.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list, findings, switch))]
pub(super) struct Description;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use gray_mq::{MemoryStore, Ownership};

    use super::*;

    async fn status_of(store: &Arc<dyn StateStore>, lane: &str, to: To) -> StatusCode {
        let (group, topic) = ("g".to_owned(), "t".to_owned());
        let asked = Switch { group, topic, lane: lane.parse().unwrap(), to, new: true };
        decide(store, &asked).await.unwrap().status()
    }

    /// `grey` was drained at once, and `gray` was not.
    #[tokio::test]
    async fn a_lane_that_nobody_has_been_in_is_refused_unless_it_is_new() {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
        let ledger = Ledger::new(Arc::clone(&store), "g", "t");
        ledger.pin(Lane::GRAY, Some(Owner::Lane)).await.unwrap();
        for (lane, expected) in [("grey", StatusCode::NOT_FOUND), ("gray", StatusCode::ACCEPTED)] {
            let (group, topic) = ("g".to_owned(), "t".to_owned());
            let lane = lane.parse().unwrap();
            let asked = Switch { group, topic, lane, to: To::Base, new: false };
            assert_eq!(decide(&store, &asked).await.unwrap().status(), expected, "{lane}");
        }
        assert_eq!(status_of(&store, "grey", To::Base).await, StatusCode::ACCEPTED);
    }

    /// Such a lane was opened, and what was produced in it waited for consumers that there cannot be.
    #[tokio::test]
    async fn a_lane_that_can_have_no_consumers_is_not_opened() {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
        let ledger = Ledger::new(Arc::clone(&store), "g", "t");
        let before: Lane = "v2.1".parse().unwrap();
        let pin = |table: &mut Ownership| {
            table.pin(before, Some(Owner::Lane));
            Ok::<_, Infallible>(())
        };
        ledger.change(pin).await.unwrap();
        for lane in ["team_a", "v2.1"] {
            assert_eq!(status_of(&store, lane, To::Lane).await, StatusCode::BAD_REQUEST, "{lane}");
        }
        assert_eq!(ledger.read().await.unwrap().pinned().len(), 1);
        assert_eq!(status_of(&store, "v2.1", To::Rules).await, StatusCode::ACCEPTED);
        assert_eq!(status_of(&store, "team-a", To::Lane).await, StatusCode::ACCEPTED);
        let pinned = ledger.read().await.unwrap().pinned().keys().map(Lane::to_string).next();
        assert_eq!(pinned.as_deref(), Some("team-a"));
    }
}
