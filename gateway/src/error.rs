use gray_lb::NoInstance;
use http::StatusCode;

use crate::http1::Cut;
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
    /// The head is longer than allowed, or has more fields.
    #[error("the request's head is longer than allowed")]
    HeadTooLarge,
    /// A version of HTTP that is not spoken like this.
    #[error("this version of HTTP is not spoken here")]
    Version,
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
    Client(#[source] ClientError),
    /// The client's request did not go on.
    #[error("the client's request did not go on in time")]
    Stalled,
    /// The instance did not answer in time.
    #[error("the instance did not answer in time")]
    Timeout,
    /// The gateway itself failed at this request.
    #[error("the gateway failed at this request")]
    Panicked,
}

/// What a client did instead of going on with its request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Over HTTP/1.1.
    #[error("its request: {0}")]
    Http1(#[from] Cut),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl Error {
    /// The one place that says what a client sees.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Client(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Method(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoInstance(_) | Self::NoRules => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
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
            Self::HeadTooLarge => "head-too-large",
            Self::Version => "version-not-served",
            Self::Method(_) => "method-not-served",
            Self::Loop => "loop",
            Self::NoRoute => "no-route",
            Self::NoRules | Self::NoInstance(NoInstance::UnknownLanes(_)) => "no-rules",
            Self::NoInstance(NoInstance::UnknownService(_)) => "unknown-service",
            Self::NoInstance(NoInstance::EmptyLane { .. }) => "empty-lane",
            Self::NoInstance(NoInstance::Exhausted { .. }) => "instances-exhausted",
            Self::Connect(_) => "connect-failed",
            Self::Upstream(_) => "upstream-failed",
            Self::Stalled => "request-stalled",
            Self::Timeout => "timeout",
            Self::Panicked => "panicked",
        }
    }
}

#[cfg(test)]
mod tests {
    use gray_lb::ServiceName;
    use gray_propagation::{GrayStatus, Lane};

    use super::*;

    fn one_of_each() -> Vec<Error> {
        let service = ServiceName::new("app");
        let wanted = GrayStatus::Gray(Lane::GRAY);
        vec![
            Error::BadRequest("no"),
            Error::TargetTooLong,
            Error::BodyTooLarge,
            Error::HeadTooLarge,
            Error::Version,
            Error::Method(http::Method::CONNECT),
            Error::Loop,
            Error::NoRoute,
            Error::NoRules,
            NoInstance::UnknownService(service.clone()).into(),
            NoInstance::EmptyLane { service: service.clone(), status: wanted }.into(),
            NoInstance::Exhausted { service, status: wanted }.into(),
            Error::Connect(std::io::ErrorKind::TimedOut.into()),
            Error::Upstream(UpstreamError::Silent),
            Error::Stalled,
            Error::Timeout,
            Error::Panicked,
        ]
    }

    /// What the guide says of errors is what clients see, and none is missing there.
    #[test]
    fn the_guide_knows_every_error() {
        let guide = include_str!("../../docs/operations.md");
        let rows: Vec<&str> = guide.lines().filter(|line| line.starts_with("| ")).collect();
        for error in one_of_each() {
            let (status, code) = (error.status().as_u16(), format!("`{}`", error.code()));
            let row = rows.iter().find(|row| row.contains(&code)).expect(&code);
            assert!(
                row.split('|').nth(1).unwrap().contains(&status.to_string()),
                "{row}: {status}"
            );
        }
        // A client that broke off cannot be made here; its words stand in the source like all others.
        let source = include_str!("error.rs");
        let codes = source.split("const fn code").nth(1).unwrap().split("#[cfg").next().unwrap();
        let codes = codes.lines().filter_map(|line| line.split("=> \"").nth(1)?.split('"').next());
        let codes: Vec<&str> = codes.collect();
        assert_eq!(codes.len(), one_of_each().len() + 1, "{codes:?}");
        for code in codes {
            assert!(rows.iter().any(|row| row.contains(&format!("`{code}`"))), "{code}");
        }
    }
}
