use gray_starter::Starter;
use serde::Serialize;

/// Which copy of a service this is.
#[derive(Clone, Debug, Serialize)]
pub struct Identity {
    /// The service's name.
    pub service: &'static str,
    /// Its version, as it is registered.
    pub version: String,
    /// Where it listens.
    pub port: u16,
}

/// Returns the lane of the request that is being served, as a word of the wire.
pub(crate) fn lane(starter: &Starter) -> String {
    gray_starter::current_status().unwrap_or_else(|| starter.own_status()).to_string()
}
