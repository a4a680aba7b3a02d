//! What the tests speak of: two banks with ada's money, who moves it, and participants that stand still where they are told to.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_data::store::{Store, sqlite};
use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use crate::two_phase_commit::{
    Config, Coordinator, CoordinatorId, Embedded, Gid, Participant, ParticipantError, Prepared, SqlResource, SqlWork,
    Statement, Transaction, Vote, Work,
};

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Quick enough for tests that wait for it.
pub(super) fn quick() -> Config {
    Config { sweep: Duration::from_millis(20), pause: Duration::from_millis(5), ..Config::default() }
}

/// Two banks in stores of their own, and a log.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) log: Store,
    pub(super) banks: [Store; 2],
}

pub(super) const NAMES: [&str; 2] = ["left", "right"];

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self::at(folder).await;
        for bank in &world.banks {
            let made = bank.transact(|tx| {
                Box::pin(async move {
                    let table =
                        "CREATE TABLE account (owner TEXT PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL)";
                    tx.execute(table, &[]).await?;
                    tx.execute("INSERT INTO account VALUES ('ada', 100, 100), ('bob', 100, 100)", &[]).await
                })
            });
            made.await.unwrap();
        }
        world
    }

    async fn at(folder: TempDir) -> Self {
        let open = |file: &str| {
            let config = sqlite::Config::at(folder.path().join(file));
            async move { sqlite::open(&Env::real(), config).await.unwrap() }
        };
        let (log, banks) = (open("log.db").await, [open("left.db").await, open("right.db").await]);
        Self { folder, log, banks }
    }

    /// Everything closed and opened again.
    pub(super) async fn reopened(self) -> Self {
        for store in [&self.log, &self.banks[0], &self.banks[1]] {
            store.close().await.unwrap();
        }
        let Self { folder, log, banks } = self;
        drop((log, banks));
        Self::at(folder).await
    }

    pub(super) async fn participant(&self, bank: usize) -> Embedded {
        Embedded::open(&self.banks[bank], &name("bank"), Arc::new(SqlResource)).await.unwrap()
    }

    pub(super) async fn coordinator(&self, config: Config) -> Coordinator {
        let coordinator = Coordinator::open(&self.log, config).await.unwrap();
        for (n, bank) in NAMES.iter().enumerate() {
            coordinator.register(name(bank), Arc::new(self.participant(n).await)).unwrap();
        }
        coordinator
    }

    /// The same, of which each participant stands still where its gate says so.
    pub(super) async fn gated(&self, config: Config) -> (Coordinator, [Gate; 2]) {
        let coordinator = Coordinator::open(&self.log, config).await.unwrap();
        let gates = [Gate::new(self.participant(0).await), Gate::new(self.participant(1).await)];
        for (gate, bank) in gates.iter().zip(NAMES) {
            coordinator.register(name(bank), Arc::new(gate.clone())).unwrap();
        }
        (coordinator, gates)
    }

    /// What an owner has in all, and what of it is free, at each bank.
    pub(super) async fn balances(&self, owner: &'static str) -> [(i64, i64); 2] {
        let mut balances = [(0, 0); 2];
        for (bank, balance) in self.banks.iter().zip(&mut balances) {
            let sql = "SELECT total, free FROM account WHERE owner = $1";
            let rows = bank.query(sql, vec![owner.into()]).await.unwrap();
            *balance = (rows[0].at(0).as_i64().unwrap(), rows[0].at(1).as_i64().unwrap());
        }
        balances
    }
}

/// Takes so much from an owner.
pub(super) fn takes(owner: &str, amount: i64) -> SqlWork {
    let change = |sql: &str| Statement::of(sql).with(amount).with(owner).changing(1);
    SqlWork::default()
        .prepare(change("UPDATE account SET free = free - $1 WHERE owner = $2 AND free >= $1"))
        .commit(change("UPDATE account SET total = total - $1 WHERE owner = $2"))
        .abort(change("UPDATE account SET free = free + $1 WHERE owner = $2"))
}

/// Gives so much to an owner.
pub(super) fn gives(owner: &str, amount: i64) -> SqlWork {
    SqlWork::default()
        .prepare(Statement::of("UPDATE account SET total = total WHERE owner = $1").with(owner).changing(1))
        .commit(
            Statement::of("UPDATE account SET total = total + $1, free = free + $1 WHERE owner = $2")
                .with(amount)
                .with(owner)
                .changing(1),
        )
}

/// So much of ada's from the left bank to the right one.
pub(super) fn transfer(amount: i64) -> Transaction {
    Transaction::new()
        .with(name("left"), takes("ada", amount).work().unwrap())
        .with(name("right"), gives("ada", amount).work().unwrap())
}

/// Begins something, and tells what came of it to whoever still listens.
pub(super) fn begin<T: Send + 'static>(course: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
    let (reply, answer) = oneshot::channel();
    Env::real().tasks().spawn("test", async move {
        let _gone = reply.send(course.await);
    });
    answer
}

/// Waits until something is so.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let env = Env::real();
    for _ in 0..2_000 {
        if is().await {
            return;
        }
        env.sleep(Duration::from_millis(5)).await;
    }
    panic!("in ten seconds it did not come about that {what}");
}

/// Where a participant stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    BeforePrepare,
    /// It has promised, and its vote does not arrive.
    BehindPrepare,
    BeforeCommit,
    BehindCommit,
    BeforeAbort,
}

/// A participant whose messages stop at a gate. What is let go goes on as if nothing had been.
#[derive(Clone)]
pub(super) struct Gate {
    inner: Arc<Embedded>,
    closed: watch::Sender<Option<Stop>>,
    reached: Arc<Mutex<Vec<Gid>>>,
}

impl Gate {
    pub(super) fn new(inner: Embedded) -> Self {
        Self { inner: Arc::new(inner), closed: watch::Sender::new(None), reached: Arc::default() }
    }

    pub(super) fn close(&self, at: Stop) {
        self.closed.send_replace(Some(at));
    }

    pub(super) fn open(&self) {
        self.closed.send_replace(None);
    }

    /// The first transaction that stands at it.
    pub(super) async fn reached(&self) -> Gid {
        until("somebody stands at the gate", async || !self.reached.lock().unwrap().is_empty()).await;
        self.reached.lock().unwrap()[0]
    }

    async fn pass(&self, at: Stop, gid: &Gid) {
        let mut closed = self.closed.subscribe();
        if *closed.borrow_and_update() == Some(at) {
            self.reached.lock().unwrap().push(*gid);
            closed.wait_for(|closed| *closed != Some(at)).await.unwrap();
        }
    }
}

impl Participant for Gate {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move {
            self.pass(Stop::BeforePrepare, gid).await;
            let vote = self.inner.prepare(gid, work).await;
            self.pass(Stop::BehindPrepare, gid).await;
            vote
        })
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.pass(Stop::BeforeCommit, gid).await;
            let done = self.inner.commit(gid).await;
            self.pass(Stop::BehindCommit, gid).await;
            done
        })
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.pass(Stop::BeforeAbort, gid).await;
            self.inner.abort(gid).await
        })
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }
}
