//! A ledger over two banks, each with a store of its own: transfers by two-phase commit, one that is refused, and a coordinator that dies
//! behind its decision and is taken over.
//!
//! `cargo run -p quorate-examples --example ledger`

use std::{path::Path, sync::Arc};

use quorate::{
    Env,
    event::NewEvent,
    store::{ExpectedVersion, ReadStream, Store, sqlite},
    two_phase_commit::{Answer, Config, Coordinator, Embedded, Ended, SqlResource, SqlWork, Statement, Transaction},
};

type Failure = Box<dyn std::error::Error>;

const BANKS: [&str; 2] = ["left", "right"];

/// What money leaves: set aside when it is prepared, gone when it is committed, given back when it is aborted.
fn takes(owner: &str, cents: i64) -> SqlWork {
    let change = |sql: &str| Statement::of(sql).with(cents).with(owner).changing(1);
    SqlWork::default()
        .prepare(change("UPDATE account SET free = free - $1 WHERE owner = $2 AND free >= $1"))
        .commit(change("UPDATE account SET total = total - $1 WHERE owner = $2"))
        .abort(change("UPDATE account SET free = free + $1 WHERE owner = $2"))
}

/// What money arrives at: the account has to be there.
fn gives(owner: &str, cents: i64) -> SqlWork {
    let change = |sql: &str| Statement::of(sql).with(cents).with(owner).changing(1);
    SqlWork::default()
        .prepare(Statement::of("UPDATE account SET total = total WHERE owner = $1").with(owner).changing(1))
        .commit(change("UPDATE account SET total = total + $1, free = free + $1 WHERE owner = $2"))
}

/// A transfer from the left bank to the right one, with its line in the ledger.
fn transfer(id: &str, owner: &str, cents: i64) -> Result<Transaction, Failure> {
    let line = NewEvent::new(id, "/ledger", "money.moved").json(format!(r#"{{"owner": "{owner}", "cents": {cents}}}"#));
    Ok(Transaction::new()
        .with(BANKS[0].parse()?, takes(owner, cents).work()?)
        .with(BANKS[1].parse()?, gives(owner, cents).work()?)
        .append("ledger-main".parse()?, ExpectedVersion::Any, vec![line]))
}

async fn bank(env: &Env, file: &Path) -> Result<Store, Failure> {
    let store = sqlite::open(env, sqlite::Config::at(file)).await?;
    store
        .transact(|tx| {
            Box::pin(async move {
                let table =
                    "CREATE TABLE account (owner TEXT PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL)";
                tx.execute(table, &[]).await?;
                tx.execute("INSERT INTO account VALUES ('ada', 100, 100)", &[]).await
            })
        })
        .await?;
    Ok(store)
}

/// A coordinator on `log` for both banks. Whoever had it before is replaced.
async fn coordinator(log: &Store, banks: &[Store]) -> Result<Coordinator, Failure> {
    let coordinator = Coordinator::open(log, Config::default()).await?;
    for (name, store) in BANKS.iter().zip(banks) {
        let participant = Embedded::open(store, &"bank".parse()?, Arc::new(SqlResource)).await?;
        coordinator.register(name.parse()?, Arc::new(participant))?;
    }
    Ok(coordinator)
}

/// What ada has at each bank.
async fn totals(banks: &[Store]) -> Result<Vec<i64>, Failure> {
    let mut totals = Vec::new();
    for store in banks {
        let rows = store.query("SELECT total FROM account WHERE owner = 'ada'", vec![]).await?;
        totals.push(rows[0].at(0).as_i64().unwrap_or_default());
    }
    Ok(totals)
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let env = Env::real();
    let log = sqlite::open(&env, sqlite::Config::at(folder.path().join("ledger.db"))).await?;
    let mut banks = Vec::new();
    for name in BANKS {
        banks.push(bank(&env, &folder.path().join(format!("{name}.db"))).await?);
    }
    let first = coordinator(&log, &banks).await?;

    let receipt = first.run(transfer("t-1", "ada", 30)?).await?;
    println!("{}: {:?}, ada has {:?}", receipt.gid, receipt.ended, totals(&banks).await?);
    assert_eq!((receipt.ended, totals(&banks).await?), (Ended::Committed, vec![70, 130]));

    let receipt = first.run(transfer("t-2", "ada", 71)?).await?;
    println!("{}: {:?}", receipt.gid, receipt.ended);
    assert!(matches!(receipt.ended, Ended::Aborted { .. }));

    // The first coordinator ends behind a decision, before it has heard that everybody did it.
    let receipt = first.run(transfer("t-3", "ada", 20)?.answered(Answer::Decided)).await?;
    first.close().await;
    let second = coordinator(&log, &banks).await?;
    second.sweep().await;
    println!("{}: taken over by number {}, ada has {:?}", receipt.gid, second.takeover(), totals(&banks).await?);
    assert!(second.record(&receipt.gid).await?.is_decided);
    assert_eq!(totals(&banks).await?, [50, 150]);

    let lines = log.read_stream(ReadStream::forward("ledger-main".parse()?, 10)).await?.events;
    assert_eq!(lines.iter().map(|line| line.id().to_owned()).collect::<Vec<_>>(), ["t-1", "t-3"]);
    println!("the ledger has {} lines, those that were decided", lines.len());
    Ok(())
}
