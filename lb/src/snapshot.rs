//! Instances as they are kept on disk for a start without their registry.

use std::collections::BTreeMap;

use gray_propagation::Lane;
use serde::{Deserialize, Serialize};

use crate::Announced;
use crate::discovery::News;

#[derive(Serialize, Deserialize)]
struct Kept {
    ip: String,
    port: i64,
    /// Absent where it was no number.
    weight: Option<f64>,
    healthy: bool,
    enabled: bool,
    cluster: Option<String>,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct KeptService {
    lane: Option<String>,
    instances: Vec<Kept>,
}

/// Returns what a registry said about a service as JSON.
pub(crate) fn write(news: &News) -> String {
    let kept = |it: &Announced| Kept {
        ip: it.ip.clone(),
        port: it.port,
        weight: it.weight.is_finite().then_some(it.weight),
        healthy: it.healthy,
        enabled: it.enabled,
        cluster: it.cluster.clone(),
        metadata: it.metadata.clone(),
    };
    let instances = news.announced.iter().map(kept).collect();
    let service = KeptService { lane: news.lane.map(|lane| lane.to_string()), instances };
    serde_json::to_string(&service).unwrap_or_default()
}

/// Reads it back; `None` if it is something else.
pub(crate) fn read(text: &str) -> Option<(Option<Lane>, Vec<Announced>)> {
    let service: KeptService = serde_json::from_str(text).ok()?;
    let announced = |it: Kept| Announced {
        ip: it.ip,
        port: it.port,
        weight: it.weight.unwrap_or(f64::NAN),
        healthy: it.healthy,
        enabled: it.enabled,
        cluster: it.cluster,
        metadata: it.metadata,
    };
    let lane = service.lane.and_then(|lane| lane.parse().ok());
    Some((lane, service.instances.into_iter().map(announced).collect()))
}
