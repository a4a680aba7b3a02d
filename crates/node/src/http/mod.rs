//! The HTTP surface: translates requests into verbs and what they return into replies.

mod accept;
mod append;
mod body_in;
mod body_out;
mod breakers;
pub(crate) mod cloud_events;
pub(crate) mod connection;
mod deadline;
mod declaration;
mod document;
mod erasure;
mod event_types;
mod found;
mod guard;
mod health;
mod heeds;
mod idempotency;
mod inboxes;
mod json;
pub(crate) mod limits;
mod log;
mod memory;
mod metrics;
mod openapi;
mod page;
mod pages;
pub(crate) mod peers;
mod percent;
mod policies;
pub(crate) mod problem;
mod processes;
mod queues;
mod rate_limits;
mod rates;
mod relays;
mod reply;
mod request;
mod requests;
mod retention;
mod routes;
mod sagas;
mod schemas;
pub(crate) mod sending;
mod settling;
mod sse;
mod store;
mod streams;
mod subscriptions;
mod transactions;
mod views;
mod webhooks;

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::{body::Body, response::IntoResponse as _};
use http::{Request, Response};
use hyper::body::Incoming;
use quorate_data::store::Store;
use quorate_foundations::{time::Mono, trace::TraceParent};
use quorate_resilience::{deadline::Deadline, timeout::Timers};
use quorate_runtime::Env;
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;
use tower::Service as _;

use self::{
    body_out::Tracked,
    connection::{Activity, Connections},
    guard::Guard,
    memory::{ReplyMemory, Share},
    metrics::Metrics,
    peers::{Kind, Place},
    problem::{Code, Problem},
    reply::DateHeader,
};
use crate::{
    config::Config,
    rates::Rates,
    verbs::{
        Archives, Breakers, Coordinating, DurableSubscriptions, Erasures, EventSchemas, EventTypes, Idempotency,
        InboxCare, Limits, MessageQueues, Policies, ProcessCare, RelayCare, RequestCare, SagaCare, StoreCare, Streams,
        Transactions, ViewCare, WebhookCare,
    },
};

/// What requests are done with.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) env: Env,
    pub(crate) streams: Streams,
    pub(crate) archives: Archives,
    pub(crate) care: StoreCare,
    pub(crate) erasures: Erasures,
    pub(crate) subscriptions: DurableSubscriptions,
    pub(crate) queues: MessageQueues,
    pub(crate) request_types: RequestCare,
    pub(crate) relays: RelayCare,
    pub(crate) inboxes: InboxCare,
    pub(crate) sagas: SagaCare,
    pub(crate) processes: ProcessCare,
    pub(crate) transactions: Transactions,
    pub(crate) coordinating: Coordinating,
    pub(crate) webhooks: WebhookCare,
    pub(crate) schemas: EventSchemas,
    pub(crate) event_types: EventTypes,
    pub(crate) views: ViewCare,
    pub(crate) breakers: Breakers,
    pub(crate) policies: Policies,
    pub(crate) limits: Limits,
    pub(crate) idempotency: Idempotency,
    pub(crate) connections: Arc<Connections>,
    metrics: Metrics,
    guard: Guard,
    timers: Timers,
    rates: Rates,
    date: DateHeader,
    /// Requests in progress.
    requests: Arc<Semaphore>,
    /// Requests in progress that wait for a responder: beside the others, so that its answer finds a place.
    asking: Arc<Semaphore>,
    /// Requests in progress that ask how the node is.
    probes: Arc<Semaphore>,
    /// Kibibytes of bodies being received.
    memory: Arc<Semaphore>,
    /// What replies take that are being put together and being sent.
    replies: ReplyMemory,
    _until_dropped: DropGuard,
}

/// What was opened for a node.
pub(crate) struct Rooms {
    pub(crate) idempotency: Idempotency,
    pub(crate) subscriptions: DurableSubscriptions,
    pub(crate) queues: MessageQueues,
    pub(crate) request_types: RequestCare,
    pub(crate) relays: RelayCare,
    pub(crate) inboxes: InboxCare,
    pub(crate) sagas: SagaCare,
    pub(crate) processes: ProcessCare,
    pub(crate) webhooks: WebhookCare,
    pub(crate) views: ViewCare,
    pub(crate) timers: Timers,
    pub(crate) breakers: Breakers,
    pub(crate) policies: Policies,
    pub(crate) rates: Rates,
    pub(crate) transactions: Transactions,
    pub(crate) coordinating: Coordinating,
    /// Ends what the store does in the background, when nobody serves it any more.
    pub(crate) until_dropped: DropGuard,
}

type Shared = Arc<Node>;

/// The HTTP surface as one service.
#[derive(Clone)]
pub(crate) struct Surface {
    node: Shared,
    router: axum::Router,
}

impl Node {
    pub(crate) fn new(config: Config, env: Env, store: Store, rooms: Rooms) -> Self {
        let Rooms {
            idempotency,
            subscriptions,
            queues,
            request_types,
            relays,
            inboxes,
            sagas,
            processes,
            webhooks,
            views,
            timers,
            breakers,
            policies,
            rates,
            transactions,
            coordinating,
            until_dropped,
        } = rooms;
        let connections = Arc::new(Connections::new(config.http.clone()));
        let archives = Archives::new(store.clone(), config.archives());
        let schemas = EventSchemas::new(&store);
        Self {
            streams: Streams::new(store.clone()),
            event_types: EventTypes::new(
                &store,
                schemas.clone(),
                (subscriptions.clone(), relays.clone(), webhooks.clone(), views.clone()),
            ),
            transactions,
            coordinating,
            schemas,
            metrics: Metrics::register(&env, &connections, &store),
            erasures: Erasures::new(store.clone()),
            care: StoreCare::new(store, archives.clone(), config.backups(), config.key_backups()),
            archives,
            idempotency,
            subscriptions,
            queues,
            request_types,
            relays,
            inboxes,
            sagas,
            processes,
            webhooks,
            views,
            breakers,
            limits: Limits::new(rates.clone(), policies.registry().clone()),
            policies,
            connections,
            guard: Guard::new(&config),
            timers,
            rates,
            date: DateHeader::default(),
            requests: Arc::new(Semaphore::new(config.http.max_requests)),
            asking: Arc::new(Semaphore::new(peers::asking(config.http.max_requests))),
            probes: Arc::new(Semaphore::new(config.http.max_probes)),
            memory: Arc::new(Semaphore::new(config.http.body_memory >> 10)),
            replies: ReplyMemory::new(config.http.reply_memory),
            _until_dropped: until_dropped,
            config,
            env,
        }
    }

    /// A place for a request of the connection that `activity` watches.
    fn admit(&self, kind: Kind, activity: &Activity) -> Result<Place, Problem> {
        let most = kind.most(&self.config.http);
        let of_peer = activity.peer.as_ref().map(|peer| peer.enter(kind, most)).map(|place| {
            let why = || format!("{most} requests of this address are in progress, and more has no one alone");
            let refused =
                || Problem::new(Code::TooManyRequests, why()).with("limit", most).with("setting", kind.setting());
            place.ok_or_else(|| refused().after(RETRY))
        });
        let of_peer = of_peer.transpose()?;
        let places = match kind {
            Kind::Request => &self.requests,
            Kind::Asking => &self.asking,
            Kind::Probe => &self.probes,
        };
        let full = |_| Problem::new(Code::Overloaded, "too many requests are in progress").after(RETRY);
        Ok(Place { _of_all: places.clone().try_acquire_owned().map_err(full)?, _of_peer: of_peer })
    }

    /// A connection beyond the limit was turned away.
    pub(crate) fn refused(&self) {
        self.metrics.refused();
    }

    /// Whether the node has been told to stop.
    fn is_stopping(&self) -> bool {
        self.env.tasks().stop().is_cancelled()
    }
}

impl Surface {
    pub(crate) fn new(node: Node) -> Self {
        let node = Arc::new(node);
        Self { router: routes::router(node.clone()), node }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The deadline of a request that its client may make.
    async fn allowed(
        &self,
        kind: Kind,
        request: &Request<Incoming>,
        (peer, came): (IpAddr, Mono),
        told: &mut rates::Told,
    ) -> Result<Deadline, Problem> {
        let deadline = deadline::of(request, came)?;
        // Whoever asks how the node is does so on a schedule, and must be told.
        if kind != Kind::Probe {
            rates::admit(&self.node.rates, peer, request.headers(), told).await?;
            deadline::not_over(deadline, self.node.env.mono())?;
        }
        Ok(deadline)
    }

    /// Answers one request of `peer` on the connection that `activity` watches.
    pub(crate) async fn answer(
        mut self,
        request: Request<Incoming>,
        activity: Arc<Activity>,
        peer: IpAddr,
    ) -> Result<Response<Tracked>, Infallible> {
        let busy = activity.begin(self.node.env.clone(), request.version());
        let trace = trace_id(&request);
        let kind = match &request {
            probe if is_probe(probe) => Kind::Probe,
            asking if requests::is_asking(asking) => Kind::Asking,
            _ => Kind::Request,
        };
        let now = self.node.env.mono();
        let mut told_of_rates = rates::Told::default();
        // A place comes first: what limits count may be counted in the store, which only so many requests may ask at a time.
        let admitted = match self.node.guard.check(&request).and_then(|()| self.node.admit(kind, &activity)) {
            Ok(place) => {
                self.allowed(kind, &request, (peer, now), &mut told_of_rates).await.map(|deadline| (place, deadline))
            }
            Err(problem) => Err(problem),
        };
        let (place, response) = match admitted {
            Ok((place, deadline)) => {
                let method = request.method().clone();
                // Nobody reads the body of a request that only asks: it is not kept until the answer is there.
                let mut request = request.map(|body| if method.is_safe() { Body::empty() } else { Body::new(body) });
                // Who asks a responder is told at the deadline whether that had begun.
                let outer = if kind == Kind::Asking { Deadline::NEVER } else { deadline };
                request.extensions_mut().insert(deadline);
                let work = self.router.call(request);
                let mut response = deadline::within(&self.node.timers, (now, outer), &method, work).await;
                // How the node is has to be told also when others' replies take all memory; there are only so many probes.
                let share = match kind {
                    Kind::Probe => Ok(Share::default()),
                    Kind::Request | Kind::Asking => self.node.share_of_whole(&method, &mut response),
                };
                (Some(place), share.map(|share| (share, response)))
            }
            Err(problem) => (None, Err(problem)),
        };
        let (share, response) = response.unwrap_or_else(|problem| (Share::default(), problem.into_response()));
        let mut response = told(response, trace);
        told_of_rates.stamp(response.headers_mut());
        self.node.date.stamp(&self.node.env, response.headers_mut());
        self.node.metrics.answered(response.status());
        Ok(response.map(|body| Tracked::new(body, busy, place, share)))
    }
}

/// Whether a request asks how the node is.
fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/livez" | "/readyz" | "/startupz" | "/metrics")
}

/// Renders the problem that a reply carries, if it carries one.
fn told(mut response: Response<Body>, trace: Option<String>) -> Response<Body> {
    let problem = response.extensions_mut().remove::<Problem>();
    let Some(problem) = problem else { return response };
    reply::whole(trace.into_iter().fold(problem, |problem, id| problem.with("trace", id)).render())
}

/// The trace that the request belongs to, where it says so in a way that can be read.
fn trace_id<B>(request: &Request<B>) -> Option<String> {
    let text = request.headers().get("traceparent")?;
    TraceParent::from_bytes(text.as_bytes()).ok().map(|parent| parent.trace_id.to_string())
}

/// How soon a client that was turned away may come back.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);
