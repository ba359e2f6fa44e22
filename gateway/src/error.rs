use gray_lb::NoInstance;
use http::StatusCode;

use crate::upstream::UpstreamError;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks the rules of HTTP in a way that must not be passed on.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The target is longer than allowed.
    #[error("the request target is longer than allowed")]
    TargetTooLong,
    /// The body is larger than allowed.
    #[error("the request body is larger than allowed")]
    BodyTooLarge,
    /// The method makes no sense for a gateway.
    #[error("method {0} is not served by a gateway")]
    Method(http::Method),
    /// The request has been through this gateway too often.
    #[error("the request goes round in a loop")]
    Loop,
    /// No route leads anywhere.
    #[error("no route takes this request")]
    NoRoute,
    /// No rules are in force yet, so nobody knows which lane a request belongs to.
    #[error("no rules are in force yet")]
    NoRules,
    /// The service has no instance for this request.
    #[error(transparent)]
    NoInstance(#[from] NoInstance),
    /// No instance could be reached.
    #[error("no instance could be reached")]
    Connect(#[source] std::io::Error),
    /// The instance broke off, or answered something that is no HTTP.
    #[error("the instance failed")]
    Upstream(#[source] UpstreamError),
    /// The client broke off, or sent something that is no HTTP.
    #[error("the client's request ended early")]
    Client(#[source] hyper::Error),
    /// The client's request did not go on.
    #[error("the client's request did not go on in time")]
    Stalled,
    /// The instance did not answer in time.
    #[error("the instance did not answer in time")]
    Timeout,
}

impl Error {
    /// The one place that says what a client sees.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Client(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Method(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoInstance(_) | Self::NoRules => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What a client is told. Which lane it is in is not for clients.
    pub fn detail(&self) -> String {
        match self {
            Self::NoInstance(NoInstance::EmptyLane { service, .. }) => {
                format!("no instance of {service} may serve this request")
            }
            other => other.to_string(),
        }
    }

    /// A word for machines, which stays the same when the text changes.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::Client(_) => "client-aborted",
            Self::TargetTooLong => "target-too-long",
            Self::BodyTooLarge => "body-too-large",
            Self::Method(_) => "method-not-served",
            Self::Loop => "loop",
            Self::NoRoute => "no-route",
            Self::NoRules => "no-rules",
            Self::NoInstance(NoInstance::UnknownService(_)) => "unknown-service",
            Self::NoInstance(NoInstance::EmptyLane { .. }) => "empty-lane",
            Self::NoInstance(NoInstance::Exhausted { .. }) => "instances-exhausted",
            Self::Connect(_) => "connect-failed",
            Self::Upstream(_) => "upstream-failed",
            Self::Stalled => "request-stalled",
            Self::Timeout => "timeout",
        }
    }
}
