//! The log over PostgreSQL, beside what the same server does without it.
//!
//! Two limits, of the same 350 bytes a row. For appends that share transactions: one writer that inserts as many rows as there are
//! producers with each statement, and commits. For transactions of their own: as many writers as there are producers, each inserting
//! one row after the other, as `pgbench` would. Neither has streams, conditions, ids to know events by, or positions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_data::{
    event::Position,
    store::{AppendBatch, ExpectedVersion, Query, ReadLog, Store, postgres},
};
use quorate_runtime::Env;
use tokio_postgres::{Client, types::Type};

use super::{
    Options,
    events::{self, STREAMS, event, stream},
    failed,
    figure::Figures,
    log::Effort,
};
use crate::exit::{Exit, Failure};

/// Bytes of one row of the limits.
const RECORD: usize = 350;
/// Producers that share transactions, and those that do not.
const SHARED: [usize; 3] = [1, 64, 256];
const ALONE: usize = 64;

/// Everything that is measured lives in schemas of its own, which are dropped in the end.
struct Bench {
    address: String,
    schema: String,
    effort: Effort,
    admin: Client,
}

/// Measures everything over the database at `address` that `options` want.
pub(super) async fn measure(env: &Env, address: &str, options: &Options) -> Result<Figures, Failure> {
    let effort = Effort::of(options);
    let wrong = |cause: quorate_data::store::OpenError| Failure::of(Exit::Usage, &cause);
    postgres::Config::at(address).map_err(wrong)?;
    let admin = connect(address).await?;
    let schema = format!("quorate_bench_{}", std::process::id());
    let bench = Bench { address: address.to_owned(), schema, effort, admin };
    let mut figures = Figures::default();
    let measured = bench.measure(env, options, &mut figures).await;
    let cleaned = bench.clean().await;
    measured?;
    cleaned?;
    Ok(figures)
}

impl Bench {
    async fn measure(&self, env: &Env, options: &Options, figures: &mut Figures) -> Result<(), Failure> {
        let bare = format!(
            "CREATE SCHEMA {0}_bare; CREATE TABLE {0}_bare.row (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)",
            self.schema
        );
        self.admin.batch_execute(&bare).await.map_err(|cause| failed("making a table", cause))?;
        for producers in SHARED {
            let name = format!("append/postgres/{producers}");
            if options.wants(&name) {
                self.shared(env, producers, &name, figures).await?;
            }
        }
        let name = format!("append/postgres/{ALONE}/alone");
        if options.wants(&name) {
            self.alone(env, &name, figures).await?;
        }
        if options.wants("visible/postgres") {
            self.visible(env, figures).await?;
        }
        if options.wants("read/postgres/catch-up") {
            self.catch_up(env, figures).await?;
        }
        Ok(())
    }

    async fn open(&self, env: &Env, connections: usize) -> Result<Store, Failure> {
        let config = postgres::Config::at(&self.address).map_err(|cause| failed("reading the address", cause))?;
        let (schema, application) = (self.schema.clone(), format!("{}_app", self.schema));
        let config = postgres::Config { schema, application, connections, ..config };
        postgres::open(env, config).await.map_err(|cause| failed("opening a store", cause))
    }

    async fn shared(&self, env: &Env, producers: usize, name: &str, figures: &mut Figures) -> Result<(), Failure> {
        let store = self.open(env, 16).await?;
        let (mut limit, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.effort.rounds {
            limit.push(self.bare_batches(producers).await?);
            ours.push(events::appends(&store, producers, self.effort.span).await?);
        }
        figures.put(name, "events/s", &ours, Some(&limit));
        close(&store).await
    }

    /// One transaction for each event, as a closure's is.
    async fn alone(&self, env: &Env, name: &str, figures: &mut Figures) -> Result<(), Failure> {
        let store = self.open(env, ALONE).await?;
        let (mut limit, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.effort.rounds {
            limit.push(self.bare_singles(ALONE).await?);
            let of_call = store.clone();
            let call = move |caller: usize, n: u64| {
                let store = of_call.clone();
                async move {
                    // Each has streams of its own: nobody meets anybody.
                    let name = stream("alone", caller + ALONE * (n as usize % (STREAMS / ALONE)));
                    let happened = event(&store, caller, n);
                    let done = store.transact(move |tx| {
                        let (name, happened) = (name.clone(), happened.clone());
                        Box::pin(async move { tx.append(&name, ExpectedVersion::Any, vec![happened]).await })
                    });
                    done.await.map(|_| ()).map_err(|cause| format!("{cause:?}"))
                }
            };
            ours.push(events::rate(ALONE, self.effort.span, call).await?);
        }
        figures.put(name, "events/s", &ours, Some(&limit));
        close(&store).await
    }

    /// How long after its acknowledgement an event is read by a follower of another node, while 256 producers append.
    async fn visible(&self, env: &Env, figures: &mut Figures) -> Result<(), Failure> {
        let (store, other) = (self.open(env, 16).await?, self.open(env, 4).await?);
        let mut p99 = Vec::new();
        for _ in 0..self.effort.rounds {
            let (stop, from) = (Arc::new(AtomicBool::new(false)), other.head());
            let following = tokio::spawn(follow(other.clone(), from, stop.clone()));
            let told: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
            let (of_call, of_told) = (store.clone(), told.clone());
            let call = move |caller: usize, n: u64| {
                let (store, told) = (of_call.clone(), of_told.clone());
                async move {
                    let happened = event(&store, caller, n);
                    let id = happened.id.to_string();
                    let name = stream("account", (n as usize * 256 + caller) % STREAMS);
                    let batch = AppendBatch::to(name, ExpectedVersion::Any, vec![happened]);
                    store.append(batch).await.map_err(|cause| cause.to_string())?;
                    told.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
                    Ok(())
                }
            };
            events::rate(256, self.effort.span, call).await?;
            // What was acknowledged last has a position, or gets one.
            tokio::time::sleep(Duration::from_millis(200)).await;
            stop.store(true, Ordering::Relaxed);
            let seen = following.await.map_err(|cause| failed("following the log", cause))??;
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let lag = |(id, at): &(String, Instant)| Some(at.saturating_duration_since(*told.get(id)?));
            let mut lags: Vec<Duration> = seen.iter().filter_map(lag).collect();
            if lags.len() < told.len() {
                return Err(failed("following the log", format!("{} of {} were seen", lags.len(), told.len())));
            }
            lags.sort_unstable();
            p99.push(lags.get(lags.len() * 99 / 100).map_or(f64::NAN, |lag| lag.as_secs_f64() * 1e3));
        }
        figures.put("visible/postgres/p99", "ms", &p99, None);
        close(&other).await?;
        close(&store).await
    }

    async fn catch_up(&self, env: &Env, figures: &mut Figures) -> Result<(), Failure> {
        let store = self.open(env, 16).await?;
        events::fill(&store, "large", STREAMS, (self.effort.many / STREAMS as u64 / 4).max(1)).await?;
        close(&store).await?;
        let mut rates = Vec::new();
        for _ in 0..self.effort.rounds {
            let store = self.open(env, 16).await?;
            rates.push(super::log::read_everything(&store).await?);
            close(&store).await?;
        }
        figures.put("read/postgres/catch-up", "events/s", &rates, None);
        Ok(())
    }

    /// Rows per second of one writer, `rows` of them with each statement and commit.
    async fn bare_batches(&self, rows: usize) -> Result<f64, Failure> {
        let client = connect(&self.address).await?;
        let insert = format!("INSERT INTO {}_bare.row (body) SELECT * FROM unnest($1::bytea[])", self.schema);
        let insert =
            client.prepare_typed(&insert, &[Type::BYTEA_ARRAY]).await.map_err(|cause| failed("preparing", cause))?;
        let bodies = vec![vec![7_u8; RECORD]; rows];
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < self.effort.span {
            client.execute(&insert, &[&bodies]).await.map_err(|cause| failed("inserting", cause))?;
            count += rows;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    /// Rows per second of so many writers, each of which commits one row after the other.
    async fn bare_singles(&self, writers: usize) -> Result<f64, Failure> {
        let insert = format!("INSERT INTO {}_bare.row (body) VALUES ($1)", self.schema);
        let mut ready = Vec::new();
        for _ in 0..writers {
            let client = connect(&self.address).await?;
            let statement =
                client.prepare_typed(&insert, &[Type::BYTEA]).await.map_err(|cause| failed("preparing", cause))?;
            ready.push((client, statement));
        }
        let ready = Arc::new(ready);
        let call = move |writer: usize, _| {
            let ready = ready.clone();
            async move {
                let (client, statement) = &ready[writer];
                let inserted = client.execute(statement, &[&vec![7_u8; RECORD]]).await;
                inserted.map(|_| ()).map_err(|cause| cause.to_string())
            }
        };
        events::rate(writers, self.effort.span, call).await
    }

    async fn clean(&self) -> Result<(), Failure> {
        let drop = format!(
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {0}, {0}_bare, {0}_app CASCADE; DROP ROLE IF EXISTS {0}_app",
            self.schema
        );
        self.admin.batch_execute(&drop).await.map_err(|cause| failed("dropping what was made", cause))
    }
}

/// Reads the log behind `after` as it grows; what was read, and when.
async fn follow(store: Store, mut after: Position, stop: Arc<AtomicBool>) -> Result<Vec<(String, Instant)>, Failure> {
    let (mut seen, mut moved) = (Vec::new(), store.watch_head());
    while !stop.load(Ordering::Relaxed) {
        let _woken = tokio::time::timeout(Duration::from_millis(50), moved.changed()).await;
        while after < store.head() {
            let read = ReadLog { query: Query::EVERYTHING, after, limit: 4_096 };
            let page = store.read_log(read).await.map_err(|cause| failed("reading the log", cause))?;
            let now = Instant::now();
            seen.extend(page.events.iter().map(|event| (event.id().to_owned(), now)));
            after = page.scanned;
        }
    }
    Ok(seen)
}

async fn close(store: &Store) -> Result<(), Failure> {
    store.close().await.map_err(|cause| failed("closing a store", cause))
}

/// A connection without a store, as the store's are.
pub(super) async fn connect(address: &str) -> Result<Client, Failure> {
    let address: postgres::Address = address.parse().map_err(|wrong| Failure::of(Exit::Usage, &wrong))?;
    let connected = postgres::connect(&Env::real(), &address).await;
    connected.map_err(|cause| Failure::of(Exit::Unavailable, &cause).advise("see whether it runs and --store names it"))
}
