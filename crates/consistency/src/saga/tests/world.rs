//! A world for tests: a real store in a folder of its own, a participant with another one, and a clock that moves when told to.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{DynTx, SqlError, Store, sqlite},
};
use quorate_foundations::{
    name::Name,
    time::{Boot, Mono, Wall},
};
use quorate_resilience::retry::{Backoff, Jitter};
use quorate_runtime::{BoxFuture, Env, clock::Clocks};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::saga::{
    Action, Answer, Barrier, Call, Config, Definition, Description, Direction, Failure, Sagas, Status, Step,
};

/// Steady clocks in nanoseconds, how far the wall clock was set away from them, and whether the boot clock is torn.
#[derive(Clone)]
pub(super) struct Clock(Arc<watch::Sender<u64>>, Arc<Mutex<i64>>, Arc<AtomicBool>);

impl Clocks for Clock {
    fn wall(&self) -> Wall {
        let away = *self.1.lock().unwrap_or_else(PoisonError::into_inner);
        Wall::from_unix_nanos(self.0.borrow().cast_signed() + away)
    }

    fn mono(&self) -> Mono {
        Mono::from_nanos(*self.0.borrow())
    }

    fn boot(&self) -> Boot {
        assert!(!self.2.swap(false, Ordering::SeqCst), "the clock is torn");
        Boot::from_nanos(*self.0.borrow())
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        let mut reading = self.0.subscribe();
        Box::pin(async move {
            if reading.wait_for(|nanos| *nanos >= due.as_nanos()).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// A store that can be closed and opened again.
pub(super) struct World {
    folder: tempfile::TempDir,
    clock: Clock,
    env: Env,
}

impl World {
    /// A world whose clocks move when told to.
    pub(super) fn new() -> Self {
        let clock = Clock(Arc::new(watch::Sender::new(86_400_000_000_000)), Arc::default(), Arc::default());
        let mut parts = Env::real().into_parts();
        parts.clocks = Arc::new(clock.clone());
        Self { folder: tempfile::tempdir().unwrap(), clock, env: Env::from_parts(parts) }
    }

    /// A world whose clocks are those of this machine.
    pub(super) fn of_this_machine() -> Self {
        Self { env: Env::real(), ..Self::new() }
    }

    pub(super) fn pass(&self, span: Duration) {
        self.clock.0.send_modify(|nanos| *nanos += u64::try_from(span.as_nanos()).unwrap());
    }

    /// Has whoever looks at the boot clock next panic: a runner that wakes.
    pub(super) fn tear(&self) {
        self.clock.2.store(true, Ordering::SeqCst);
    }

    /// Sets the wall clock so many seconds forward, or back.
    pub(super) fn set_wall(&self, seconds: i64) {
        *self.clock.1.lock().unwrap() += seconds * 1_000_000_000;
    }

    pub(super) async fn open(&self, file: &str) -> Store {
        sqlite::open(&self.env, sqlite::Config::at(self.folder.path().join(file))).await.unwrap()
    }

    /// The store of sagas, with a table of effects.
    pub(super) async fn store(&self) -> Store {
        let store = self.open("sagas.db").await;
        with_table(&store).await;
        store
    }

    pub(super) async fn sagas(&self, definition: Definition) -> (Store, Sagas) {
        let store = self.store().await;
        let sagas = Sagas::open(&store, Config::default()).await.unwrap();
        sagas.define(definition).await.unwrap();
        (store, sagas)
    }
}

async fn with_table(store: &Store) {
    let made = store.transact(|tx| {
        Box::pin(async move {
            let sql = "CREATE TABLE IF NOT EXISTS effect (place INTEGER PRIMARY KEY, what TEXT NOT NULL)";
            tx.execute(sql, &[]).await
        })
    });
    made.await.unwrap();
}

pub(super) async fn note(tx: &mut DynTx, what: String) -> Result<u64, SqlError> {
    tx.execute("INSERT INTO effect (what) VALUES ($1)", &[what.into()]).await
}

/// What had an effect, in order.
pub(super) async fn effects(store: &Store) -> Vec<String> {
    let rows = store.query("SELECT what FROM effect ORDER BY place", vec![]).await.unwrap();
    rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect()
}

/// Writes to a saga's stream as only quorate's own code can: a later version of it, say.
pub(super) async fn write_into(store: &Store, stream: &str, event: NewEvent) {
    let stream = name(stream);
    let written = store.transact(move |tx| {
        let (stream, event) = (stream.clone(), event.clone());
        Box::pin(async move { tx.room_append(&stream, Default::default(), vec![event]).await })
    });
    written.await.unwrap();
}

/// A gate that holds whoever comes until it is opened.
#[derive(Clone)]
pub(super) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(super) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(super) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}

/// A call that waits at a gate.
pub(super) fn behind(gate: &Gate) -> Action {
    let gate = gate.clone();
    Action::remote(move |_| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok(Value::Null)
        }
    })
}

/// Waits until `holds`, without a clock.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A step's own words: its name forward, `-` and its name back.
pub(super) fn word(call: &Call) -> String {
    match call.direction {
        Direction::Forward => call.step.to_string(),
        Direction::Compensation => format!("-{}", call.step),
    }
}

/// Writes down in the saga's own store that it was done.
pub(super) fn local() -> Action {
    Action::local(|tx, call| {
        Box::pin(async move {
            note(tx, format!("{} {}", call.id, word(&call))).await?;
            Ok(json!(&*call.step))
        })
    })
}

/// Fails always.
pub(super) fn failing(failure: Failure) -> Action {
    Action::local(move |tx, call| {
        let failure = failure.clone();
        Box::pin(async move {
            note(tx, format!("{} {} that is rolled back", call.id, word(&call))).await?;
            Err(failure)
        })
    })
}

pub(super) fn hasty(step: Step) -> Step {
    let backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(5), jitter: Jitter::Equal };
    step.backoff(backoff).quiet(Duration::ZERO)
}

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn settled(sagas: &Sagas, name: &str, id: &str) -> Description {
    sagas.settled(&self::name(name), id, PATIENCE).await.unwrap()
}

pub(super) async fn status(sagas: &Sagas, name: &str, id: &str) -> Status {
    settled(sagas, name, id).await.journal.status()
}

/// A participant with a store of its own, before which a process may die.
#[derive(Clone)]
pub(super) struct Participant {
    pub(super) store: Store,
    barrier: Barrier,
    /// Places passed so far, and the one that is never left; zero: none.
    passed: Arc<AtomicUsize>,
    die_at: usize,
    died: Arc<watch::Sender<bool>>,
}

impl Participant {
    pub(super) async fn new(store: &Store, die_at: usize) -> Self {
        with_table(store).await;
        let barrier = Barrier::open(store).await.unwrap();
        let (passed, died) = (Arc::default(), Arc::new(watch::Sender::new(false)));
        Self { store: store.clone(), barrier, passed, die_at, died }
    }

    /// Waits until the place was reached; `false`: the course of the saga never comes there.
    pub(super) async fn dies(&self, over: impl Future<Output = ()>) -> bool {
        let mut died = self.died.subscribe();
        tokio::select! {
            _ = died.wait_for(|died| *died) => true,
            () = over => false,
        }
    }

    async fn place(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.die_at {
            self.died.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    /// Does what it is asked for, once per key, in its own transaction.
    async fn serve(&self, call: Call, refuses: bool) -> Answer {
        self.place().await;
        let (barrier, asked) = (self.barrier.clone(), call.clone());
        let served = self.store.transact(move |tx| {
            let (barrier, call) = (barrier.clone(), asked.clone());
            Box::pin(async move {
                let operation = call.operation();
                if let Some(answered) = barrier.enter(tx, &operation, call.direction).await?.answered() {
                    return answered;
                }
                if refuses {
                    return Err(Failure::refused("this participant refuses"));
                }
                note(tx, format!("{} {}", call.id, word(&call))).await?;
                let answer = json!({"key": call.key()});
                barrier.keep(tx, &operation, call.direction, &answer).await?;
                Ok::<Value, Failure>(answer)
            })
        });
        let answer = served.await.map_err(|failed| match failed {
            quorate_data::store::TransactError::Aborted(own) => own,
            other => Failure::unknown(other),
        });
        self.place().await;
        answer
    }

    pub(super) fn action(&self) -> Action {
        self.serving(false)
    }

    pub(super) fn refusing(&self) -> Action {
        self.serving(true)
    }

    fn serving(&self, refuses: bool) -> Action {
        let participant = self.clone();
        Action::remote(move |call| {
            let participant = participant.clone();
            async move { participant.serve(call, refuses).await }
        })
    }
}
