//! The decision against a model of its own, and `explain` against the decision.
//!
//! The model is written from semantics alone: it imports nothing of filters or lb. Requests go
//! through the gateway's own chain, [`ClassifyLayer`] and [`Proxy::call`], to an upstream that only
//! notes what it was sent.

mod condition;
mod native;
mod spring;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use self::condition::{Asks, LISTED, NETS, asks};
use gray_config::{Documents, Faults, KeyPath, live};
use gray_filters::{
    ClassifyLayer, ClientAddr, OverrideProperties, PlaceProperties, Senses, TrustedProxies,
    UserProperties, Users,
};
use gray_gateway::explain::{Answer, Asked, Explainer};
use gray_gateway::properties::{RouteProperties, TimeoutProperties};
use gray_gateway::{
    Answered, Call, Calling, Failed, Proxy, RequestHead, Revision, Routes, RuleDocuments,
    TagPolicy, Target, Upstream,
};
use gray_lb::{Algorithm, Balancer, Directory, Format, Instance, ServiceName, Subsets, Version};
use gray_propagation::{Carriers, FieldName, Lines as _};
use http::Request;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};

/// What is written down for the gateway, and what must come of it, by semantics alone.
trait World: std::fmt::Debug {
    fn yaml(&self) -> String;

    /// The word of the lane that a request belongs to.
    fn lane(&self, asks: &Asks) -> &'static str;

    /// The rule that says so; none where none hits, or none is asked.
    fn rule(&self, asks: &Asks) -> Option<String>;

    /// The ports that may serve a lane, its version's or the fallback's, and which fallback that is.
    fn ports(&self, lane: &str) -> (Vec<u16>, Option<&'static str>);

    /// The version that a lane has; none where any will do.
    fn version(&self, lane: &str) -> Option<&'static str>;

    fn instances(&self) -> &Instances;
}

/// The version of each instance, by its port, and whether it is healthy.
#[derive(Clone, Debug)]
struct Instances(Vec<(Option<&'static str>, bool)>);

impl Instances {
    fn ports(&self, fits: &dyn Fn(Option<&str>) -> bool) -> Vec<u16> {
        let fitting = (1_u16..).zip(&self.0);
        let fitting = fitting.filter(|(_, (version, healthy))| *healthy && fits(*version));
        fitting.map(|(port, _)| port).collect()
    }

    fn directory(&self) -> Directory {
        let instances = (1_u16..).zip(&self.0).map(|(port, (version, healthy))| Instance {
            version: version.map(Version::new),
            healthy: *healthy,
            ..Instance::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        });
        let subsets = Subsets::new(instances.collect(), Algorithm::RoundRobin, None);
        [(ServiceName::new("app"), Arc::new(subsets))].into_iter().collect()
    }
}

fn instances() -> impl Strategy<Value = Instances> {
    let versions = [None, Some("V1"), Some("V2"), Some("V3"), Some("V8"), Some("V9")];
    let one = (prop::sample::select(versions.to_vec()), prop::bool::weighted(0.8));
    prop::collection::vec(one, 0..6).prop_map(Instances)
}

/// Answers with the port that a request was sent to and what it was told of its lane.
#[derive(Debug)]
struct Noting;

type Told = Vec<(String, String)>;

/// What carries a lane here, or is made for what does.
const TOLD: [&str; 5] = ["gray", "baggage", "traceparent", "x-graylane-hop", "x-mse-tag"];

/// Every carrier there is.
fn carriers() -> Carriers {
    Carriers::default().with_headers([http::HeaderName::from_static("x-mse-tag")]).with_baggage()
}

/// What requests bring of them themselves.
const BROUGHT: [(&str, &str); 3] = [
    ("baggage", "user=7, gray=forged"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-mse-tag", "forged"),
];

impl Upstream<()> for Noting {
    type Body = (u16, Told);

    async fn send(
        &self,
        call: &mut Call<()>,
        to: &Target,
    ) -> Result<Answered<(u16, Told)>, Failed> {
        let told = TOLD.into_iter().filter_map(|name| {
            let value = call.head.fields.text(&FieldName::from_static(name))?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(Answered::new((to.addr.port(), told.collect())))
    }
}

/// One route, to the service `app`.
pub(crate) fn routes() -> Routes {
    let route = RouteProperties { service: "app".to_owned(), ..RouteProperties::default() };
    let mut faults = Faults::default();
    Routes::new(&[route], TimeoutProperties::default(), &KeyPath::ROOT, &mut faults)
}

fn senses() -> Senses {
    let network = |network: &str, [country, province, city]: [&str; 3]| OverrideProperties {
        network: network.to_owned(),
        country: country.to_owned(),
        province: province.to_owned(),
        city: city.to_owned(),
    };
    let places = PlaceProperties {
        databases: Vec::new(),
        overrides: vec![
            network("10.0.0.0/16", ["CN", "Guangdong", "深圳市"]),
            network("10.1.0.0/16", ["SG", "海南省", "Guangzhou"]),
        ],
    };
    let mut faults = Faults::default();
    Senses {
        users: Users::open(&UserProperties::default(), &KeyPath::ROOT, &mut faults),
        places: places.open(&KeyPath::ROOT, &mut faults),
        issued_cookie: Some("gid".to_owned()),
    }
}

/// The lists that conditions may name, and the documents that they are.
fn lists() -> std::collections::BTreeMap<String, String> {
    ["words", "nets"].map(|name| (format!("{name}.txt"), name.to_owned())).into()
}

fn revision(world: &impl World, format: Format) -> Revision {
    let how = RuleDocuments {
        format,
        prefix: "kerwin.tool.gray".to_owned(),
        order: Vec::new(),
        lists: lists(),
        senses: live(senses()).1,
        routed: [].into(),
    };
    let texts =
        [("rules", world.yaml()), ("words.txt", LISTED.join("\n")), ("nets.txt", NETS.to_owned())];
    let texts = texts.map(|(name, text)| (name.to_owned(), Arc::from(text)));
    let documents = Documents(texts.into());
    let parsed = gray_gateway::parse_documents(&documents, &how).map(|(revision, _)| revision);
    parsed.unwrap_or_else(|problems| panic!("{problems}\n{}", world.yaml()))
}

fn request(asks: &Asks) -> Request<()> {
    let mut cookies = asks.cookie.map(|value| format!("c={value}")).into_iter().collect::<Vec<_>>();
    cookies.push(format!("gid={}", asks.issued));
    let mut query = asks.query.map(|value| format!("q={value}")).into_iter().collect::<Vec<_>>();
    let mut user = None;
    match asks.user {
        Some((0, number)) => user = Some(number),
        Some((1, number)) => cookies.push(format!("userNo={number}")),
        Some((_, number)) => query.push(format!("userNo={number}")),
        None => {}
    }
    let target = format!("{}?{}", asks.path, query.join("&"));
    let mut request = Request::builder().method(asks.method).uri(target);
    request = request.header("host", format!("{}:8080", asks.host));
    for (name, value) in
        ["h0", "h1", "x-user-no"].into_iter().zip([asks.headers[0], asks.headers[1], user])
    {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    if !cookies.is_empty() {
        request = request.header("cookie", cookies.join("; "));
    }
    for (name, value) in BROUGHT {
        request = request.header(name, value);
    }
    request.body(()).unwrap()
}

/// Sends a request through the gateway's own chain.
async fn decided(
    revision: Revision,
    directory: Directory,
    asks: &Asks,
) -> Result<(u16, Told), gray_gateway::Error> {
    let proxy = Arc::new(Proxy {
        routes: routes(),
        callings: HashMap::default(),
        default_calling: Calling::default(),
        balancer: Balancer::new(live(directory).1),
        carriers: carriers().into(),
        attempts: 3,
        upstream: Noting,
    });
    let chain = ClassifyLayer::new(live(revision).1).layer(service_fn(move |mut call| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.call(&mut call).await }
    }));
    let (parts, body) = request(asks).into_parts();
    let client = ClientAddr { address: asks.address(), through_proxy: false };
    let call = Call { head: RequestHead::from(&parts).into(), body, client, trail: None };
    chain.oneshot(call).await.map(|answered| answered.body)
}

fn explained(revision: &Revision, directory: &Directory, asks: &Asks) -> Answer {
    let (routes, carriers) = (routes(), carriers());
    let (proxies, tags) = (TrustedProxies::default(), TagPolicy::default());
    let explainer = Explainer {
        routes: &routes,
        revision,
        directory,
        carriers: &carriers,
        proxies: &proxies,
        tags: &tags,
        max_target: usize::MAX,
    };
    let request = request(asks);
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
    let asked = Asked {
        method: request.method().to_string(),
        url: request.uri().to_string(),
        headers: headers.collect(),
        ip: asks.address(),
    };
    explainer.explain(&asked).unwrap()
}

/// How many worlds are tried: more by `GRAYLANE_CASES`.
fn cases() -> u32 {
    std::env::var("GRAYLANE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

/// Holds what the gateway does, and what `explain` says that it does, against the model.
fn compare(world: &impl World, format: Format, asks: &Asks) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let directory = world.instances().directory();
    let answer = explained(&revision(world, format), &directory, asks);
    let served = runtime.block_on(decided(revision(world, format), directory, asks));
    let lane = world.lane(asks);
    let (ports, fallback) = world.ports(lane);
    prop_assert_eq!(&answer.decision.status, lane, "{:?}\n{}", asks, world.yaml());
    prop_assert_eq!(&answer.decision.rule, &world.rule(asks), "{:?}\n{}", asks, world.yaml());
    prop_assert_eq!(answer.client.to_canonical(), asks.address().to_canonical());
    prop_assert_eq!(answer.version.as_deref(), world.version(lane), "{}", world.yaml());
    prop_assert_eq!(&answer.writes[0], &("gray".to_owned(), lane.to_owned()));
    match served {
        Ok((port, told)) => {
            // What came and stays as it was is not written.
            let unchanged =
                |line: &(String, String)| BROUGHT.contains(&(line.0.as_str(), line.1.as_str()));
            let told: Told = told.into_iter().filter(|line| !unchanged(line)).collect();
            prop_assert_eq!(&told, &answer.writes, "{:?}\n{}", asks, world.yaml());
            prop_assert!(ports.contains(&port), "{} not in {:?}\n{}", port, ports, world.yaml());
            let named = format!("127.0.0.1:{port}");
            prop_assert!(answer.instances.contains(&named), "{answer:#?}");
            prop_assert_eq!(answer.error, None);
            prop_assert_eq!(answer.fallback, fallback, "{}", world.yaml());
            let mut may: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            let mut said = answer.instances;
            may.sort();
            said.sort();
            prop_assert_eq!(said, may, "{}", world.yaml());
        }
        Err(error) => {
            prop_assert!(ports.is_empty(), "{:?}: {ports:?}\n{}", error, world.yaml());
            prop_assert_eq!(answer.error, Some(error.to_string()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_gateway_decides_as_the_model_does(world in native::world(), asks in asks()) {
        compare(&world, Format::Native, &asks)?;
    }

    #[test]
    fn the_spring_designs_documents_mean_what_the_model_says(world in spring::world(), asks in asks()) {
        compare(&world, Format::Spring, &asks)?;
    }
}
