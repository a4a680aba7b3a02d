//! A service that answers by asking the next one, behind a stack.
//!
//! `GET /standing` says how its bulkhead and its circuit stand, if it has them.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use quorate_resilience::{
    CallError, Refuser,
    bulkhead::{self, Bulkhead, Limit, Queue},
    circuit_breaker::{self, Breaker, Open, State},
    client::{Client, Config},
    dice::Dice,
    http::{Http, received},
    retry::{self, Backoff, BudgetConfig, Jitter},
    stack::{Guarded, Stack},
    timeout::{self, Timers},
};
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service as _;

/// Where services listen.
pub(super) const PORT: u16 = 80;
/// The most attempts of a call.
pub(super) const ATTEMPTS: u32 = 3;
/// The longest wait between two attempts.
pub(super) const CAP: Duration = Duration::from_millis(500);
/// What each hop may send again.
pub(super) const BUDGET: BudgetConfig =
    BudgetConfig { percent: 20, interval: Duration::from_secs(10), floor_per_second: 1 };

/// How many calls a hop has under way at once, where it has a bulkhead.
pub(super) const PLACES: u32 = 10;
/// After how many failures in a row a circuit opens.
pub(super) const IN_A_ROW: u32 = 5;
/// For how long it is open, at least.
pub(super) const REST: Duration = Duration::from_secs(1);
/// Where a hop says how it stands.
pub(super) const STANDING: &str = "/standing";

/// What a hop's calls pass besides times and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guards {
    /// Nothing.
    None,
    /// A bulkhead and a circuit.
    PlacesAndCircuit,
}

/// What a hop's calls hold while they are under way.
struct Held {
    places: Arc<Bulkhead>,
    circuit: Arc<Breaker>,
}

impl Held {
    fn new(env: &Env) -> Result<Self, String> {
        let queue = Queue { length: 10, max_wait: Duration::from_millis(200) };
        let places = NonZeroU32::new(PLACES).unwrap_or(NonZeroU32::MIN);
        let places = bulkhead::Config { limit: Limit::Fixed(places), queue, ..bulkhead::Config::default() };
        let open = Open { min: REST, max: REST, jitter: 0.2 };
        let circuit = circuit_breaker::Config {
            consecutive: NonZeroU32::new(IN_A_ROW),
            failure_rate: None,
            open,
            probe_timeout: REST,
            ..circuit_breaker::Config::default()
        };
        let places = Bulkhead::new(places, env.mono()).map_err(|wrong| wrong.to_string())?;
        let dice = Dice::from_rng(&mut env.random("circuit breaker"));
        let circuit = Breaker::new(circuit, dice, env.mono()).map_err(|wrong| wrong.to_string())?;
        Ok(Self { places: Arc::new(places), circuit: Arc::new(circuit) })
    }

    /// How it stands: calls under way, calls that wait, and how its circuit stands.
    fn told(&self, env: &Env) -> String {
        let (places, circuit) = (self.places.snapshot(), self.circuit.snapshot(env.mono()));
        let state = match circuit.state {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half open",
        };
        if circuit.generation > 1 && circuit.state == State::Closed {
            env.reached("breaker: a circuit closed again");
        }
        format!("{} under way, {} waiting, {state}", places.in_flight, places.waiting)
    }
}

/// What a hop says of itself that holds nothing.
pub(super) const AT_REST: &str = "0 under way, 0 waiting, closed";

type Judge = fn(&quorate_resilience::client::Error) -> quorate_resilience::Verdict;
type Next = Guarded<Client, Http<Judge>>;

/// Serves until the world ends: each request becomes one call to `next`.
pub(super) async fn run(env: Env, next: SocketAddr, guards: Guards) -> Result<(), String> {
    // Long from the first wait on, so that what waits is a part of what the budget has to see.
    let backoff = Backoff { base: CAP, cap: CAP, jitter: Jitter::Full };
    let attempts = NonZeroU32::new(ATTEMPTS).unwrap_or(NonZeroU32::MIN);
    let second = Duration::from_secs(1);
    let judge: Judge = Client::judge;
    let held = match guards {
        Guards::None => None,
        Guards::PlacesAndCircuit => Some(Arc::new(Held::new(&env)?)),
    };
    let mut builder = Stack::builder("next".parse().map_err(|wrong| format!("{wrong}"))?)
        .timeouts(timeout::Config {
            total: Some(3 * second),
            attempt: Some(Duration::from_millis(800)),
            idle: None,
            refuse_hopeless: true,
        })
        .retry(retry::Config { attempts, backoff, longest_retry_after: second }, BUDGET);
    if let Some(held) = &held {
        builder = builder.shared_bulkhead(held.places.clone()).shared_endpoint_breaker(held.circuit.clone());
    }
    let stack =
        builder.build(&Timers::new(&env), Http::default().failing_as(judge)).map_err(|wrong| wrong.to_string())?;
    let client = stack.layer(Client::new(&env, Config::default()));
    let of_requests = env.clone();
    serve(env, move |request| {
        let (env, client, held) = (of_requests.clone(), client.clone(), held.clone());
        async move {
            match held {
                Some(held) if request.uri().path() == STANDING => {
                    Response::builder().body(Full::from(held.told(&env))).ok()
                }
                _ => answer(env, client, next, request).await,
            }
        }
    })
    .await
}

/// Has `answer` answer every request.
pub(super) async fn serve<F, A>(env: Env, answer: F) -> Result<(), String>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Option<Response<Full<Bytes>>>> + Send + 'static,
{
    let at = SocketAddr::from(([0, 0, 0, 0], PORT));
    let listener = env.net().listen(at).await.map_err(|cause| cause.to_string())?;
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((io, _)) = accepted else { continue };
        let (answer, stop) = (answer.clone(), env.tasks().stop().clone());
        env.tasks().spawn("connection", async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { answered.await.ok_or(Silent) }
            });
            let mut builder = http1::Builder::new();
            builder.auto_date_header(false).header_read_timeout(None);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = builder.serve_connection(TokioIo::new(io), service) => {}
            }
        });
    }
}

/// A request that gets no answer: its connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct Silent;

async fn answer(
    env: Env,
    mut client: Next,
    next: SocketAddr,
    request: Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let Ok(hop) = received(request.headers(), env.mono()) else { return status(StatusCode::BAD_REQUEST) };
    let mut onward =
        Request::get(format!("http://{next}{}", request.uri().path())).body(Full::<Bytes>::default()).ok()?;
    onward.extensions_mut().insert(hop);
    let told = match client.call(onward).await {
        Ok(answer) => {
            let told = answer.status();
            // Read to its end, so that the connection is kept.
            if answer.into_body().collect().await.is_err() { StatusCode::BAD_GATEWAY } else { told }
        }
        Err(CallError::Timeout { .. }) => StatusCode::GATEWAY_TIMEOUT,
        Err(CallError::Rejected(rejection)) => {
            match rejection.by() {
                Refuser::Breaker => env.reached("breaker: a call was refused"),
                Refuser::Bulkhead => env.reached("bulkhead: a call found no place"),
                Refuser::Limit | Refuser::Budget | Refuser::Deadline => {}
            }
            StatusCode::SERVICE_UNAVAILABLE
        }
        Err(_) => StatusCode::BAD_GATEWAY,
    };
    status(told)
}

/// An answer without a body.
pub(super) fn status(code: StatusCode) -> Option<Response<Full<Bytes>>> {
    Response::builder().status(code).body(Full::default()).ok()
}
