//! What the server is told: settings as people write them, configuration as code receives it.
//!
//! Settings come in four layers, each over the one before: defaults, `quorate.toml`, the environment (`QUORATE_…`),
//! flags. [`Layers`] merges them and remembers where each value came from; [`Config`] is the checked result.

mod error;
mod fixed;
mod follow;
mod inboxes;
mod layers;
mod network;
mod participants;
mod platform;
mod rates;
mod reach;
mod relays;
mod secrets;
mod settings;
mod units;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use quorate_consistency::saga;
use quorate_data::{
    materialized_view::QueryLimits,
    schema::{self, RegistryPolicy},
    store::{Limits, OpenError, postgres, sqlite},
};

pub use error::ConfigError;
pub use fixed::{FixedLimit, fixed_limits};
pub(crate) use inboxes::MAX_INBOXES;
pub use inboxes::{Destination, InboxSettings, InboxSpec, Template};
pub use layers::{Entry, LayerError, Layers, Source};
pub use network::{Network, NetworkError};
pub(crate) use participants::MAX_PARTICIPANTS;
pub use participants::{ParticipantSettings, TransactionConfig};
pub use rates::RateConfig;
pub(crate) use reach::ReachError;
pub use reach::{Password, Reach};
pub(crate) use relays::MAX_RELAYS;
pub use relays::{RelaySettings, RelaySpec};
pub use settings::{
    HttpSettings, IdempotencySettings, PolicySettings, RateCount, RateSettings, SagaSettings, SchemaSettings, Settings,
    StoreSettings, TransactionSettings, ViewSettings, WebhookSettings,
};
pub use units::ByteSize;

/// What the server runs with: checked, in plain types.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory that holds everything durable, where the store is the embedded one.
    pub data: PathBuf,
    /// The database that holds the store; `None`: the embedded one does.
    pub database: Option<Database>,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Hosts, beside this machine's own names, under which browsers and clients may address the node.
    pub allowed_hosts: Vec<String>,
    /// What the store accepts.
    pub limits: Limits,
    /// What the HTTP surface accepts.
    pub http: HttpConfig,
    /// How long the reply to an idempotency key is kept.
    pub keep_replies: Duration,
    /// How often what streams' rules no longer keep is forgotten.
    pub scavenge_every: Duration,
    /// The rules for schemas, and for events that have none.
    pub schemas: RegistryPolicy,
    /// A folder of documents that declare views, and how often it is looked at.
    pub view_folder: Option<(PathBuf, Duration)>,
    /// What queries of views may take.
    pub queries: QueryLimits,
    /// A folder of documents of resilience policies, and how often it is looked at.
    pub policy_folder: Option<(PathBuf, Duration)>,
    /// How often clients may ask.
    pub rates: RateConfig,
    /// How sagas are run.
    pub sagas: saga::Config,
    /// How long something may be in doubt before the node warns of it.
    pub doubt_limit: Duration,
    /// How the node coordinates transactions.
    pub transactions: TransactionConfig,
    /// Addresses that webhooks may call although they are not public.
    pub webhook_targets: Vec<Network>,
    /// What of the log is published, and where, in order of their names.
    pub relays: Vec<RelaySpec>,
    /// Which messages of others come in, and what becomes of them, in order of their names.
    pub inboxes: Vec<InboxSpec>,
}

/// A PostgreSQL that holds the store.
#[derive(Clone, Debug)]
pub struct Database {
    /// The server, the database and the user.
    pub address: postgres::Address,
    /// The schema of the store's tables.
    pub schema: String,
    /// The schema of the application's own tables, and its role.
    pub application: String,
    /// Connections at most.
    pub connections: usize,
    /// Whether it wakes this node when others gave positions; off behind a proxy that pools transactions.
    pub notifications: bool,
    /// How long a write tries to reach it.
    pub patience: Duration,
}

impl Database {
    /// The database at `address`, with the defaults.
    ///
    /// # Errors
    /// [`OpenError::Address`] names what is wrong with it.
    pub fn at(address: &str) -> Result<Self, OpenError> {
        let postgres::Config { address, schema, application, connections, notifications, patience, .. } =
            postgres::Config::at(address)?;
        Ok(Self { address, schema, application, connections, notifications, patience })
    }
}

/// What the HTTP surface accepts.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Open connections.
    pub max_connections: usize,
    /// Requests in progress, over all connections; a subscription counts for as long as it lasts.
    pub max_requests: usize,
    /// Open connections of one peer.
    pub max_peer_connections: usize,
    /// Requests in progress of one peer.
    pub max_peer_requests: usize,
    /// Peers that stand for many clients: they have no share.
    pub trusted_peers: Vec<Network>,
    /// Requests in progress on one HTTP/2 connection.
    pub max_streams: usize,
    /// Requests in progress that ask how the node is; they are not among `max_requests`.
    pub max_probes: usize,
    /// Bytes of one request's body.
    pub max_body: usize,
    /// Bytes of all bodies being received at one time.
    pub body_memory: usize,
    /// Bytes of all replies being put together and being sent at one time.
    pub reply_memory: usize,
    /// Bytes of a request's line and headers together.
    pub max_header: usize,
    /// Events, streams, … in one page of a reply.
    pub max_page: usize,
    /// How many there are in a page when the request does not say.
    pub default_page: usize,
    /// From a connection's first byte to the end of a request's headers.
    pub header_timeout: Duration,
    /// How long a connection may rest between requests.
    pub idle_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take for 8 KiB of a reply, or for all there is.
    pub write_timeout: Duration,
    /// The longest that a read waits for the write its token names.
    pub max_wait: Duration,
    /// Silence after which a subscription says that it is alive.
    pub heartbeat: Duration,
    /// How long the server goes on taking requests after it was told to stop, while `/readyz` says that it is stopping.
    pub drain_delay: Duration,
    /// How long requests in progress may take to end when the server stops.
    pub drain_timeout: Duration,
}

impl Config {
    /// The defaults with everything durable in `data`, on a free port of this machine: what tests want.
    pub fn in_folder(data: impl Into<PathBuf>) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings { data: data.into(), listen, ..Settings::default() };
        Self::try_from(settings).unwrap_or_else(|wrong| unreachable!("the defaults are a configuration: {wrong}"))
    }

    /// Where the embedded store lives, if that is the one, and what it accepts.
    pub fn store(&self) -> sqlite::Config {
        let (limits, schemas) = (self.limits.clone(), self.schemas);
        sqlite::Config { limits, schemas, ..sqlite::Config::at(self.data.join("quorate.db")) }
    }

    /// Which database holds the store, and what that accepts; `None`: the embedded one does.
    pub fn postgres(&self) -> Option<postgres::Config> {
        let Database { address, schema, application, connections, notifications, patience } = self.database.clone()?;
        let (limits, schemas) = (self.limits.clone(), self.schemas);
        Some(postgres::Config { address, schema, application, connections, notifications, patience, limits, schemas })
    }

    /// Where archives go.
    pub fn archives(&self) -> PathBuf {
        self.data.join("archives")
    }

    /// Where backups go.
    pub fn backups(&self) -> PathBuf {
        self.data.join("backups")
    }

    /// Where backups of data subjects' keys go: apart from those of the store.
    pub fn key_backups(&self) -> PathBuf {
        self.data.join("key-backups")
    }

    /// Whether only this machine reaches the node.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }
}

impl TryFrom<Settings> for Config {
    type Error = ConfigError;

    fn try_from(settings: Settings) -> Result<Self, ConfigError> {
        let Settings {
            data,
            listen,
            allow_remote,
            allowed_hosts,
            http,
            store,
            idempotency,
            retention,
            schemas,
            views,
            policies,
            rates,
            webhooks,
            sagas,
            transactions,
            relay,
            inbox,
            participant,
        } = settings;
        if !listen.ip().is_loopback() && !allow_remote {
            return Err(ConfigError::Exposed { listen });
        }
        check_zeros(&http, &store, &schemas, &views)?;
        if retention.scavenge_every.is_zero() {
            return Err(ConfigError::Zero { key: "retention.scavenge-every" });
        }
        if views.folder_every.is_zero() {
            return Err(ConfigError::Zero { key: "views.folder-every" });
        }
        if policies.folder_every.is_zero() {
            return Err(ConfigError::Zero { key: "policies.folder-every" });
        }
        if idempotency.keep.is_zero() {
            return Err(ConfigError::Zero { key: "idempotency.keep" });
        }
        if transactions.doubt_limit.is_zero() {
            return Err(ConfigError::Zero { key: "transactions.doubt-limit" });
        }
        if let Some(value) = allowed_hosts.iter().find(|host| !is_host(host)) {
            return Err(ConfigError::Host { value: value.clone() });
        }
        check_order(&http, &store)?;
        let rates = RateConfig::try_from(rates)?;
        let sagas = saga_config(&sagas)?;
        let relays = relays::specs(relay)?;
        let inboxes = inboxes::specs(inbox)?;
        let database = database(&store)?;
        let has_policies = !policies.folder.as_os_str().is_empty();
        let has_folder = !views.folder.as_os_str().is_empty();
        Ok(Self {
            data,
            database,
            listen,
            allowed_hosts: allowed_hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            limits: limits(&store),
            http: http_config(http),
            keep_replies: idempotency.keep,
            scavenge_every: retention.scavenge_every,
            schemas: policy(&schemas),
            queries: queries(&views),
            policy_folder: has_policies.then_some((policies.folder, policies.folder_every)),
            rates,
            sagas,
            doubt_limit: transactions.doubt_limit,
            transactions: TransactionConfig::new(transactions, participant)?,
            webhook_targets: webhooks.allow,
            relays,
            inboxes,
            view_folder: has_folder.then_some((views.folder, views.folder_every)),
        })
    }
}

/// Whether `text` can stand in `Host` where it names neither scheme nor port.
fn is_host(text: &str) -> bool {
    let named = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
    text.parse::<std::net::IpAddr>().is_ok() || (!text.is_empty() && text.bytes().all(named))
}

fn saga_config(&SagaSettings { takeover }: &SagaSettings) -> Result<saga::Config, ConfigError> {
    let range = saga::Config::TAKEOVER;
    if range.contains(&takeover) {
        return Ok(saga::Config { takeover, ..saga::Config::default() });
    }
    let (least, most) = range.into_inner();
    Err(ConfigError::OutOfRange { key: "sagas.takeover", value: takeover, least, most })
}

fn database(store: &StoreSettings) -> Result<Option<Database>, ConfigError> {
    if store.address.is_empty() {
        return Ok(None);
    }
    let database = Database::at(&store.address).map_err(|wrong| ConfigError::Address { what: wrong.to_string() })?;
    let StoreSettings { schema, application, connections, notifications, patience, .. } = store.clone();
    Ok(Some(Database { schema, application, connections, notifications, patience, ..database }))
}

fn check_zeros(
    http: &HttpSettings,
    store: &StoreSettings,
    schemas: &SchemaSettings,
    views: &ViewSettings,
) -> Result<(), ConfigError> {
    let counts = [
        ("http.max-connections", http.max_connections),
        ("http.max-requests", http.max_requests),
        ("http.max-peer-connections", http.max_peer_connections),
        ("http.max-peer-requests", http.max_peer_requests),
        ("http.max-streams", http.max_streams),
        ("http.max-probes", http.max_probes),
        ("http.max-page", http.max_page),
        ("http.default-page", http.default_page),
        ("http.max-body", http.max_body.get()),
        ("store.connections", store.connections),
        ("store.max-event", store.max_event.get()),
        ("store.max-batch-events", store.max_batch_events),
        ("store.max-batch", store.max_batch.get()),
        ("store.page", store.page.get()),
        ("store.max-waiting-writes", store.max_waiting_writes),
        ("store.max-waiting", store.max_waiting.get()),
        ("store.max-forgetting", store.max_forgetting),
        ("schemas.max-schema", schemas.max_schema.get()),
        ("schemas.max-versions", schemas.max_versions),
        ("schemas.max-types", schemas.max_types),
        ("schemas.max-total", schemas.max_total.get()),
        ("views.max-query-rows", views.max_query_rows),
        ("views.max-query-bytes", views.max_query_bytes.get()),
        ("views.max-query-memory", views.max_query_memory.get()),
        ("views.max-queries", views.max_queries),
        ("views.max-changes", views.max_changes),
    ];
    let spans = [
        ("http.header-timeout", http.header_timeout),
        ("http.idle-timeout", http.idle_timeout),
        ("http.body-timeout", http.body_timeout),
        ("http.write-timeout", http.write_timeout),
        ("http.heartbeat", http.heartbeat),
        ("store.max-unit-time", store.max_unit_time),
        ("store.patience", store.patience),
        ("views.max-query-time", views.max_query_time),
    ];
    let zero_count = counts.into_iter().find(|(_, value)| *value == 0).map(|(key, _)| key);
    let zero_span = spans.into_iter().find(|(_, value)| value.is_zero()).map(|(key, _)| key);
    zero_count.or(zero_span).map_or(Ok(()), |key| Err(ConfigError::Zero { key }))
}

fn check_order(http: &HttpSettings, store: &StoreSettings) -> Result<(), ConfigError> {
    let sizes = [
        ("store.max-batch", store.max_batch, "store.max-event", store.max_event),
        ("store.max-waiting", store.max_waiting, "store.max-batch", store.max_batch),
        ("store.max-transaction", store.max_transaction, "store.max-batch", store.max_batch),
        ("http.max-body", http.max_body, "store.max-event", store.max_event),
        ("http.body-memory", http.body_memory, "http.max-body", http.max_body),
        ("http.reply-memory", http.reply_memory, "the least one reply may take", ByteSize::new(8 << 20)),
        ("http.max-header", http.max_header, "the least HTTP allows for", ByteSize::new(8 << 10)),
    ];
    for (small, small_is, large, large_is) in sizes {
        if small_is < large_is {
            let (small_is, large_is) = (small_is.to_string(), large_is.to_string());
            return Err(ConfigError::Disagree { small, small_is, large, large_is });
        }
    }
    if http.max_requests < http.max_streams {
        let (small_is, large_is) = (http.max_requests.to_string(), http.max_streams.to_string());
        return Err(ConfigError::Disagree {
            small: "http.max-requests",
            small_is,
            large: "http.max-streams",
            large_is,
        });
    }
    if http.max_page < http.default_page {
        let (small_is, large_is) = (http.max_page.to_string(), http.default_page.to_string());
        return Err(ConfigError::Disagree { small: "http.max-page", small_is, large: "http.default-page", large_is });
    }
    Ok(())
}

fn limits(store: &StoreSettings) -> Limits {
    Limits {
        event_bytes: store.max_event.get(),
        batch_events: store.max_batch_events,
        batch_bytes: store.max_batch.get(),
        page_bytes: store.page.get(),
        waiting_writes: store.max_waiting_writes,
        waiting_bytes: store.max_waiting.get(),
        forgetting: store.max_forgetting,
        unit_bytes: store.max_transaction.get(),
        unit_time: store.max_unit_time,
        cache_bytes: store.cache.get(),
        ..Limits::default()
    }
}

fn queries(views: &ViewSettings) -> QueryLimits {
    QueryLimits {
        time: views.max_query_time,
        rows: views.max_query_rows,
        bytes: views.max_query_bytes.get(),
        memory: views.max_query_memory.get(),
        concurrent: views.max_queries,
        changes: views.max_changes,
    }
}

fn policy(schemas: &SchemaSettings) -> RegistryPolicy {
    let limits = schema::Limits {
        schema_bytes: schemas.max_schema.get(),
        versions: schemas.max_versions,
        types: schemas.max_types,
        compiled_bytes: schemas.compiled.get(),
        registry_bytes: schemas.max_total.get(),
        ..schema::Limits::default()
    };
    RegistryPolicy { unknown_type: schemas.unknown_types, undeclared: schemas.undeclared, limits }
}

fn http_config(http: HttpSettings) -> HttpConfig {
    HttpConfig {
        max_connections: http.max_connections,
        max_requests: http.max_requests,
        max_peer_connections: http.max_peer_connections,
        max_peer_requests: http.max_peer_requests,
        trusted_peers: http.trusted_peers,
        max_streams: http.max_streams,
        max_probes: http.max_probes,
        max_body: http.max_body.get(),
        body_memory: http.body_memory.get(),
        reply_memory: http.reply_memory.get(),
        max_header: http.max_header.get(),
        max_page: http.max_page,
        default_page: http.default_page,
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        body_timeout: http.body_timeout,
        write_timeout: http.write_timeout,
        max_wait: http.max_wait,
        heartbeat: http.heartbeat,
        drain_delay: http.drain_delay,
        drain_timeout: http.drain_timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError, Layers, Settings};

    #[test]
    fn a_host_that_no_request_could_name_is_refused() {
        for (host, is_one) in [
            ("log.example", true),
            ("LOG_1.example.", true),
            ("10.0.0.7", true),
            ("::1", true),
            ("", false),
            ("http://x:1", false),
            ("x:1", false),
            ("[::1]", false),
            ("*.example", false),
            ("a b", false),
        ] {
            let settings = Settings { allowed_hosts: vec!["a".into(), host.into()], ..Settings::default() };
            let refused = ConfigError::Host { value: host.into() };
            assert_eq!(Config::try_from(settings).err(), (!is_one).then_some(refused), "{host}");
        }
    }

    #[test]
    fn replies_are_kept_for_some_time() {
        let mut settings = Settings::default();
        settings.idempotency.keep = std::time::Duration::ZERO;
        assert_eq!(Config::try_from(settings).err(), Some(ConfigError::Zero { key: "idempotency.keep" }));
    }

    #[test]
    fn a_node_gives_signs_of_life_neither_all_the_time_nor_hardly_ever() {
        for (takeover, is_good) in [("99ms", false), ("100ms", true), ("1h", true), ("61m", false)] {
            let layers = Layers::defaults().file("q.toml", &format!("[sagas]\ntakeover = '{takeover}'")).unwrap();
            let said = layers.config().map(|config| config.sagas.takeover).map_err(|wrong| wrong.to_string());
            match said {
                Ok(_) => assert!(is_good, "{takeover}"),
                Err(wrong) => assert!(!is_good && wrong.contains("`sagas.takeover`"), "{takeover}: {wrong}"),
            }
        }
    }

    #[test]
    fn a_node_without_a_password_is_not_open_to_others_by_accident() {
        let mut settings = Settings { listen: "0.0.0.0:7400".parse().unwrap(), ..Settings::default() };
        assert!(matches!(Config::try_from(settings.clone()), Err(ConfigError::Exposed { .. })));
        settings.allow_remote = true;
        assert!(Config::try_from(settings).is_ok());
    }

    #[test]
    fn settings_that_contradict_each_other_are_both_named() {
        let mut settings = Settings::default();
        settings.http.max_body = "1KiB".parse().unwrap();
        let wrong = Config::try_from(settings).unwrap_err().to_string();
        assert_eq!(wrong, "`http.max-body` is 1KiB, which is less than `store.max-event`, 1MiB");
    }

    #[test]
    fn zero_is_no_limit_but_a_mistake() {
        let mut settings = Settings::default();
        settings.http.max_connections = 0;
        assert_eq!(Config::try_from(settings).unwrap_err(), ConfigError::Zero { key: "http.max-connections" });
    }
}
