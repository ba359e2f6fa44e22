//! Wires the filters, the load balancer and the upstream client into one HTTP gateway.
//!
//! A connection is taken by `server`, which checks a request and has it classified; [`Proxy::call`]
//! finds its route, picks an instance and sends it there through an [`Upstream`]. [`App`] starts all
//! of it from [`GatewayProperties`].

mod access_log;
mod admin;
mod app;
mod background;
mod body;
pub mod check;
mod error;
pub mod explain;
mod field;
mod head;
mod headers;
mod http1;
mod metrics;
mod nacos;
mod observe;
pub mod probe;
mod problem;
pub mod properties;
mod proxy;
mod registered;
mod reloads;
mod revision;
mod routes;
mod senses;
mod server;
mod settings;
mod tags;
mod tunnel;
mod upstream;

pub use self::app::{App, Running, StartError};
pub use self::error::{ClientError, Error};
pub use self::head::{AnswerHead, Answered, Call, HeadFields, RequestHead, RequestTarget};
pub use self::http1::Cut;
pub use self::observe::Trail;
pub use self::properties::GatewayProperties;
pub use self::proxy::{Calling, Proxy};
pub use self::revision::{NativeProperties, Revision, RuleDocuments, parse_documents};
pub use self::routes::{Route, Routes};
pub use self::settings::{Loaded, Settings};
pub use self::tags::TagPolicy;
pub use self::upstream::{Failed, Target, Upstream, UpstreamError, Wire};
