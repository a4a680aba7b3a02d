//! What the HTTP surface counts.

mod inboxes;
mod processes;
mod queues;
mod relays;
mod requests;
mod sagas;
mod transactions;
mod views;
mod webhooks;

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use http::StatusCode;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use quorate_data::store::Store;
use quorate_runtime::Env;

use super::{Node, connection::Connections};
use crate::config::{MAX_INBOXES, MAX_RELAYS};

/// Views that are measured.
const MAX_VIEWS: usize = 1_000;
/// Queues that are measured.
const MAX_QUEUES: usize = 1_000;

/// The counters and gauges of the HTTP surface.
pub(crate) struct Metrics {
    answered: [Counter; 5],
    refused: Counter,
    connections: Gauge,
    subscribers: Gauge,
    head: Gauge<u64, AtomicU64>,
    wal: Gauge<u64, AtomicU64>,
    forgetting: Gauge<u64, AtomicU64>,
    not_wiped: Gauge<u64, AtomicU64>,
    queues: queues::Queues,
    inboxes: inboxes::Inboxes,
    relays: relays::Relays,
    requests: requests::Requests,
    sagas: sagas::Sagas,
    processes: processes::Processes,
    transactions: transactions::Transactions,
    views: views::Views,
    webhooks: webhooks::Webhooks,
}

impl Metrics {
    pub(super) fn register(env: &Env, connections: &Arc<Connections>, store: &Store) -> Self {
        let views = views::Views::register(&mut env.metrics());
        let queues = queues::Queues::register(&mut env.metrics());
        let inboxes = inboxes::Inboxes::register(&mut env.metrics());
        let relays = relays::Relays::register(&mut env.metrics());
        let requests = requests::Requests::register(&mut env.metrics());
        let sagas = sagas::Sagas::register(&mut env.metrics());
        let processes = processes::Processes::register(&mut env.metrics());
        let webhooks = webhooks::Webhooks::register(&mut env.metrics());
        let transactions = transactions::Transactions::register(&mut env.metrics());
        let metrics = Self {
            queues,
            inboxes,
            relays,
            requests,
            sagas,
            processes,
            transactions,
            views,
            webhooks,
            answered: Default::default(),
            refused: Counter::default(),
            connections: Gauge::default(),
            subscribers: Gauge::default(),
            head: Gauge::default(),
            wal: Gauge::default(),
            forgetting: Gauge::default(),
            not_wiped: Gauge::default(),
        };
        metrics.connections.set(count(connections));
        metrics.head.set(store.head().get());
        let mut registry = env.metrics();
        let http = registry.sub_registry_with_prefix("quorate_http");
        for (class, counter) in (1..).zip(&metrics.answered) {
            let name = format!("replies_{class}xx");
            http.register(name, format!("Replies with a status from {class}00 to {class}99"), counter.clone());
        }
        http.register("connections_refused", "Connections beyond the limit", metrics.refused.clone());
        http.register("connections", "Open connections", metrics.connections.clone());
        http.register("subscribers", "Subscriptions being served", metrics.subscribers.clone());
        registry.register("quorate_log_position", "The last readable position of the log", metrics.head.clone());
        registry.register("quorate_store_wal_bytes", "Bytes of the store's write-ahead log", metrics.wal.clone());
        let forgetting = "Forgotten stretches of streams whose data is still in the store's files";
        registry.register("quorate_store_forgetting", forgetting, metrics.forgetting.clone());
        let not_wiped =
            "Forgotten stretches of streams whose data something, such as damage, keeps in the store's files";
        registry.register("quorate_store_not_wiped", not_wiped, metrics.not_wiped.clone());
        drop(registry);
        metrics
    }

    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answered[class - 1].inc();
    }

    /// Counts a connection that was turned away.
    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    /// Counts a subscriber until what this returns is dropped.
    pub(super) fn subscriber(&self) -> Subscriber {
        self.subscribers.inc();
        Subscriber(self.subscribers.clone())
    }

    /// Reads what is only looked at when somebody asks.
    pub(super) async fn refresh(&self, node: &Node) {
        self.connections.set(count(&node.connections));
        let store = node.streams.store();
        self.head.set(store.head().get());
        let statistics = store.statistics();
        self.wal.set(statistics.wal_bytes);
        self.forgetting.set(statistics.forgetting);
        self.not_wiped.set(statistics.not_wiped);
        // Where the store cannot be read, what was last seen stays.
        if let Ok(queues) = node.queues.standing(MAX_QUEUES).await {
            self.queues.show(&queues);
        }
        self.requests.show(node.request_types.counts());
        if let Some(counts) = node.sagas.counts() {
            self.sagas.show(counts);
        }
        if let Some(processes) = node.processes.overview().await {
            self.processes.show(&processes, store.head());
        }
        if let Ok(standing) = node.transactions.standing().await {
            self.transactions.show(standing);
        }
        if let Ok(inboxes) = node.inboxes.list(None, MAX_INBOXES).await {
            self.inboxes.show(&inboxes);
        }
        if let Ok(relays) = node.relays.list(None, MAX_RELAYS).await {
            self.relays.show(&relays);
        }
        if let Ok(webhooks) = node.webhooks.standing().await {
            self.webhooks.show(&webhooks);
        }
        if let (Ok(all), Ok(views)) = (node.views.views(), node.views.list(None, MAX_VIEWS).await) {
            self.views.show(&views, all.queries_running());
        }
    }
}

fn count(connections: &Connections) -> i64 {
    i64::try_from(connections.count.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
}

/// A subscriber being counted.
pub(super) struct Subscriber(Gauge);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.dec();
    }
}
