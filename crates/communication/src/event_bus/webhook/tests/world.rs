//! A world for tests: a store in a folder of its own, and receivers that listen on this machine.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Store, sqlite},
    subscription::{Backoff, Start, Subscriptions},
};
use quorate_foundations::name::Name;
use quorate_runtime::{
    BoxFuture, Env,
    net::{Io, Listener, Net},
};
use serde_json::Value;
use tokio::sync::watch;

use crate::event_bus::webhook::{Allowed, Attempt, Calls, Config, Description, Secret, Webhooks};

/// How long tests wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store, and the webhooks that are run over it.
pub(crate) struct World {
    folder: tempfile::TempDir,
    env: Env,
    pub(crate) store: Store,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) webhooks: Webhooks,
    running: Env,
    allowed: Allowed,
}

/// What a receiver was sent.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) path: String,
}

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    Answer(u16),
    /// With a `Retry-After` in seconds.
    Ask(u16, u64),
    /// With a `Location`.
    Redirect(String),
    /// With this text.
    Say(u16, &'static str),
    /// Never.
    Nothing,
    /// 200, once this is true.
    Once(watch::Receiver<bool>),
    /// 503 with a `Retry-After` in seconds, once this is true.
    AskOnce(watch::Receiver<bool>, u64),
}

type Answers = Arc<dyn Fn(&Got, usize) -> Does + Send + Sync>;

/// Somebody's service on a free port of this machine.
pub(crate) struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<Answers>>,
    env: Env,
}

/// This machine's network, in which some names lead somewhere.
struct Named {
    net: Arc<dyn Net>,
    names: BTreeMap<&'static str, IpAddr>,
}

impl Net for Named {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.net.listen(at)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.net.connect(to)
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        match self.names.get(host) {
            Some(address) => Box::pin(std::future::ready(Ok(vec![SocketAddr::new(*address, port)]))),
            None => self.net.resolve(host, port),
        }
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl World {
    /// One in which this machine may be called.
    pub(crate) async fn new() -> Self {
        Self::with(Allowed::also(|address| address.is_loopback())).await
    }

    /// One in which `evil.example` leads to this machine.
    pub(crate) async fn with(allowed: Allowed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = Env::real().into_parts();
        parts.net =
            Arc::new(Named { net: parts.net, names: BTreeMap::from([("evil.example", IpAddr::from([127, 0, 0, 1]))]) });
        let env = Env::from_parts(parts);
        Self::open(folder, env, allowed).await
    }

    async fn open(folder: tempfile::TempDir, env: Env, allowed: Allowed) -> Self {
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("s.db"))).await.unwrap();
        let subscriptions = Subscriptions::open(&store).await.unwrap();
        let calls = Calls::new(&env).allowing(allowed.clone());
        let webhooks = Webhooks::open(&store, &subscriptions, calls).await.unwrap();
        let running = env.scope("running");
        Self { folder, env, store, subscriptions, webhooks, running, allowed }
    }

    /// Runs the webhooks from now on.
    pub(crate) fn run(&self) {
        self.running.tasks().spawn("webhooks", self.webhooks.clone().run(self.running.clone()));
    }

    /// Stops running them, waits for what is under way, and closes the store; then a new process runs nothing yet.
    pub(crate) async fn restart(self) -> Self {
        self.running.tasks().shut_down().await;
        self.store.close().await.unwrap();
        let env = Env::from_parts(quorate_runtime::EnvParts { metrics: Arc::default(), ..self.env.into_parts() });
        Self::open(self.folder, env, self.allowed).await
    }

    pub(crate) async fn receiver(&self, answers: impl Fn(&Got, usize) -> Does + Send + Sync + 'static) -> Receiver {
        Receiver::new(&self.env, answers).await
    }

    /// Appends one event to each of `streams`, in this order.
    pub(crate) async fn append(&self, streams: &[&str]) {
        for stream in streams {
            let event = NewEvent::new(self.store.event_id(), "/shop", "order.placed").json(&br#"{"n": 1.50}"#[..]);
            let batch = AppendBatch::to(name(stream), ExpectedVersion::Any, vec![event]);
            self.store.append(batch).await.unwrap();
        }
    }

    /// Declares the webhook `w`, and returns its secret.
    pub(crate) async fn declare(&self, config: Config) -> Secret {
        self.webhooks.declare(&name("w"), config, None).await.unwrap().secret.expect("it is new")
    }

    pub(crate) async fn describe(&self) -> Description {
        self.webhooks.describe(&name("w")).await.unwrap()
    }

    /// The attempts of `w`, the oldest first.
    pub(crate) async fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = self.webhooks.attempts(&name("w"), u64::MAX, 1_000).await.unwrap();
        attempts.reverse();
        attempts
    }

    /// Waits until everything that was appended is settled or parked.
    pub(crate) async fn until_settled(&self) -> Description {
        self.until(|standing| standing.subscription.as_ref().is_some_and(|fed| fed.checkpoint == fed.head)).await
    }

    /// Waits until `w` stands so that `holds` is true.
    pub(crate) async fn until(&self, holds: impl Fn(&Description) -> bool) -> Description {
        let waiting = async {
            loop {
                let standing = self.describe().await;
                if holds(&standing) {
                    return standing;
                }
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        match self.env.timeout(PATIENCE, waiting).await {
            Some(standing) => standing,
            None => panic!("it stays so: {:?}", self.describe().await),
        }
    }

    /// Stops running them; false if that takes longer than tests wait.
    pub(crate) async fn stop(&self) -> bool {
        self.env.timeout(PATIENCE, self.running.tasks().shut_down()).await.is_some()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }
}

impl Receiver {
    pub(crate) async fn new(env: &Env, answers: impl Fn(&Got, usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = env.net().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Arc::new(answers)));
        let receiver =
            Self { address: listener.local_addr().unwrap(), got: Arc::default(), answers, env: env.scope("receiver") };
        let (got, answers, env) = (receiver.got.clone(), receiver.answers.clone(), receiver.env.clone());
        receiver.env.tasks().spawn("receiver", async move {
            while let Ok((io, _)) = listener.accept().await {
                let (got, answers) = (got.clone(), answers.clone());
                env.tasks().spawn("connection", async move {
                    let service = service_fn(|request| take(request, got.clone(), answers.clone()));
                    // A connection that breaks off is the caller's affair.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
                });
            }
        });
        receiver
    }

    /// Its address, for a webhook that does not wait for long.
    pub(crate) fn config(&self) -> Config {
        Config {
            start: Start::Beginning,
            timeout: Duration::from_secs(2),
            backoff: Backoff { first: Duration::from_millis(10), max: Duration::from_millis(40) },
            ..Config::to(self.url("127.0.0.1"))
        }
    }

    /// The same, under the name `host`.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hooks?a=b", self.address.port())
    }

    pub(crate) fn answer(&self, answers: impl Fn(&Got, usize) -> Does + Send + Sync + 'static) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }

    /// Everything it was sent so far, in the order of arrival.
    pub(crate) fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }

    /// Waits until it was sent `n` requests.
    pub(crate) async fn until(&self, n: usize) -> Vec<Got> {
        let waiting = async {
            while lock(&self.got).len() < n {
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            self.env.timeout(PATIENCE, waiting).await.is_some(),
            "{} of {n} came: {:?}",
            self.got().len(),
            self.got()
        );
        self.got()
    }
}

impl Got {
    /// The event in its body.
    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Which event of which stream.
    pub(crate) fn place(&self) -> (String, u64) {
        let event = self.event();
        (event["stream"].as_str().unwrap().to_owned(), event["streamversion"].as_str().unwrap().parse().unwrap())
    }

    pub(crate) fn is_of(&self, stream: &str) -> bool {
        self.place().0 == stream
    }

    pub(crate) fn id(&self) -> String {
        self.headers["webhook-id"].to_str().unwrap().to_owned()
    }
}

/// For each stream the versions in the order in which they first arrived.
pub(crate) fn first_arrivals(got: &[Got]) -> BTreeMap<String, Vec<u64>> {
    let mut all = BTreeMap::<String, Vec<u64>>::new();
    for (stream, version) in got.iter().map(Got::place) {
        let seen = all.entry(stream).or_default();
        if !seen.contains(&version) {
            seen.push(version);
        }
    }
    all
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(
    request: Request<Incoming>,
    all: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<Answers>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let got = Got { headers: head.headers, body, path: head.uri.to_string() };
    let n = {
        let mut all = lock(&all);
        all.push(got.clone());
        all.len()
    };
    let answer = lock(&answers).clone();
    let response = Response::builder();
    let (response, body) = match answer(&got, n) {
        Does::Answer(status) => (response.status(status), ""),
        Does::Ask(status, secs) => (response.status(status).header("retry-after", secs), ""),
        Does::Redirect(to) => (response.status(307).header("location", to), ""),
        Does::Say(status, text) => (response.status(status), text),
        Does::Nothing => std::future::pending().await,
        Does::Once(mut open) => {
            let _gone = open.wait_for(|open| *open).await;
            (response, "")
        }
        Does::AskOnce(mut open, secs) => {
            let _gone = open.wait_for(|open| *open).await;
            (response.status(503).header("retry-after", secs), "")
        }
    };
    Ok(response.body(Full::from(body)).unwrap())
}
