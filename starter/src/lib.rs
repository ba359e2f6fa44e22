//! For services: stay in the lane that the gateway chose, in every call and whatever it starts.
//!
//! [`GrayLayer`] runs each request in the lane it came with; [`GrayClient`] and [`GrayChannel`] call
//! other services by name in that lane; [`Registration`] is the service's place in Nacos. What runs
//! beside the request keeps its lane by [`spawn`], [`spawn_blocking`], [`in_current`] and [`Carried`].
//!
//! ```no_run
//! # #[cfg(all(feature = "client", feature = "serve"))]
//! # mod example {
//! use axum::{Router, extract::State, routing::get};
//! use gray_starter::{GrayClient, Starter, told_to_stop};
//!
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let starter = Starter::from_env("order-app")?;
//! let router = Router::new().route("/order", get(order)).with_state(starter.client());
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
//! starter.serve(listener, router, told_to_stop()).await?;
//! # Ok(())
//! # }
//!
//! async fn order(State(client): State<GrayClient>) -> String {
//!     match client.get("http://user-app/user/1").send().await {
//!         Ok(answer) => answer.text().await.unwrap_or_default(),
//!         Err(error) => error.to_string(),
//!     }
//! }
//! # }
//! ```
//!
//! Features: `client` (`GrayClient`, on reqwest), `grpc` (`GrayChannel`, for what tonic generates),
//! `nacos` (instances and documents on Nacos; without it they are in files), `serve` (a server around an
//! axum router). All are on by default.

#![cfg_attr(
    not(all(feature = "nacos", any(feature = "client", feature = "grpc"))),
    allow(dead_code, unused_variables, reason = "what calls and registers is left out")
)]

#[cfg(feature = "grpc")]
mod channel;
#[cfg(feature = "client")]
mod client;
mod edges;
mod lanes;
mod layer;
#[cfg(feature = "nacos")]
mod nacos;
mod outgoing;
mod propagate;
mod properties;
mod registration;
#[cfg(feature = "serve")]
mod serve;
mod starter;
mod variables;

#[cfg(feature = "nacos")]
pub use gray_config::nacos::NacosProperties;
pub use gray_config::{Documents, HumanDuration, Live, Problems};
pub use gray_lb::{LaneDocuments, NoInstance, ServedLanes, ServiceName};
pub use gray_propagation::{
    Carried, Carriers, Context, GrayStatus, Hop, InContext, InvalidKey, InvalidLane, Lane,
    MessageCarrier, MessageProperties, Probe, current, current_status, in_current, scope, spawn,
    spawn_blocking, sync_scope,
};

#[cfg(feature = "grpc")]
pub use self::channel::{ChannelError, ChannelFailure, GrayChannel};
#[cfg(feature = "client")]
pub use self::client::{Call, CallError, GrayClient};
pub use self::edges::{Edge, EdgeCounts, Edges};
pub use self::layer::{Gray, GrayLayer, Serving};
pub use self::propagate::{Propagate, PropagateLayer};
pub use self::properties::StarterProperties;
pub use self::registration::Registration;
#[cfg(feature = "serve")]
pub use self::serve::{ServeError, told_to_stop};
pub use self::starter::{StartError, Starter};
pub use self::variables::InvalidVariable;
