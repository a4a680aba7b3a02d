//! An order takes stock here, money in a bank with a store of its own, and a parcel. The bank's answer gets lost, its refusals are
//! undone, and an operator helps where a compensation does not work.
//!
//! `cargo run -p quorate-examples --example saga`

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use quorate::{
    Env,
    saga::{
        Action, Answer, Barrier, Call, Config, Definition, Direction, Failure, Operation, Sagas, Status, Step, Verb,
    },
    store::{Store, TransactError, sqlite},
};
use serde_json::{Value, json};

/// A bank: one account with 100, and a barrier that knows every call by its key.
#[derive(Clone)]
struct Bank {
    store: Store,
    barrier: Barrier,
    answers_get_lost: Arc<AtomicU32>,
    is_closed: Arc<AtomicBool>,
}

impl Bank {
    async fn serve(&self, call: Call) -> Answer {
        if self.is_closed.load(Ordering::Relaxed) && call.direction == Direction::Compensation {
            return Err(Failure::refused("the bank is closed"));
        }
        let cents: i64 = call.input()?;
        let change = if call.direction == Direction::Forward { -cents } else { cents };
        let (barrier, asked) = (self.barrier.clone(), call.clone());
        let served = self.store.transact(move |tx| {
            let (barrier, call) = (barrier.clone(), asked.clone());
            Box::pin(async move {
                if let Some(answered) = barrier.enter(tx, &call.operation(), call.direction).await?.answered() {
                    return answered;
                }
                let enough = "UPDATE account SET cents = cents + $1 WHERE cents + $1 >= 0";
                if tx.execute(enough, &[change.into()]).await? == 0 {
                    return Err(Failure::refused("there is not enough money"));
                }
                barrier.keep(tx, &call.operation(), call.direction, &json!({ "changed": change })).await?;
                Ok(json!({ "changed": change }))
            })
        });
        let answer = served.await.map_err(|failed| match failed {
            TransactError::Aborted(own) => own,
            other => Failure::unknown(other),
        });
        if self.answers_get_lost.load(Ordering::Relaxed) > 0 {
            self.answers_get_lost.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::unknown("the line went dead"));
        }
        answer
    }

    fn action(&self) -> Action {
        let bank = self.clone();
        Action::remote(move |call| {
            let bank = bank.clone();
            async move { bank.serve(call).await }
        })
    }

    async fn balance(&self) -> Result<i64, Box<dyn Error>> {
        number(&self.store, "SELECT cents FROM account").await
    }
}

async fn number(store: &Store, sql: &str) -> Result<i64, Box<dyn Error>> {
    Ok(store.query(sql, vec![]).await?.first().and_then(|row| row.at(0).as_i64()).ok_or("there is a number")?)
}

fn stock(change: i64) -> Action {
    Action::local(move |tx, _| {
        Box::pin(async move {
            tx.execute("UPDATE lamp SET free = free + $1", &[change.into()]).await?;
            Ok(Value::Null)
        })
    })
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let open = |file: &str| sqlite::Config::at(folder.path().join(file));
    let (shop, of_bank) =
        (sqlite::open(&Env::real(), open("shop.db")).await?, sqlite::open(&Env::real(), open("bank.db")).await?);
    let made = shop.transact(|tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE lamp (free BIGINT NOT NULL CHECK (free >= 0))", &[]).await?;
            tx.execute("INSERT INTO lamp VALUES (3)", &[]).await
        })
    });
    made.await?;
    let made = of_bank.transact(|tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE account (cents BIGINT NOT NULL)", &[]).await?;
            tx.execute("INSERT INTO account VALUES (100)", &[]).await
        })
    });
    made.await?;
    let barrier = Barrier::open(&of_bank).await?;
    let bank = Bank { store: of_bank, barrier, answers_get_lost: Arc::default(), is_closed: Arc::default() };

    let parcel = Action::remote(|call| async move {
        if call.id.starts_with("far") {
            Err(Failure::refused("nobody delivers there"))
        } else {
            Ok(json!("on its way"))
        }
    });
    let order = Definition::new("order".parse()?, 1)
        .step(Step::new("reserve", stock(-1)).compensated_by(stock(1)))
        // The bank has a barrier: what comes too late has no effect, so nothing has to be waited for.
        .step(Step::new("charge", bank.action()).compensated_by(bank.action()).quiet(Duration::ZERO))
        .step(Step::new("send", parcel).pivot());
    let sagas = Sagas::open(&shop, Config::default()).await?;
    sagas.define(order).await?;
    let name = "order".parse()?;
    let patience = Duration::from_secs(30);

    bank.answers_get_lost.store(2, Ordering::Relaxed);
    sagas.start(&name, "near-1", 60, None).await?;
    let ended = sagas.settled(&name, "near-1", patience).await?.journal;
    let attempts = ended.step("charge").map_or(0, |step| step.forward.attempts);
    println!("near-1 is {}: the bank was asked {attempts} times and charged once", ended.status().word());
    assert_eq!((ended.status(), attempts, bank.balance().await?), (Status::Completed, 3, 40));

    sagas.start(&name, "near-2", 60, None).await?;
    let ended = sagas.settled(&name, "near-2", patience).await?.journal;
    println!("near-2 is {}: {}", ended.status().word(), ended.abort.as_deref().unwrap_or_default());
    assert_eq!((ended.status(), number(&shop, "SELECT free FROM lamp").await?), (Status::Compensated, 2));

    bank.is_closed.store(true, Ordering::Relaxed);
    sagas.start(&name, "far-1", 30, Some("customer-5")).await?;
    let stuck = sagas.settled(&name, "far-1", patience).await?.journal;
    println!("far-1 is {}: the money cannot be given back", stuck.status().word());
    assert_eq!((stuck.status(), bank.balance().await?), (Status::Stuck, 10));
    bank.is_closed.store(false, Ordering::Relaxed);
    let retry = Operation {
        verb: Verb::Retry,
        step: None,
        by: "ada".into(),
        note: "it is open again".into(),
        output: Value::Null,
    };
    sagas.operate(&name, "far-1", retry).await?;
    let ended = sagas.settled(&name, "far-1", patience).await?.journal;
    println!("far-1 is {} once ada had it tried again", ended.status().word());
    assert_eq!((ended.status(), bank.balance().await?), (Status::Compensated, 40));
    assert_eq!(number(&shop, "SELECT free FROM lamp").await?, 2);
    shop.close().await?;
    bank.store.close().await?;
    Ok(())
}
