//! Settings as people write them, in `quorate.toml`, in the environment or as flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use quorate_consistency::saga;
use quorate_data::{
    materialized_view::QueryLimits,
    schema::{Limits, Undeclared, UnknownType},
};
use serde::{Deserialize, Serialize};

use super::{ByteSize, InboxSettings, Network, ParticipantSettings, RelaySettings};

/// Everything that can be set, with its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// The directory that holds everything durable. Default `quorate-data`.
    pub data: PathBuf,
    /// Where to listen. Default `127.0.0.1:7400`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Whether `listen` may be an address that other machines reach, although nobody is asked for a password.
    /// Default false.
    pub allow_remote: bool,
    /// Hosts, beside this machine's own names, under which clients may address the node. Default none.
    pub allowed_hosts: Vec<String>,
    /// The HTTP surface.
    pub http: HttpSettings,
    /// The store.
    pub store: StoreSettings,
    /// Replies that are kept for idempotency keys.
    pub idempotency: IdempotencySettings,
    /// What streams' rules no longer keep.
    pub retention: RetentionSettings,
    /// Schemas of events.
    pub schemas: SchemaSettings,
    /// Materialized views.
    pub views: ViewSettings,
    /// Resilience policies.
    pub policies: PolicySettings,
    /// How often clients may ask.
    pub rates: RateSettings,
    /// Webhooks.
    pub webhooks: WebhookSettings,
    /// Sagas.
    pub sagas: SagaSettings,
    /// Transactions of two-phase commit.
    pub transactions: TransactionSettings,
    /// Relays: what of the log is published, and where. In a file alone, as `[[relay]]`. Default none.
    pub relay: Vec<RelaySettings>,
    /// Inboxes: which messages of others come in, and what becomes of them. In a file alone, as `[[inbox]]`. Default none.
    pub inbox: Vec<InboxSettings>,
    /// PostgreSQL databases that take part in transactions. In a file alone, as `[[participant]]`. Default none.
    pub participant: Vec<ParticipantSettings>,
}

/// What the HTTP surface accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Open connections; beyond it a connection is told so and closed. Default 900, since a process often has 1,024
    /// file descriptors.
    pub max_connections: usize,
    /// Requests in progress, subscriptions included; beyond it they are refused. Those that wait for a responder (`/v1/requests`) are counted apart, and may be half
    /// as many; so they may of one peer. Default 2,048.
    pub max_requests: usize,
    /// Open connections of one peer: an address, or a /64 network of IPv6. Default half of `max-connections`.
    pub max_peer_connections: usize,
    /// Requests in progress of one peer; beyond it they are refused. Default half of `max-requests`.
    pub max_peer_requests: usize,
    /// Addresses and networks (`10.0.0.0/8`) that stand for many clients, such as proxies in front of the node: their
    /// connections and requests are not counted as one peer's. Default this machine itself, `127.0.0.0/8` and `::1`.
    pub trusted_peers: Vec<Network>,
    /// Requests in progress on one HTTP/2 connection; a client opens no more. Default 100.
    pub max_streams: usize,
    /// Requests in progress that ask whether the node lives, is ready, or what it counts. They have places of their own,
    /// so that they are answered when all others are taken. Default 16.
    pub max_probes: usize,
    /// Bytes of one request's body. Default 24 MiB.
    pub max_body: ByteSize,
    /// Bytes of all bodies being received at one time. Default 48 MiB.
    pub body_memory: ByteSize,
    /// Bytes of all replies being put together and being sent at one time, 8 MiB or more. Default 24 MiB.
    pub reply_memory: ByteSize,
    /// Bytes of a request's line and headers together, 8 KiB or more. Default 64 KiB.
    pub max_header: ByteSize,
    /// Events, streams, … in one page. Default 10,000.
    pub max_page: usize,
    /// The same when a request does not say. Default 100.
    pub default_page: usize,
    /// From a request's first byte to the end of its headers. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a connection may rest between requests. Default 75 s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a request's body may take to arrive. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// A client has to take 8 KiB of a reply, or all there is, within this time; otherwise its HTTP/2 stream or its
    /// connection is ended. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// The longest that a read waits for the write its token names (`Prefer: wait=…`). Default 30 s.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Silence after which a subscription says that it is alive. Default 15 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long the server goes on taking requests after it was told to stop, while `/readyz` says that it is stopping:
    /// so long that a balancer has looked and sends no more. Default none.
    #[serde(with = "humantime_serde")]
    pub drain_delay: Duration,
    /// How long requests in progress may take to end when the server stops; for nine tenths of it answers of responders are taken. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

/// Where the store is, and what it accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct StoreSettings {
    /// The database that holds the store: `postgres://user:password@host:port/database`, with `sslmode` and what belongs to it as libpq has
    /// them. Default none, which is the embedded store in `data`. A flag's value is seen by everybody on the machine: give one with a password in the file or the
    /// environment.
    pub address: String,
    /// The schema of that database that holds the store's tables. Default `quorate`.
    pub schema: String,
    /// The schema of the application's own tables there, and the role that its statements run as. Default `quorate_app`.
    pub application: String,
    /// Connections to that database; a quarter as many come on top for looking things up, and one for giving positions.
    /// Default 16.
    pub connections: usize,
    /// Whether that database wakes this node when others gave positions. Has to be off behind a proxy that pools transactions; the
    /// node then looks by itself, at least once a second. Default true.
    pub notifications: bool,
    /// How long a write tries to reach that database before it is refused. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// Bytes of one event's data. Default 1 MiB.
    pub max_event: ByteSize,
    /// Events in one append, over all its streams. Default 10,000.
    pub max_batch_events: usize,
    /// Bytes of one append. Default 16 MiB.
    pub max_batch: ByteSize,
    /// Bytes the store reads at a time; a page of a reply is put together from several. Default 128 KiB.
    pub page: ByteSize,
    /// Writes that wait; beyond it they are refused. Default 8,192.
    pub max_waiting_writes: usize,
    /// Bytes of appends that wait, transactions aside. Default 64 MiB.
    pub max_waiting: ByteSize,
    /// Stretches of streams that are forgotten while their data is still in the files; while there are so many, nothing
    /// more is forgotten. Default 16,384.
    pub max_forgetting: usize,
    /// Bytes that one transaction may ask to write, at least `max-batch`. Default 16 MiB.
    pub max_transaction: ByteSize,
    /// How long one transaction may take. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub max_unit_time: Duration,
    /// Bytes of immutable blocks kept in memory for readers. Default 32 MiB.
    pub cache: ByteSize,
}

/// Replies that are kept for idempotency keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct IdempotencySettings {
    /// How long a reply is kept, and a repeated request answered with it. Default 7 days.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
}

/// What streams' rules no longer keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// How often it is taken out of the store's files; readers do not see it anyway. Default 1 h.
    #[serde(with = "humantime_serde")]
    pub scavenge_every: Duration,
}

/// Schemas of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SchemaSettings {
    /// What becomes of events whose type has no schema: `open` accepts them, `closed` refuses them. Default `open`.
    pub unknown_types: UnknownType,
    /// What comparisons assume of properties that a schema neither declares nor forbids: `possible` or `absent`. Default
    /// `possible`.
    pub undeclared: Undeclared,
    /// Bytes of one schema, as it is sent. Stored ones have to keep to it, too. Default 256 KiB.
    pub max_schema: ByteSize,
    /// Versions of one event type. Default 1,000.
    pub max_versions: usize,
    /// Event types with a schema. Default 10,000.
    pub max_types: usize,
    /// Memory for schemas that are compiled to check events, as estimated; beyond it those that were not used for longest
    /// are compiled again when they are needed. Default 64 MiB.
    pub compiled: ByteSize,
    /// Bytes of all schemas together, which are kept in memory. Default 64 MiB.
    pub max_total: ByteSize,
}

/// Materialized views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ViewSettings {
    /// A folder whose `*.toml`, `*.yaml` and `*.json` files are declared as views. Default none.
    pub folder: PathBuf,
    /// How often the folder is looked at. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub folder_every: Duration,
    /// How long one query may run; one that needs longer is stopped. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub max_query_time: Duration,
    /// Rows of one answer. Default 10,000.
    pub max_query_rows: usize,
    /// Bytes of one answer's values. Default 16 MiB.
    pub max_query_bytes: ByteSize,
    /// Memory that one query may take for sorting, grouping and joining. Default 64 MiB.
    pub max_query_memory: ByteSize,
    /// Queries that run at once; others wait, as long as one may run, and are refused then. Default 4.
    pub max_queries: usize,
    /// Changes of a followed table that are kept for followers who come back; who was away for more starts over. Default
    /// 100,000.
    pub max_changes: usize,
}

/// Resilience policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PolicySettings {
    /// A folder whose `*.toml`, `*.yaml` and `*.json` files hold resilience policies. They hold all together or not at all: with one
    /// that cannot work the node does not start, and while it runs what held before goes on. Default none.
    pub folder: PathBuf,
    /// How often the folder is looked at. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub folder_every: Duration,
}

/// How often clients may ask. What may not be asked is answered with 429.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RateSettings {
    /// The time that rates are of. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub per: Duration,
    /// Requests of one client in that time: an address, or a /64 network of IPv6. 0 is no limit, and the default.
    pub client_requests: u32,
    /// Requests that a client who was quiet may make at once. Default 0: as many as `client-requests`.
    pub client_burst: u32,
    /// Requests of one tenant in that time, whoever sends them. 0 is no limit, and the default.
    pub tenant_requests: u32,
    /// Requests that a tenant who was quiet may make at once. Default 0: as many as `tenant-requests`.
    pub tenant_burst: u32,
    /// The header that names a request's tenant; one without it is limited as its client is. Whoever can set it can be
    /// anybody: only a proxy that checks should be able to. Default `quorate-tenant`.
    pub tenant_header: String,
    /// Clients, and tenants, that are remembered until their allowance is whole again; all others share one allowance. Where the
    /// store counts, about so many, by all processes that share it. Default 10,000.
    pub max_keys: usize,
    /// Who counts: `process`, for this process alone, or the store, for all that share it. What holds while the store does not
    /// answer has to be chosen: `store-or-allow`, `store-or-deny`, `store-or-process`. Default `process`.
    pub count: RateCount,
}

/// Sagas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SagaSettings {
    /// Where several nodes share a store: how long one must give no sign of life before others take over its sagas. It gives five in that
    /// time, and looks as often for what others declared. The same in all of them: where two differ, the longer one
    /// holds. 100 ms to 1 h. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub takeover: Duration,
}

/// Transactions of two-phase commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TransactionSettings {
    /// How long something may be in doubt before `/readyz` warns of it. Default 1 min.
    #[serde(with = "humantime_serde")]
    pub doubt_limit: Duration,
    /// Addresses and networks (`10.0.0.0/8`) at which participants may be although they are not public: loopback, private, link-local and
    /// other special addresses are refused otherwise, also behind names. Default none.
    pub allow: Vec<Network>,
    /// How long participants may take to vote on a transaction that the node coordinates; then it is aborted. 1 ms to 24 h. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub prepare_timeout: Duration,
    /// How long a participant may take for a commit, an abort, or to say what it holds; then it is asked again. 1 ms to 24 h. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
}

/// Webhooks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Addresses and networks (`10.0.0.0/8`) that webhooks may call although they are not public: loopback, private, link-local and other
    /// special addresses are refused otherwise, also behind names. Default none.
    pub allow: Vec<Network>,
}

/// Who counts what clients ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateCount {
    /// This process, by itself.
    #[default]
    Process,
    /// The store; while it does not answer, requests pass.
    StoreOrAllow,
    /// The store; while it does not answer, requests are refused.
    StoreOrDeny,
    /// The store; while it does not answer, this process by itself.
    StoreOrProcess,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::from("quorate-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            allow_remote: false,
            allowed_hosts: Vec::new(),
            http: HttpSettings::default(),
            store: StoreSettings::default(),
            idempotency: IdempotencySettings::default(),
            retention: RetentionSettings::default(),
            schemas: SchemaSettings::default(),
            views: ViewSettings::default(),
            policies: PolicySettings::default(),
            rates: RateSettings::default(),
            sagas: SagaSettings::default(),
            transactions: TransactionSettings::default(),
            webhooks: WebhookSettings::default(),
            relay: Vec::new(),
            inbox: Vec::new(),
            participant: Vec::new(),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            max_connections: 900,
            max_requests: 2_048,
            max_peer_connections: 450,
            max_peer_requests: 1_024,
            trusted_peers: ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| text.parse().ok()).collect(),
            max_streams: 100,
            max_probes: 16,
            max_body: ByteSize::new(24 << 20),
            body_memory: ByteSize::new(48 << 20),
            reply_memory: ByteSize::new(24 << 20),
            max_header: ByteSize::new(64 << 10),
            max_page: 10_000,
            default_page: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            max_wait: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            address: String::new(),
            schema: "quorate".to_owned(),
            application: "quorate_app".to_owned(),
            connections: 16,
            notifications: true,
            patience: Duration::from_secs(5),
            max_event: ByteSize::new(1 << 20),
            max_batch_events: 10_000,
            max_batch: ByteSize::new(16 << 20),
            page: ByteSize::new(128 << 10),
            max_waiting_writes: 8_192,
            max_forgetting: 16_384,
            max_waiting: ByteSize::new(64 << 20),
            max_transaction: ByteSize::new(16 << 20),
            max_unit_time: Duration::from_secs(1),
            cache: ByteSize::new(32 << 20),
        }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { scavenge_every: Duration::from_secs(3_600) }
    }
}

impl Default for SagaSettings {
    fn default() -> Self {
        Self { takeover: saga::Config::default().takeover }
    }
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            doubt_limit: Duration::from_secs(60),
            allow: Vec::new(),
            prepare_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for IdempotencySettings {
    fn default() -> Self {
        Self { keep: Duration::from_secs(7 * 24 * 3600) }
    }
}

impl Default for SchemaSettings {
    fn default() -> Self {
        let Limits { schema_bytes, versions, types, compiled_bytes, registry_bytes, .. } = Limits::default();
        Self {
            unknown_types: UnknownType::default(),
            undeclared: Undeclared::default(),
            max_schema: ByteSize::new(schema_bytes),
            max_versions: versions,
            max_types: types,
            compiled: ByteSize::new(compiled_bytes),
            max_total: ByteSize::new(registry_bytes),
        }
    }
}

impl Default for ViewSettings {
    fn default() -> Self {
        let QueryLimits { time, rows, bytes, memory, concurrent, changes } = QueryLimits::default();
        Self {
            folder: PathBuf::new(),
            folder_every: Duration::from_secs(5),
            max_query_time: time,
            max_query_rows: rows,
            max_query_bytes: ByteSize::new(bytes),
            max_query_memory: ByteSize::new(memory),
            max_queries: concurrent,
            max_changes: changes,
        }
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { folder: PathBuf::new(), folder_every: Duration::from_secs(5) }
    }
}

impl Default for RateSettings {
    fn default() -> Self {
        Self {
            per: Duration::from_secs(1),
            client_requests: 0,
            client_burst: 0,
            tenant_requests: 0,
            tenant_burst: 0,
            tenant_header: "quorate-tenant".to_owned(),
            max_keys: 10_000,
            count: RateCount::default(),
        }
    }
}
