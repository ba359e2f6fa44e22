use std::time::Duration;

/// Why Nacos did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NacosError {
    /// No server can be reached at the moment.
    #[error("no connection to Nacos at {servers}: {reason}")]
    NotConnected {
        /// The servers that were tried.
        servers: String,
        /// What the last attempt ended with.
        reason: String,
    },
    /// The connection broke while the answer was awaited; the request may have been executed.
    #[error("the connection to Nacos broke: {0}")]
    Broken(String),
    /// No answer in time; the request may have been executed.
    #[error("Nacos did not answer {request} within {limit:?}")]
    Timeout {
        /// The request.
        request: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The server refused.
    #[error("Nacos refused {request}: {message} (code {code})")]
    Refused {
        /// The request.
        request: &'static str,
        /// The server's error code, such as 403 for missing rights.
        code: i64,
        /// The server's words.
        message: String,
    },
    /// The server answered something that is no answer.
    #[error("Nacos answered {request} with something else: {reason}")]
    Garbled {
        /// The request.
        request: &'static str,
        /// What was wrong with it.
        reason: String,
    },
    /// User name and password were not accepted.
    #[error("Nacos at {server} does not accept user {user:?}: {reason}")]
    Login {
        /// The server.
        server: String,
        /// The user name.
        user: String,
        /// The server's words.
        reason: String,
    },
}
