//! What the tests speak of: two databases with ada's money, who moves it, and points at which something happens to it.

use std::{
    path::Path,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_consistency::two_phase_commit::{
    Config, Coordinator, CoordinatorId, Gid, Participant, ParticipantError, Postgres, PostgresConfig, Prepared,
    SqlWork, Statement, Transaction, Vote, Work,
};
use quorate_data::store::{
    Store,
    postgres::{self, Address},
    sqlite,
};
use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env};
use tokio_postgres::Client;

pub(super) const BANKS: [&str; 2] = ["left", "right"];

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) async fn client(address: &str) -> Client {
    postgres::connect(&Env::real(), &address.parse().unwrap()).await.unwrap()
}

/// Two new databases with ada's money, on the server at `address`.
pub(super) async fn banks(address: &str) -> [String; 2] {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let of = format!("{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let admin = client(address).await;
    let mut addresses = [String::new(), String::new()];
    for (bank, found) in BANKS.iter().zip(&mut addresses) {
        let database = format!("bank_{bank}_{of}");
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        *found = format!("{}/{database}", address.rsplit_once('/').unwrap().0);
        let table = "CREATE TABLE account (owner text PRIMARY KEY, free int NOT NULL CHECK (free >= 0));
            INSERT INTO account VALUES ('ada', 100), ('bob', 100)";
        client(found).await.batch_execute(table).await.unwrap();
    }
    addresses
}

pub(super) fn participant(env: &Env, address: &str) -> Postgres {
    // Both are on one server, which knows a gid once.
    let branch = address.rsplit('/').next().unwrap();
    let config = PostgresConfig::at(Address::from_str(address).unwrap(), branch);
    Postgres::new(env, PostgresConfig { statement_timeout: Duration::from_secs(2), connections: 4, ..config }).unwrap()
}

pub(super) fn change(amount: i64) -> Work {
    let sql = "UPDATE account SET free = free + $1 WHERE owner = $2";
    SqlWork::default().prepare(Statement::of(sql).with(amount).with("ada").changing(1)).work().unwrap()
}

pub(super) fn transfer(amount: i64) -> Transaction {
    Transaction::new().with(name("left"), change(-amount)).with(name("right"), change(amount))
}

pub(super) async fn balances(addresses: &[String; 2]) -> [i32; 2] {
    let mut found = [0, 0];
    for (address, balance) in addresses.iter().zip(&mut found) {
        let row = client(address).await.query_one("SELECT free FROM account WHERE owner = 'ada'", &[]).await.unwrap();
        *balance = row.get(0);
    }
    found
}

/// The gids that are prepared in any of the two databases.
pub(super) async fn prepared(addresses: &[String; 2]) -> Vec<String> {
    let mut all = Vec::new();
    for address in addresses {
        let look = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid";
        let rows = client(address).await.query(look, &[]).await.unwrap();
        all.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

pub(super) fn quick() -> Config {
    Config { sweep: Duration::from_millis(100), pause: Duration::from_millis(20), ..Config::default() }
}

pub(super) async fn coordinator(log: &Path, participants: [Arc<dyn Participant>; 2]) -> (Coordinator, Store) {
    let store = sqlite::open(&Env::real(), sqlite::Config::at(log)).await.unwrap();
    let coordinator = Coordinator::open(&store, quick()).await.unwrap();
    for (bank, participant) in BANKS.iter().zip(participants) {
        coordinator.register(name(bank), participant).unwrap();
    }
    (coordinator, store)
}

pub(super) async fn close((coordinator, log): (Coordinator, Store)) {
    coordinator.close().await;
    log.close().await.unwrap();
}

/// Where something happens to a transaction, at which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    BeforePrepare,
    BehindPrepare,
    BeforeCommit,
    BehindCommit,
}

pub(super) const POINTS: [Point; 4] =
    [Point::BeforePrepare, Point::BehindPrepare, Point::BeforeCommit, Point::BehindCommit];

pub(super) type Hook = dyn Fn(Gid) -> BoxFuture<'static, ()> + Send + Sync;

/// A database at which something happens at a point, the first time it is reached.
struct Struck {
    inner: Postgres,
    at: Option<Point>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Struck {
    async fn pass(&self, point: Point, gid: &Gid) {
        let hook = self.hook.lock().unwrap().take_if(|_| self.at == Some(point));
        if let Some(hook) = hook {
            hook(*gid).await;
        }
    }
}

impl Participant for Struck {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move {
            self.pass(Point::BeforePrepare, gid).await;
            let vote = self.inner.prepare(gid, work).await;
            self.pass(Point::BehindPrepare, gid).await;
            vote
        })
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.pass(Point::BeforeCommit, gid).await;
            let done = self.inner.commit(gid).await;
            self.pass(Point::BehindCommit, gid).await;
            done
        })
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        self.inner.abort(gid)
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }
}

/// The participants, of which number `at` is struck at `point`.
pub(super) fn struck(addresses: &[String; 2], at: usize, point: Point, hook: Arc<Hook>) -> [Arc<dyn Participant>; 2] {
    [0, 1].map(|n| {
        let (inner, at) = (participant(&Env::real(), &addresses[n]), (n == at).then_some(point));
        Arc::new(Struck { inner, at, hook: Mutex::new(Some(hook.clone())) }) as Arc<dyn Participant>
    })
}

pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) -> Duration {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
