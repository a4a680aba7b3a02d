//! A process that runs sagas is killed, again and again: what was acknowledged is there, all of them end, and each step takes
//! effect once.
//!
//! The test starts this program again as its child, in which the same test plays the other part.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test looks at the store from outside: its files, its processes"
)]

#[path = "../../data/tests/sqlite/child.rs"]
mod child;

use std::{collections::BTreeMap, path::Path, time::Duration};

use child::{ROUND, STORE, child_of, said, say};
use quorate_consistency::saga::{
    Action, Answer, Barrier, Call, Child, Config, Definition, Direction, Failure, Operation, Sagas, Search, Status,
    Step, Verb,
};
use quorate_data::store::{DynTx, SqlError, Store, TransactError, sqlite};
use quorate_foundations::name::Name;
use quorate_resilience::retry::Backoff;
use quorate_runtime::Env;
use serde_json::{Value, json};

const TEST: &str = "sagas_of_a_process_that_is_killed_all_end_and_each_step_takes_effect_once";
const ROUNDS: u64 = 6;
/// Sagas on their way at once.
const BESIDE: u64 = 16;

fn order() -> Name {
    "order".parse().unwrap()
}

fn payment() -> Name {
    "payment".parse().unwrap()
}

async fn opened(path: &Path) -> Store {
    let store = sqlite::open(&Env::real(), sqlite::Config::at(path)).await.unwrap();
    let made = store.transact(|tx| {
        Box::pin(async move { tx.execute("CREATE TABLE IF NOT EXISTS effect (what TEXT NOT NULL)", &[]).await })
    });
    made.await.unwrap();
    store
}

async fn note(tx: &mut DynTx, call: &Call) -> Result<u64, SqlError> {
    tx.execute("INSERT INTO effect (what) VALUES ($1)", &[call.key().into()]).await
}

/// A participant with a store of its own. Every third saga is refused by it where it `refuses`.
fn elsewhere(store: &Store, barrier: &Barrier, refuses: bool) -> Action {
    let (store, barrier) = (store.clone(), barrier.clone());
    Action::remote(move |call| {
        let (store, barrier) = (store.clone(), barrier.clone());
        async move { serve(&store, barrier, call, refuses).await }
    })
}

async fn serve(store: &Store, barrier: Barrier, call: Call, refuses: bool) -> Answer {
    let refused = refuses && call.input::<u64>()? % 3 == 0;
    let served = store.transact(move |tx| {
        let (barrier, call) = (barrier.clone(), call.clone());
        Box::pin(async move {
            if let Some(answered) = barrier.enter(tx, &call.operation(), call.direction).await?.answered() {
                return answered;
            }
            if refused {
                return Err(Failure::refused("every third is"));
            }
            note(tx, &call).await?;
            barrier.keep(tx, &call.operation(), call.direction, &json!("done")).await?;
            Ok(json!("done"))
        })
    });
    served.await.map_err(|failed| match failed {
        TransactError::Aborted(own) => own,
        other => Failure::unknown(other),
    })
}

async fn open(folder: &Path) -> (Store, Store, Sagas) {
    let (store, others) = (opened(&folder.join("sagas.db")).await, opened(&folder.join("others.db")).await);
    let barrier = Barrier::open(&others).await.unwrap();
    let local = || {
        Action::local(|tx, call| {
            Box::pin(async move {
                note(tx, &call).await?;
                Ok(Value::Null)
            })
        })
    };
    let hasty = |step: Step| {
        let backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(20), ..Backoff::default() };
        step.backoff(backoff).quiet(Duration::ZERO).attempts(1_000, 1_000)
    };
    let remote = |refuses| elsewhere(&others, &barrier, refuses);
    let definition = Definition::new(order(), 1)
        .step(hasty(Step::new("local", local()).compensated_by(local())))
        .step(Step::new("pay", Action::child(Child::of(payment()))))
        .parallel(["left", "right"].map(|name| hasty(Step::new(name, remote(false)).compensated_by(remote(false)))))
        .step(hasty(Step::new("pivot", remote(true))).pivot())
        .step(hasty(Step::new("after", local())).retriable());
    let sagas = Sagas::open(&store, Config::default()).await.unwrap();
    let paying = Definition::new(payment(), 1)
        .step(hasty(Step::new("hold", local()).compensated_by(local())))
        .step(hasty(Step::new("take", remote(false)).compensated_by(remote(false))));
    sagas.define(paying).await.unwrap();
    sagas.define(definition).await.unwrap();
    (store, others, sagas)
}

/// Starts sagas for ever, one after the other, and says what was acknowledged.
async fn drive(sagas: Sagas, round: u64, lane: u64) {
    for n in 0_u64.. {
        let id = format!("{round}-{lane}-{n}");
        sagas.start(&order(), &id, n, None).await.unwrap();
        say(&format!("started {id}"));
        let ended = sagas.settled(&order(), &id, Duration::from_secs(60)).await.unwrap().journal;
        if ended.status().is_ended() {
            say(&format!("ended {id} {}", ended.status().word()));
        }
    }
}

async fn effects(store: &Store, found: &mut BTreeMap<String, u32>) {
    let rows = store.query("SELECT what, count(*) FROM effect GROUP BY what ORDER BY what", vec![]).await.unwrap();
    for row in rows {
        found.insert(row.at(0).as_str().unwrap().to_owned(), u32::try_from(row.at(1).as_i64().unwrap()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_of_a_process_that_is_killed_all_end_and_each_step_takes_effect_once() {
    if let Some(path) = std::env::var_os(STORE) {
        let round = std::env::var(ROUND).unwrap().parse().unwrap();
        let (_store, _others, sagas) = open(Path::new(&path)).await;
        say(&format!("found {}", sagas.counts().open));
        let lanes: Vec<_> = (0..BESIDE).map(|lane| tokio::spawn(drive(sagas.clone(), round, lane))).collect();
        for lane in lanes {
            lane.await.unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut started, mut ended, mut taken_over) = (Vec::new(), BTreeMap::new(), 0);
    for round in 0..ROUNDS {
        let mut child = child_of(TEST, folder.path(), round);
        let mut lines = said(&mut child);
        let mut heard = 0;
        for line in lines.by_ref() {
            heard += 1;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["found", open] => taken_over += open.parse::<usize>().unwrap(),
                ["started", id] => started.push(id.to_owned()),
                ["ended", id, how] => drop(ended.insert(id.to_owned(), how.to_owned())),
                _ => panic!("{line}"),
            }
            if heard == 60 + round * 17 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    let (store, others, sagas) = open(folder.path()).await;
    taken_over += sagas.counts().open;
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = sagas.list(Search { name: Some(order()), after, limit: 200, ..Search::default() }).await.unwrap();
        for one in &page {
            let mut settled = sagas.settled(&order(), &one.id, Duration::from_secs(60)).await.unwrap();
            if settled.journal.status() == Status::Stuck {
                // The pivot was asked, the process died, and asked again it refused: a person has to make sure.
                let (by, note) = ("ada".into(), "asked them".to_owned());
                let operation = Operation { verb: Verb::MarkRefused, step: None, by, note, output: Value::Null };
                sagas.operate(&order(), &one.id, operation).await.unwrap();
                settled = sagas.settled(&order(), &one.id, Duration::from_secs(60)).await.unwrap();
            }
            found.insert(one.id.to_string(), settled.journal);
        }
        let Some(last) = page.last() else { break };
        after = Some((last.name.as_str().into(), last.id.clone()));
    }
    let mut done = BTreeMap::new();
    effects(&store, &mut done).await;
    effects(&others, &mut done).await;
    assert!(started.iter().all(|id| found.contains_key(id)), "what was acknowledged is there");
    for (id, journal) in &found {
        let status = journal.status();
        let refused = journal.input::<u64>().unwrap() % 3 == 0;
        assert_eq!(status, if refused { Status::Compensated } else { Status::Completed }, "{id}: {journal:?}");
        assert!(ended.get(id).is_none_or(|how| how == status.word()), "{id} ended otherwise before");
        let times = |done: &BTreeMap<String, u32>, step: &str, direction: Direction| {
            done.get(&format!("order/{id}/{step}/{}", direction.word())).copied().unwrap_or_default()
        };
        for step in ["local", "left", "right"] {
            assert_eq!(times(&done, step, Direction::Forward), 1, "{id} {step}");
            assert_eq!(times(&done, step, Direction::Compensation), u32::from(refused), "{id} {step}");
        }
        // A step that is a saga is one, whatever was killed.
        let child = journal.step("pay").unwrap().forward.child.clone().unwrap();
        for step in ["hold", "take"] {
            for (direction, expected) in [(Direction::Forward, 1), (Direction::Compensation, u32::from(refused))] {
                let key = format!("payment/{}/{step}/{}", child.id, direction.word());
                assert_eq!(done.remove(&key).unwrap_or_default(), expected, "{key} of {id}");
            }
        }
        for step in ["pivot", "after"] {
            assert_eq!(times(&done, step, Direction::Forward), u32::from(!refused), "{id} {step}");
        }
    }
    assert!(!done.keys().any(|key| key.starts_with("payment/")), "another payment was made: {done:?}");
    eprintln!("{} sagas, {} acknowledged, {taken_over} taken over", found.len(), started.len());
    assert!(found.len() > 100 && taken_over > 10, "too little happened to prove anything");
    store.close().await.unwrap();
}
