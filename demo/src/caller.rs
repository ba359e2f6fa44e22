use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use gray_lb::{Balancer, Lanes, ServiceName, Want};
use gray_propagation::{Carriers, GrayStatus};
use serde_json::Value;

/// Calls services by their names, in the lane of the call that it serves.
#[derive(Clone)]
pub struct Caller {
    balancer: Balancer,
    lanes: Arc<dyn Fn(&ServiceName) -> Lanes + Send + Sync>,
    client: reqwest::Client,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl Caller {
    /// Calls the instances that the balancer picks; `lanes` says how each service's lanes are served
    /// at the moment.
    ///
    /// # Errors
    ///
    /// Where no HTTP client can be had.
    pub fn new(
        balancer: Balancer,
        lanes: impl Fn(&ServiceName) -> Lanes + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { balancer, lanes: Arc::new(lanes), client })
    }

    /// Gets a JSON value from a service, in a lane.
    ///
    /// An instance that cannot be reached is replaced by another one of the lane.
    pub(crate) async fn get(
        &self,
        service: &str,
        path: &str,
        status: GrayStatus,
    ) -> anyhow::Result<Value> {
        const ATTEMPTS: usize = 3;
        let service = ServiceName::new(service);
        let lanes = (self.lanes)(&service);
        let mut tried = Vec::new();
        loop {
            let want = Want { service: &service, status, lanes: &lanes, key: None, tried: &tried };
            let picked = self.balancer.pick(&want)?;
            let addr = picked.member.instance().addr;
            let mut headers = http::HeaderMap::new();
            Carriers::default().inject(status, &mut headers);
            let request = self.client.get(format!("http://{addr}{path}")).headers(headers);
            match request.send().await {
                Ok(answer) => {
                    let text = answer.error_for_status()?.text().await?;
                    return serde_json::from_str(&text).context("no JSON came back");
                }
                Err(error) if error.is_connect() && tried.len() + 1 < ATTEMPTS => tried.push(addr),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
