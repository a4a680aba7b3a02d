//! The server: binds, accepts, answers, drains.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper_util::{rt::TokioIo, server::conn::auto};
use prometheus_client::metrics::gauge::Gauge;
use quorate_communication::{
    event_bus::webhook::{Allowed, Calls, WebhookError},
    message_queue::QueueError,
    request::Requests,
};
use quorate_consistency::saga::choreography::ProcessError;
use quorate_data::{
    materialized_view::ViewError,
    store::{OpenError, SqlError, Store, StoreError, postgres, sqlite},
    subscription::SubscriptionError,
};
use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::{policy::Registry, stack::Stacks, timeout::Timers};
use quorate_runtime::{
    Env,
    disk::unfinished,
    net::{Io, Listener},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    config::{Config, Network},
    http::{
        Node, Rooms, Surface,
        connection::{Open, TICK, Verdict, Watched},
        limits, sending,
    },
    policy_folder,
    quota::StoreQuota,
    rates::Rates,
    verbs::{
        Breakers, Coordinating, DeclareSagaError, DurableSubscriptions, Idempotency, InboxCare, MessageQueues,
        OnceError, Policies, ProcessCare, RelayCare, RequestCare, SagaCare, Transactions, ViewCare, WebhookCare,
    },
    view_folder,
};

/// Why the server could not start, or not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The data directory cannot be made.
    #[error("the data directory `{path}` cannot be made", path = path.display())]
    Folder {
        /// The directory.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store's tables cannot be made.
    #[error("the table of kept replies cannot be made")]
    Tables(#[source] OnceError),
    /// The tables of the durable subscriptions cannot be made.
    #[error("the tables of the durable subscriptions cannot be made")]
    Subscriptions(#[source] SubscriptionError),
    /// The tables of the message queues cannot be made, or what they hold cannot be read.
    #[error("the message queues cannot be opened")]
    Queues(#[source] QueueError),
    /// The table of types of requests cannot be made.
    #[error("the types of requests cannot be opened")]
    Requests(#[source] SqlError),
    /// The tables of the sagas cannot be made, or what they hold cannot be read.
    #[error("the sagas cannot be opened")]
    Sagas(#[source] DeclareSagaError),
    /// The tables of the processes cannot be made, or what they hold cannot be read.
    #[error("the processes cannot be opened")]
    Processes(#[source] ProcessError),
    /// The tables of the webhooks cannot be made.
    #[error("the webhooks cannot be opened")]
    Webhooks(#[source] WebhookError),
    /// The tables of the views cannot be made.
    #[error("the tables of the views cannot be made")]
    Views(#[source] ViewError),
    /// The table of policies cannot be made or read.
    #[error("the table of policies cannot be made or read")]
    Policies(#[source] SqlError),
    /// The folder of policies holds what cannot be in force.
    #[error("the policies in `{folder}` cannot be in force:\n{wrong}", folder = folder.display())]
    PolicyFolder {
        /// The folder.
        folder: std::path::PathBuf,
        /// Everything that is wrong, each with file, line and field.
        wrong: String,
    },
    /// The store could not be closed well; what was acknowledged is safe.
    #[error("the store could not be closed")]
    Close(#[source] StoreError),
}

/// A server that holds its address and its store and takes no requests yet.
///
/// # Example
/// ```no_run
/// # async fn example() -> Result<(), quorate_node::ServeError> {
/// let server = quorate_node::Server::bind(
///     quorate_node::config::Config::in_folder("quorate-data"),
///     quorate_runtime::Env::real(),
/// ).await?;
/// println!("listening on {}", server.local_addr());
/// server.run().await
/// # }
/// ```
pub struct Server {
    listener: Box<dyn Listener>,
    address: SocketAddr,
    surface: Surface,
    http: Env,
    store: Store,
    policies: Option<(policy_folder::Folder, Duration)>,
}

/// Runs a server until `env`'s tasks are told to stop, then drains it and closes its store.
///
/// # Errors
/// See [`ServeError`]. Nothing acknowledged is lost, however it ends.
///
/// # Cancel safety
/// Dropping the future stops accepting; requests in progress go on in `env`'s tasks. Stop it through `env` instead.
pub async fn serve(config: Config, env: Env) -> Result<(), ServeError> {
    Server::bind(config, env).await?.run().await
}

/// Removes copies and archives that a process before left half written. The store is open: nobody else writes any.
async fn sweep(config: &Config, env: &Env) {
    let (disk, folders) = (env.disk().clone(), [config.backups(), config.key_backups(), config.archives()]);
    let swept = env.run_blocking(move || folders.map(|folder| unfinished::sweep(&*disk, &folder))).await;
    for swept in swept {
        match swept {
            Ok(left) => left.iter().for_each(|file| {
                tracing::info!(file = %file.display(), "removed what was left of a copy that did not end");
            }),
            Err(cause) => tracing::warn!(%cause, "a folder for copies could not be looked through"),
        }
    }
}

/// Opens the store that `config` names, making it if it is not there.
async fn open_store(config: &Config, env: &Env) -> Result<Store, ServeError> {
    if let Some(config) = config.postgres() {
        return Ok(postgres::open(env, config).await?);
    }
    let (disk, folder) = (env.disk().clone(), config.data.clone());
    let made = env.run_blocking(move || disk.create_dir_all(&folder)).await;
    made.map_err(|cause| ServeError::Folder { path: config.data.clone(), cause })?;
    let store = sqlite::open(env, config.store()).await?;
    sweep(config, env).await;
    Ok(store)
}

impl Server {
    /// Opens the store, takes the address, and takes no requests yet.
    pub async fn bind(config: Config, env: Env) -> Result<Self, ServeError> {
        let listen = |cause| ServeError::Listen { listen: config.listen, cause };
        // The address first: a second server is refused before it touches the store.
        let listener = env.net().listen(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        // Requests need what the store does in the background until the last of them has ended.
        let of_store = env.apart("store");
        let until_dropped = of_store.tasks().stop().clone().drop_guard();
        let store = open_store(&config, &of_store).await?;
        let idempotency = Idempotency::open(store.clone()).await.map_err(ServeError::Tables)?;
        let subscriptions = DurableSubscriptions::open(&store).await.map_err(ServeError::Subscriptions)?;
        let queues = MessageQueues::open(&store).await.map_err(ServeError::Queues)?;
        let views = ViewCare::open(&store, config.queries.clone()).await.map_err(ServeError::Views)?;
        if config.view_folder.is_some() {
            views.views().map_err(ServeError::Views)?;
        }
        let http = env.scope("http");
        let (timers, breakers) = (Timers::new(&http), Breakers::new(&http));
        let policies = open_policies(&http, &store, &timers, &breakers).await.map_err(ServeError::Policies)?;
        policies.begin().await;
        let folder = match config.policy_folder.clone() {
            Some((path, every)) => {
                let mut folder = policy_folder::Folder::new(http.clone(), policies.clone(), path.clone());
                match folder.look().await {
                    Ok(()) => {}
                    Err(policy_folder::Refused::Files(wrong)) => {
                        return Err(ServeError::PolicyFolder { folder: path, wrong });
                    }
                    // As while it runs: whoever could delete what is declared needs a node that is up.
                    Err(policy_folder::Refused::BesideDeclared(wrong)) => {
                        tracing::warn!(folder = %path.display(), wrong, "policies were refused; those declared hold");
                    }
                }
                Some((folder, every))
            }
            None => None,
        };
        let lent = (&timers, &policies, &breakers);
        let calls = calls(&http, config.webhook_targets.clone(), lent);
        let request_types = RequestCare::open(&http, &store, &queues, calls.clone()).await;
        let request_types = request_types.map_err(ServeError::Requests)?;
        // The policies first: what is open goes on, and its calls pass them.
        let sagas = SagaCare::open(&of_store, &store, policies.registry(), config.sagas.clone());
        let sagas = sagas.await.map_err(ServeError::Sagas)?;
        let processes = ProcessCare::open(&store).await.map_err(ServeError::Processes)?;
        let rates = Rates::new(&http, &store, &config.rates);
        let webhooks = WebhookCare::open(&store, &subscriptions, calls).await.map_err(ServeError::Webhooks)?;
        let relays = RelayCare::new(&store, &queues, &config.relays);
        let inboxes = InboxCare::new(&store, &queues, &config.inboxes);
        let transactions = Transactions::of(&store);
        let of_participants = calls_of(&store, &config, lent);
        let coordinating = Coordinating::new(
            &store,
            &transactions,
            (of_participants, policies.registry().clone()),
            config.transactions.clone(),
        );
        let rooms = Rooms {
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
        };
        let surface = Surface::new(Node::new(config, http.clone(), store.clone(), rooms));
        Ok(Self { listener, address, surface, http, store, policies: folder })
    }

    /// Where it listens: the real port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The store it serves.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The transactions that its surface shows: a program that coordinates some lends its coordinator to it.
    pub fn transactions(&self) -> &Transactions {
        &self.surface.node().transactions
    }

    /// The circuit breakers that its surface shows and operates.
    pub fn breakers(&self) -> &Breakers {
        &self.surface.node().breakers
    }

    /// The resilience policies in force: a program that embeds the node makes its own calls through them.
    pub fn policies(&self) -> &Policies {
        &self.surface.node().policies
    }

    /// The requests of this node: a program that embeds it serves them with handlers of its own, and asks without a connection. What such a handler serves is asked over HTTP
    /// once its type is declared there with the same contract; requests and responders are this process's, those of durable types the store's.
    pub fn requests(&self) -> &Requests {
        self.surface.node().request_types.typed()
    }

    /// Takes requests until the environment's tasks are told to stop, and for the drain delay after that; then lets those
    /// in progress end, within the drain timeout, and closes the store. Where responders work on some, answers are taken until they are
    /// there. What the store does in the background goes on until then.
    pub async fn run(self) -> Result<(), ServeError> {
        tracing::info!(address = %self.address, "listening");
        self.http.tasks().spawn("watch", watch(self.surface.clone()));
        self.http.tasks().spawn("forget-replies", forget_replies(self.surface.clone()));
        if self.store.capabilities().retention {
            self.http.tasks().spawn("scavenge", scavenge(self.surface.clone()));
        }
        self.http.tasks().spawn("webhooks", self.surface.node().webhooks.clone().run(self.http.clone()));
        self.http.tasks().spawn("callbacks", self.surface.node().request_types.clone().call_back(self.http.clone()));
        self.http.tasks().spawn("coordinator", self.surface.node().coordinating.clone().run(self.http.clone()));
        if !self.surface.node().config.relays.is_empty() {
            self.http.tasks().spawn("relays", self.surface.node().relays.clone().run(self.http.clone()));
        }
        if !self.surface.node().config.inboxes.is_empty() {
            self.http.tasks().spawn("inboxes", self.surface.node().inboxes.clone().run(self.http.clone()));
        }
        if let Some((folder, every)) = self.surface.node().config.view_folder.clone() {
            let views = self.surface.node().views.clone();
            self.http.tasks().spawn("view-folder", view_folder::watch(self.http.clone(), views, folder, every));
        }
        if let Some((folder, every)) = self.policies {
            self.http.tasks().spawn("policy-folder", folder.watch(every));
        }
        let stop = self.http.tasks().stop().clone();
        accept(&*self.listener, &self.surface, stop.cancelled()).await;
        let delay = self.surface.node().config.http.drain_delay;
        if !delay.is_zero() {
            tracing::info!(?delay, "told to stop; requests are taken until others have noticed");
            let noticed = async {
                tokio::select! {
                    () = self.http.sleep(delay) => {}
                    () = sweep_connections(self.surface.node()) => {}
                }
            };
            accept(&*self.listener, &self.surface, noticed).await;
        }
        let drained_by = self.http.mono() + self.surface.node().config.http.drain_timeout;
        // Responders answer over new connections.
        accept(&*self.listener, &self.surface, see_off(self.surface.node())).await;
        drop(self.listener);
        drain(&self.surface, &self.http, drained_by).await;
        if let Ok(views) = self.surface.node().views.views() {
            views.shut_down().await;
        }
        self.surface.node().coordinating.shut_down().await;
        self.surface.node().inboxes.shut_down().await;
        self.surface.node().relays.shut_down().await;
        let closed = self.store.close().await;
        self.store.env().tasks().shut_down().await;
        closed.map_err(ServeError::Close)?;
        tracing::info!(address = %self.address, "stopped");
        Ok(())
    }
}

async fn open_policies(env: &Env, store: &Store, timers: &Timers, breakers: &Breakers) -> Result<Policies, SqlError> {
    let refused = Gauge::default();
    let help = "1 while policies that were asked for are not in force";
    env.metrics().register("quorate_policies_refused", help, refused.clone());
    // One key for each dependency, and some for those of other nodes.
    let most_keys = NonZeroUsize::MIN.saturating_add(4 * Registry::MOST);
    let quota = StoreQuota::of(store, Name::new("calls").unwrap_or_else(|_| unreachable!("this is a name")), most_keys);
    let registry = Registry::counting_in(&Stacks::new(timers), breakers.registry(), Arc::new(quota));
    Policies::open(store, registry, refused).await
}

/// How participants of transactions are called. What is decided is told for as long as the store is open.
fn calls_of(store: &Store, config: &Config, lent: (&Timers, &Policies, &Breakers)) -> Calls {
    calls(&store.env().scope("participants"), config.transactions.targets.clone(), lent)
}

/// How others are called: through the policies and breakers that the surface shows, and only whom the configuration allows.
fn calls(env: &Env, targets: Vec<Network>, lent: (&Timers, &Policies, &Breakers)) -> Calls {
    let (timers, policies, breakers) = lent;
    let allowed = Allowed::also(move |address| targets.iter().any(|network| network.contains(address)));
    Calls::with(env, timers.clone(), policies.registry().clone(), breakers.registry().clone()).allowing(allowed)
}

/// Told to a connection beyond the limit.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
/// How long to wait when the system has no more file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Takes connections until `end`.
async fn accept(listener: &dyn Listener, surface: &Surface, end: impl Future<Output = ()>) {
    let (node, builder) = (surface.node(), Arc::new(builder(surface.node())));
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            biased;
            () = end.as_mut() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((mut io, peer)) => match node.connections.open(node.env.mono(), peer.ip()) {
                Some(open) => {
                    node.env
                        .tasks()
                        .spawn("connection", drive(io, open, peer.ip(), (surface.clone(), builder.clone())));
                }
                None => {
                    node.refused();
                    // A new socket's buffer takes this at once; one that does not is closed without a word.
                    let _ = io.write_all(FULL).now_or_never();
                }
            },
            Err(cause) => {
                tracing::warn!(%cause, "a connection could not be accepted");
                node.env.sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Spawns HTTP/2's tasks in the task tree.
#[derive(Clone)]
struct Spawner(Env);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.tasks().spawn("http2", sending::stream(task));
    }
}

/// hyper reads no clock here: `Date` is ours, and connections are watched from outside.
fn builder(node: &Node) -> auto::Builder<Spawner> {
    let mut builder = auto::Builder::new(Spawner(node.env.clone()));
    let http = &node.config.http;
    builder.http1().auto_date_header(false).max_buf_size(http.max_header).header_read_timeout(None);
    builder
        .http2()
        .auto_date_header(false)
        .max_header_list_size(u32::try_from(http.max_header).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(http.max_streams).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits::RESETS)
        .max_local_error_reset_streams(limits::RESETS)
        .initial_stream_window_size(limits::WINDOW)
        .initial_connection_window_size(limits::WINDOW)
        .max_send_buf_size(limits::SEND_BUFFER);
    builder
}

/// Serves one connection to its end.
async fn drive(io: Box<dyn Io>, open: Open, peer: IpAddr, (surface, builder): (Surface, Arc<auto::Builder<Spawner>>)) {
    let activity = open.activity.clone();
    let io = TokioIo::new(Watched::new(io, activity.clone(), surface.node().env.clone()));
    let of_service = activity.clone();
    let service = hyper::service::service_fn(move |request| surface.clone().answer(request, of_service.clone(), peer));
    let mut connection = pin!(builder.serve_connection(io, service));
    loop {
        let verdict = tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(cause) = ended {
                    tracing::debug!(%cause, "a connection broke off");
                }
                return;
            }
            verdict = activity.verdict() => verdict,
        };
        match verdict {
            Verdict::Keep => {}
            Verdict::Finish => connection.as_mut().graceful_shutdown(),
            Verdict::End => return,
        }
    }
}

/// Looks at the connections now and then, until the server is told to stop.
async fn watch(surface: Surface) {
    let node = surface.node();
    tokio::select! {
        biased;
        () = node.env.tasks().stop().cancelled() => {}
        () = sweep_connections(node) => {}
    }
}

/// Looks at the connections now and then, for ever.
async fn sweep_connections(node: &Node) {
    loop {
        node.env.sleep(TICK).await;
        node.connections.sweep(node.env.mono());
    }
}

/// How often old replies are forgotten.
const FORGET: Duration = Duration::from_secs(60);

async fn forget_replies(surface: Surface) {
    let node = surface.node();
    loop {
        tokio::select! {
            biased;
            () = node.env.tasks().stop().cancelled() => return,
            () = node.env.sleep(FORGET) => {}
        }
        if let Err(cause) = node.idempotency.sweep(node.config.keep_replies).await {
            tracing::warn!(%cause, "old replies could not be forgotten");
        }
    }
}

/// Forgets what streams' rules no longer keep, now and then.
async fn scavenge(surface: Surface) {
    let node = surface.node();
    let stop = node.env.tasks().stop();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = node.env.sleep(node.config.scavenge_every) => {}
        }
        // What was begun is written down, so that it can be left at any moment.
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            done = node.streams.scavenge() => done,
        };
        match done {
            Ok(done) if done.events > 0 => tracing::info!(done.streams, done.events, "expired events were forgotten"),
            Ok(_) => {}
            Err(cause) => tracing::warn!(%cause, "expired events could not be forgotten"),
        }
    }
}

/// Waits until responders have answered what they work on, or may take no longer, and has them leave.
async fn see_off(node: &Node) {
    // The rest of the time is for telling callers.
    let most = node.config.http.drain_timeout.mul_f64(0.9);
    tokio::select! {
        biased;
        () = node.request_types.see_off() => {}
        () = node.env.sleep(most) => {}
        () = sweep_connections(node) => {}
    }
    node.request_types.dismiss();
}

/// Lets requests in progress end; ends what has not by the deadline.
async fn drain(surface: &Surface, http: &Env, drained_by: Mono) {
    let node = surface.node();
    node.connections.tell_all(Verdict::Finish);
    let ended = http.timeout(drained_by.saturating_since(http.mono()), http.tasks().shut_down()).await;
    if ended.is_none() {
        tracing::warn!("requests were still in progress at the end of the drain timeout");
        node.connections.tell_all(Verdict::End);
        http.tasks().shut_down().await;
    }
}
