//! A request that is sent once more, while the rules are replaced between the two (G3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use gray_config::{Documents, Publisher, live};
use gray_filters::{ClassifyLayer, ClientAddr, Senses};
use gray_gateway::{
    Answered, Call, Calling, Error, Failed, Proxy, RequestHead, Revision, RuleDocuments, Target,
    Upstream,
};
use gray_lb::{Algorithm, Balancer, Directory, Format, Instance, ServiceName, Subsets, Version};
use gray_propagation::{Carriers, Lines as _, field};
use http::Request;
use tower::{Layer, ServiceExt, service_fn};

use crate::model::routes;

/// Rules by which everybody is gray, or nobody.
fn revision(gray: bool) -> Revision {
    let lane = if gray { "gray" } else { "base" };
    let document = format!(
        "base: {{version: V1}}\nlanes: [{{name: gray, version: V2}}]\nfallback: fail\n\
         rules: [{{name: everybody, lane: {lane}}}]\n"
    );
    let how = RuleDocuments {
        format: Format::Native,
        prefix: String::new(),
        order: Vec::new(),
        lists: std::collections::BTreeMap::default(),
        senses: live(Senses::default()).1,
        routed: [].into(),
    };
    let parsed = gray_gateway::parse_documents(&Documents::one("rules", document), &how);
    parsed.map(|(revision, _)| revision).unwrap()
}

/// Refuses the first attempts of each request, and replaces the rules at each of them.
#[derive(Clone)]
struct Refusing(Arc<Refused>);

struct Refused {
    rules: Publisher<Revision>,
    /// Where requests were sent, and the lane they were told.
    sent: Mutex<Vec<(u16, String)>>,
    refusals: usize,
}

impl Refused {
    /// Takes note of an attempt, and tells how many there were before.
    fn note(&self, attempt: (u16, String)) -> usize {
        let mut sent = self.sent.lock().unwrap();
        sent.push(attempt);
        sent.len() - 1
    }

    fn sent(&self) -> Vec<(u16, String)> {
        self.sent.lock().unwrap().clone()
    }
}

impl Upstream<()> for Refusing {
    type Body = ();

    async fn send(&self, call: &mut Call<()>, to: &Target) -> Result<Answered<()>, Failed> {
        let lane = call.head.fields.text(&field::GRAY).unwrap_or_default().to_owned();
        let gray = lane == "GRAY";
        let before = self.0.note((to.addr.port(), lane));
        if before == self.0.refusals {
            return Ok(Answered::new(()));
        }
        // From now on the rules say the opposite of what this request was told.
        self.0.rules.publish(revision(!gray));
        let error = Error::Connect(std::io::Error::other("refused"));
        Err(Failed { error, again: true })
    }
}

fn directory() -> Directory {
    let versions = ["V1", "V1", "V1", "V2", "V2", "V2"];
    let instances = (1_u16..).zip(versions).map(|(port, version)| Instance {
        version: Some(Version::new(version)),
        ..Instance::new(SocketAddr::from(([127, 0, 0, 1], port)))
    });
    let subsets = Subsets::new(instances.collect(), Algorithm::RoundRobin, None);
    [(ServiceName::new("app"), Arc::new(subsets))].into_iter().collect()
}

/// Whatever is published between attempts, all of them follow the rules by which the request was
/// classified: its lane, its instances, and what is noted of it.
#[tokio::test]
async fn every_attempt_follows_the_rules_that_the_first_one_did() {
    for gray in [false, true] {
        let (publisher, rules) = live(revision(gray));
        let upstream =
            Refusing(Arc::new(Refused { rules: publisher, sent: Mutex::default(), refusals: 2 }));
        let proxy = Arc::new(Proxy {
            routes: routes(),
            callings: HashMap::default(),
            default_calling: Calling::default(),
            balancer: Balancer::new(live(directory()).1),
            carriers: Carriers::default().into(),
            attempts: 3,
            upstream: upstream.clone(),
        });
        let classified = rules.load().digest.clone();
        let chain = ClassifyLayer::new(rules).layer(service_fn(move |mut call: Call<()>| {
            let proxy = Arc::clone(&proxy);
            async move {
                proxy.call(&mut call).await.map_err(|error| error.to_string())?;
                Ok::<_, String>(call.trail)
            }
        }));
        let (asked, body) = Request::get("/").body(()).unwrap().into_parts();
        let client =
            ClientAddr { address: std::net::Ipv4Addr::LOCALHOST.into(), through_proxy: false };
        let call = Call { head: RequestHead::from(&asked).into(), body, client, trail: None };
        let trail = chain.oneshot(call).await.unwrap().unwrap();
        let (lane, ports) = if gray { ("GRAY", 4..=6) } else { ("PROD", 1..=3) };
        let sent = upstream.0.sent();
        assert_eq!(sent.len(), 3, "{sent:?}");
        for (port, told) in &sent {
            assert!(told == lane && ports.contains(port), "{gray}: {sent:?}");
        }
        assert_eq!(trail.revision.digest, classified);
        assert_eq!((trail.verdict.status.to_string().as_str(), trail.attempts), (lane, 3));
    }
}
