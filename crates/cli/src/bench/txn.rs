//! `quorate bench txn`: money between two participants, every transaction durable on both sides and in the log.
//!
//! Embedded: two stores in files of their own, and a third one with the log. PostgreSQL: the databases of `--store`, one or two of
//! them, and a log in a file; the limit is a coordinator written by hand for the same work, which inserts each decision into a table
//! of the first server before it commits.

use std::{fs, str::FromStr, sync::Arc};

use quorate_consistency::two_phase_commit::{
    Answer, Config, Coordinator, Embedded, Ended, Participant, Postgres, PostgresConfig, SqlResource, SqlWork,
    Statement, Transaction, Work,
};
use quorate_data::store::{
    Store,
    postgres::{self, Address},
};
use quorate_runtime::Env;
use tokio_postgres::{Client, Statement as Ready};

use super::{
    Options,
    events::rate,
    failed,
    figure::Figures,
    log::{Effort, Folder, open},
};
use crate::exit::{Exit, Failure};

const SIDES: [&str; 2] = ["left", "right"];
/// Accounts on each side: what is measured is not who waits for whose row.
const ACCOUNTS: i64 = 1_000;
const CALLERS: [usize; 3] = [1, 16, 64];

/// Measures everything that `options` want.
pub(super) async fn measure(env: &Env, addresses: &[String], options: &Options) -> Result<Figures, Failure> {
    let folder = Folder::make(&options.folder)?;
    let effort = Effort::of(options);
    let mut figures = Figures::default();
    for (answer, word) in [(Answer::Applied, "applied"), (Answer::Decided, "decided")] {
        for callers in CALLERS {
            let name = format!("txn/embedded/{callers}/{word}");
            if options.wants(&name) && addresses.is_empty() {
                embedded(env, &folder, effort, (callers, answer), &name, &mut figures).await?;
            }
        }
    }
    if let Some(first) = addresses.first() {
        let addresses = [first, addresses.get(1).unwrap_or(first)];
        for callers in CALLERS {
            let name = format!("txn/postgres/{callers}");
            if options.wants(&name) {
                over_postgres(env, &folder, effort, addresses, callers, &name, &mut figures).await?;
            }
        }
    }
    Ok(figures)
}

/// Work that changes one account.
fn work(caller: usize, n: u64, change: &str) -> Result<Work, String> {
    let account = (n.cast_signed() * 67 + caller as i64) % ACCOUNTS;
    let statement = |sql: &str| Statement::of(sql).with(1).with(account).changing(1);
    let work = match change {
        "takes" => SqlWork::default()
            .prepare(statement("UPDATE account SET free = free - $1 WHERE id = $2"))
            .commit(statement("UPDATE account SET total = total - $1 WHERE id = $2")),
        "gives" => SqlWork::default()
            .commit(statement("UPDATE account SET total = total + $1, free = free + $1 WHERE id = $2")),
        // PostgreSQL holds it by itself.
        _ => SqlWork::default().prepare(statement("INSERT INTO moved (amount, account) VALUES ($1, $2)")),
    };
    work.work().map_err(|cause| cause.to_string())
}

async fn coordinator(log: &Store, answer: Answer) -> Result<Coordinator, Failure> {
    let config = Config { answer, ..Config::default() };
    Coordinator::open(log, config).await.map_err(|cause| failed("opening a coordinator", cause))
}

fn register(coordinator: &Coordinator, side: &str, participant: Arc<dyn Participant>) -> Result<(), Failure> {
    let name = side.parse().map_err(|cause| failed("naming a participant", cause))?;
    coordinator.register(name, participant).map_err(|cause| failed("registering a participant", cause))
}

/// Transactions per second of so many callers.
async fn transactions(
    coordinator: &Coordinator,
    callers: usize,
    effort: Effort,
    kinds: [&'static str; 2],
) -> Result<f64, Failure> {
    let coordinator = coordinator.clone();
    rate(callers, effort.span, move |caller, n| {
        let coordinator = coordinator.clone();
        async move {
            let mut transaction = Transaction::new();
            for (side, kind) in SIDES.into_iter().zip(kinds) {
                let name = side.parse().map_err(|_| "a name".to_owned())?;
                transaction = transaction.with(name, work(caller, n, kind)?);
            }
            match coordinator.run(transaction).await.map_err(|cause| cause.to_string())?.ended {
                Ended::Committed => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await
}

/// Between two embedded stores.
async fn embedded(
    env: &Env,
    folder: &Folder,
    effort: Effort,
    (callers, answer): (usize, Answer),
    name: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let file = |what: &str| folder.file(&format!("{}-{what}.db", name.replace('/', "-")));
    let (log, left, right) =
        (open(env, file("log")).await?, open(env, file("left")).await?, open(env, file("right")).await?);
    let coordinator = coordinator(&log, answer).await?;
    for (side, store) in SIDES.iter().zip([&left, &right]) {
        let made = store.transact(|tx| {
            Box::pin(async move {
                let table = "CREATE TABLE account (id INTEGER PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL)";
                tx.execute(table, &[]).await?;
                let fill = "INSERT INTO account WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < 999)
                    SELECT id, 1000000000, 1000000000 FROM n";
                tx.execute(fill, &[]).await
            })
        });
        made.await.map_err(|cause| failed("making accounts", cause))?;
        let participant = "bank".parse().map_err(|cause| failed("naming a bank", cause))?;
        let participant = Embedded::open(store, &participant, Arc::new(SqlResource)).await;
        register(&coordinator, side, Arc::new(participant.map_err(|cause| failed("opening a participant", cause))?))?;
    }
    let (mut ours, mut syncs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let commits = || [&log, &left, &right].iter().map(|store| store.statistics().commits).sum::<u64>();
        let (before, done) = (commits(), coordinator.counts().committed);
        ours.push(transactions(&coordinator, callers, effort, ["takes", "gives"]).await?);
        let done = coordinator.counts().committed - done;
        syncs.push((commits() - before) as f64 / done.max(1) as f64);
    }
    figures.put(name, "transactions/s", &ours, None);
    figures.put(&format!("{name}/syncs-per-transaction"), "", &syncs, None);
    coordinator.close().await;
    for (store, what) in [(&log, "log"), (&left, "left"), (&right, "right")] {
        store.close().await.map_err(|cause| failed("closing a store", cause))?;
        fs::remove_file(file(what)).map_err(|cause| failed("removing a store", cause))?;
    }
    Ok(())
}

/// A coordinator written by hand, for one caller: two connections, and one for the decisions.
struct ByHand {
    sides: [Client; 2],
    inserts: [Ready; 2],
    log: Client,
    decision: Ready,
}

impl ByHand {
    async fn new(env: &Env, addresses: [&String; 2], schema: &str) -> Result<Self, Failure> {
        let connect = async |n: usize| connect(env, addresses[n], schema, SIDES[n]).await;
        let (sides, log) = ([connect(0).await?, connect(1).await?], connect(0).await?);
        let prepare =
            async |client: &Client, sql| client.prepare(sql).await.map_err(|cause| failed("preparing", cause));
        let insert = "INSERT INTO moved (amount, account) VALUES ($1, $2)";
        let inserts = [prepare(&sides[0], insert).await?, prepare(&sides[1], insert).await?];
        let decision = prepare(&log, "INSERT INTO decision (gid, participants) VALUES ($1, 'left right')").await?;
        Ok(Self { sides, inserts, log, decision })
    }

    /// Prepares on both sides at once, writes the decision, commits on both at once.
    async fn run(&self, gid: &str, account: i64) -> Result<(), tokio_postgres::Error> {
        let prepare = async |side: usize| {
            self.sides[side].batch_execute("BEGIN").await?;
            self.sides[side].execute(&self.inserts[side], &[&1_i64, &account]).await?;
            self.sides[side].batch_execute(&format!("PREPARE TRANSACTION '{gid}-{side}'")).await
        };
        let (left, right) = tokio::join!(prepare(0), prepare(1));
        left.and(right)?;
        self.log.execute(&self.decision, &[&gid]).await?;
        let commit =
            async |side: usize| self.sides[side].batch_execute(&format!("COMMIT PREPARED '{gid}-{side}'")).await;
        let (left, right) = tokio::join!(commit(0), commit(1));
        left.and(right)
    }
}

async fn connect(env: &Env, address: &str, schema: &str, side: &str) -> Result<Client, Failure> {
    let address = Address::from_str(address).map_err(|cause| Failure::of(Exit::Usage, &cause))?;
    let client = postgres::connect(env, &address).await.map_err(|cause| failed("connecting", cause))?;
    let path = client.batch_execute(&format!("SET search_path = {schema}_{side}")).await;
    path.map(|()| client).map_err(|cause| failed("asking the server", cause))
}

/// Between two databases, or two schemas of one.
async fn over_postgres(
    env: &Env,
    folder: &Folder,
    effort: Effort,
    addresses: [&String; 2],
    callers: usize,
    name: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let schema = format!("quorate_bench_{}_{callers}", std::process::id());
    let wrong = |cause: tokio_postgres::Error| failed("asking the server", cause);
    let mut admins = Vec::new();
    for (address, side) in addresses.into_iter().zip(SIDES) {
        let admin = connect(env, address, "public", side).await?;
        let tables = format!(
            "CREATE SCHEMA {schema}_{side};
             CREATE TABLE {schema}_{side}.moved (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount bigint NOT NULL, account bigint NOT NULL);
             CREATE TABLE {schema}_{side}.decision (gid text PRIMARY KEY, participants text NOT NULL)"
        );
        admin.batch_execute(&tables).await.map_err(wrong)?;
        admins.push(admin);
    }
    let file = folder.file(&format!("{}-log.db", name.replace('/', "-")));
    let log = open(env, file.clone()).await?;
    let coordinator = coordinator(&log, Answer::Applied).await?;
    for (address, side) in addresses.into_iter().zip(SIDES) {
        let separator = if address.contains('?') { '&' } else { '?' };
        let address = format!("{address}{separator}options=-csearch_path%3D{schema}_{side}");
        let address = Address::from_str(&address).map_err(|cause| Failure::of(Exit::Usage, &cause))?;
        let config = PostgresConfig { connections: callers.max(4), ..PostgresConfig::at(address, side) };
        let participant = Postgres::new(env, config).map_err(|cause| failed("taking a participant", cause))?;
        participant.check().await.map_err(|cause| failed("asking a participant", cause))?;
        register(&coordinator, side, Arc::new(participant))?;
    }
    let (mut limit, mut ours) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds {
        let mut hands = Vec::new();
        for _ in 0..callers {
            hands.push(ByHand::new(env, addresses, &schema).await?);
        }
        let hands = Arc::new(hands);
        let by_hand = rate(callers, effort.span, move |caller, n| {
            let hands = hands.clone();
            async move {
                let gid = format!("by-hand-{round}-{caller}-{n}");
                hands[caller].run(&gid, n.cast_signed() % ACCOUNTS).await.map_err(|cause| cause.to_string())
            }
        });
        limit.push(by_hand.await?);
        ours.push(transactions(&coordinator, callers, effort, ["moves", "moves"]).await?);
    }
    figures.put(name, "transactions/s", &ours, Some(&limit));
    coordinator.close().await;
    log.close().await.map_err(|cause| failed("closing a store", cause))?;
    fs::remove_file(file).map_err(|cause| failed("removing a store", cause))?;
    for (admin, side) in admins.iter().zip(SIDES) {
        let dropped = admin.batch_execute(&format!("DROP SCHEMA {schema}_{side} CASCADE")).await;
        dropped.map_err(wrong)?;
    }
    Ok(())
}
