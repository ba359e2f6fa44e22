use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use gray_mq::Producer;
use gray_mq::rocketmq::RocketMq;
use gray_starter::{GrayStatus, Starter};
use http::{HeaderMap, HeaderName, StatusCode};

use super::GrpcLink;

/// How a service of the chain calls the next one where the path does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// HTTP.
    #[default]
    Http,
    /// gRPC; all that follow go on by gRPC too.
    Grpc,
}

/// How a service goes on that was written without a thought of lanes: it calls a fixed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Astray {
    /// It copies all headers but the one that matters.
    WithoutTag(String),
    /// It copies all headers, to whatever lane the address is in.
    WithTag(String),
    /// It copies none.
    Bare(String),
}

impl Astray {
    /// Returns where it goes, and what it takes along of the headers that it was asked with.
    fn takes(&self, mut headers: HeaderMap) -> (&str, HeaderMap) {
        headers.remove("host");
        match self {
            Self::WithTag(to) => (to, headers),
            Self::WithoutTag(to) => {
                headers.remove("gray");
                headers.remove("baggage");
                (to, headers)
            }
            Self::Bare(to) => (to, HeaderMap::new()),
        }
    }
}

/// What an answer says about the hops behind it, which such a service copies as well.
fn report(headers: &HeaderMap) -> HeaderMap {
    let name = HeaderName::from_static("x-graylane-path");
    headers.get(&name).map(|report| (name, report.clone())).into_iter().collect()
}

/// One service of the chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its letter.
    pub letter: char,
    /// The letter of the next one, if there is one.
    pub next: Option<char>,
    /// Where it listens.
    pub addr: SocketAddr,
    /// How it calls the next one where the path does not say.
    pub transport: Transport,
    /// Its part in gray release.
    pub starter: Starter,
    /// Where it sends what it is asked for, where it does not care for lanes.
    pub astray: Option<Astray>,
    /// Whether it goes on by a task that does not know the request that it is for.
    pub forgets: bool,
    /// What it produces messages by, where it does.
    pub producer: Option<Producer<RocketMq>>,
}

/// Makes a service of the chain: `/A/http` goes on over HTTP, `/A/grpc` over gRPC, and `/A/dubbo`,
/// the path of the original, as well; `/A/go` by each service's own [`Transport`]. `/A/mq` is for who
/// consumes a message: nobody produces another one for it. What is posted to `/A/http` is posted on, and
/// the last one says what arrived.
pub fn chain(link: Link) -> Router {
    let letter = link.letter;
    let over_http = get(async |State(link): State<Link>, headers: HeaderMap| match &link.astray {
        Some(astray) => answer(link.go_astray(astray, headers).await),
        None => answer(link.over_http("http").await.map(|way| (HeaderMap::new(), way))),
    });
    let over_http = match link.astray {
        // Those are asked by GET alone.
        Some(_) => over_http,
        None => over_http.post(async |State(link): State<Link>, body: String| {
            answer(link.over_post(body).await.map(|way| (HeaderMap::new(), way)))
        }),
    };
    let over_mq = get(async |State(link): State<Link>| {
        answer(link.over_http("mq").await.map(|way| (HeaderMap::new(), way)))
    });
    let by_its_own = get(async |State(link): State<Link>| {
        answer(link.go().await.map(|way| (HeaderMap::new(), way)))
    });
    let over_grpc = get(async |State(link): State<Link>| {
        answer(link.over_grpc().await.map(|way| (HeaderMap::new(), way)))
    });
    let grpc = GrpcLink::new(link.clone());
    Router::new()
        .route(&format!("/{letter}/http"), over_http)
        .route(&format!("/{letter}/go"), by_its_own)
        .route(&format!("/{letter}/grpc"), over_grpc.clone())
        .route(&format!("/{letter}/dubbo"), over_grpc)
        .route(&format!("/{letter}/mq"), over_mq)
        .with_state(link)
        .route_service(GrpcLink::PATH, grpc)
}

fn answer(way: anyhow::Result<(HeaderMap, String)>) -> (StatusCode, HeaderMap, String) {
    match way {
        Ok((headers, way)) => (StatusCode::OK, headers, way + "\n"),
        Err(error) => (StatusCode::BAD_GATEWAY, HeaderMap::new(), format!("{error:#}\n")),
    }
}

/// The name under which a letter is registered.
pub(super) fn service_of(letter: char) -> String {
    format!("spring-cloud-{}", letter.to_ascii_lowercase())
}

impl Link {
    /// Goes on by this service's own transport. The last of the chain calls itself, by its name: it
    /// has nobody else to call.
    ///
    /// # Errors
    ///
    /// Where the next one does not answer well.
    pub async fn work(self) -> anyhow::Result<String> {
        let next = self.next.unwrap_or(self.letter);
        Self { next: Some(next), ..self }.go().await
    }

    async fn go(&self) -> anyhow::Result<String> {
        match self.transport {
            Transport::Http => self.over_http("go").await,
            Transport::Grpc => self.over_grpc().await,
        }
    }

    pub(super) fn name(&self) -> String {
        let lane = match self.starter.own_status() {
            GrayStatus::Gray(lane) => lane.to_string(),
            GrayStatus::All | GrayStatus::Prod => String::new(),
        };
        format!("{}{lane}[{}]", self.letter, self.addr.ip())
    }

    pub(super) async fn over_http(&self, way: &str) -> anyhow::Result<String> {
        let Some(next) = self.next else {
            if way != "mq" {
                self.produce().await?;
            }
            return Ok(self.name());
        };
        self.ask(next, way, None).await
    }

    async fn over_post(&self, body: String) -> anyhow::Result<String> {
        match self.next {
            Some(next) => self.ask(next, "http", Some(body)).await,
            None => Ok(format!("{} <- {body}", self.name())),
        }
    }

    /// Asks the next one, by POST where there is a body.
    async fn ask(&self, next: char, way: &str, body: Option<String>) -> anyhow::Result<String> {
        let url = format!("http://{}/{next}/{way}", service_of(next));
        let client = self.starter.client();
        let ask = async move {
            let call = match body {
                Some(body) => client.post(&url).body(body),
                None => client.get(&url),
            };
            let answer = call.send().await?;
            anyhow::Ok((answer.status(), answer.text().await?))
        };
        let (status, text) = if self.forgets { tokio::spawn(ask).await?? } else { ask.await? };
        anyhow::ensure!(status.is_success(), "{next} answers {status}: {text}");
        Ok(format!("{} -> {}", self.name(), text.trim_end()))
    }

    async fn produce(&self) -> anyhow::Result<()> {
        match &self.producer {
            Some(producer) => super::messages::tell(producer, &self.name()).await,
            None => Ok(()),
        }
    }

    async fn go_astray(
        &self,
        astray: &Astray,
        headers: HeaderMap,
    ) -> anyhow::Result<(HeaderMap, String)> {
        let next = self.next.unwrap_or(self.letter);
        let (to, headers) = astray.takes(headers);
        let url = format!("{to}/{next}/http");
        let answer = reqwest::Client::new().get(url).headers(headers).send().await?;
        let report = report(answer.headers());
        Ok((report, format!("{} -> {}", self.name(), answer.text().await?.trim_end())))
    }

    /// Answers a call over gRPC that came with these headers.
    pub(super) async fn asked_over_grpc(
        &self,
        headers: HeaderMap,
    ) -> anyhow::Result<(HeaderMap, String)> {
        let Some(astray) = &self.astray else {
            return Ok((HeaderMap::new(), self.over_grpc().await?));
        };
        let (to, headers) = astray.takes(headers);
        let (headers, way) = super::grpc::call_at(to, headers).await?;
        Ok((report(&headers), format!("{} -> {way}", self.name())))
    }

    pub(super) async fn over_grpc(&self) -> anyhow::Result<String> {
        let Some(next) = self.next else {
            self.produce().await?;
            return Ok(self.name());
        };
        let way = super::grpc::call(self.starter.channel(&service_of(next))).await?;
        Ok(format!("{} -> {way}", self.name()))
    }
}
