use axum::Router;
use gray_propagation::{Carriers, GrayStatus, Lane};
use http::HeaderMap;
use serde::Serialize;
use tokio::net::TcpListener;

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

impl Identity {
    /// Returns the lane that a call belongs to: the caller's, or this copy's own where the caller
    /// did not say.
    pub(crate) fn lane_of(&self, headers: &HeaderMap) -> GrayStatus {
        let own =
            if self.version == "V1" { GrayStatus::Prod } else { GrayStatus::Gray(Lane::GRAY) };
        Carriers::default().extract(headers).unwrap_or(own)
    }
}

/// Serves a service for ever.
///
/// # Errors
///
/// What the listener ended with.
pub async fn serve(listener: TcpListener, service: Router) -> std::io::Result<()> {
    axum::serve(listener, service).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_its_own_lane_where_the_caller_says_nothing() {
        let identity = Identity { service: "user-app", version: "V2".to_owned(), port: 0 };
        let mut headers = HeaderMap::new();
        assert_eq!(identity.lane_of(&headers), GrayStatus::Gray(Lane::GRAY));
        headers.insert("gray", "PROD".parse().unwrap());
        assert_eq!(identity.lane_of(&headers), GrayStatus::Prod);
    }
}
