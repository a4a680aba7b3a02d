//! The books of a service: its balance, and every call with what it was.

use quorate_data::store::{DynTx, SqlError, Store};
use quorate_foundations::time::Boot;
use serde::{Deserialize, Serialize};

use super::shop::failed;
use crate::exit::Failure;

/// What a call was, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Came {
    /// The first under its key: it was done.
    Did,
    /// The same, and it was answered 500.
    Unsaid,
    /// It was known by its key: nothing was done.
    Known,
    /// It makes up for what never came: nothing was done.
    Nothing,
    /// It came behind what made up for it: nothing was done.
    Late,
    /// It was refused for good.
    Refused,
    /// It was answered 500 before anything was done.
    Lost,
}

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) order: String,
    pub(super) path: String,
    pub(super) came: Came,
    /// By the machine's boot clock, in nanoseconds.
    pub(super) at: u64,
}

/// Everything a service knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Books {
    pub(super) balance: i64,
    /// In the order in which they came.
    pub(super) calls: Vec<Call>,
}

impl Books {
    /// How many calls were this.
    pub(super) fn count(&self, came: Came) -> usize {
        self.calls.iter().filter(|call| call.came == came).count()
    }
}

impl Came {
    const ALL: [Self; 7] = [Self::Did, Self::Unsaid, Self::Known, Self::Nothing, Self::Late, Self::Refused, Self::Lost];

    /// Whether it had an effect.
    pub(super) fn is_effect(self) -> bool {
        matches!(self, Self::Did | Self::Unsaid)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Did => "did",
            Self::Unsaid => "unsaid",
            Self::Known => "known",
            Self::Nothing => "nothing",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// Makes the tables.
pub(super) async fn begin(store: &Store, balance: i64) -> Result<(), Failure> {
    let made = store.transact(move |tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)", &[]).await?;
            tx.execute("INSERT INTO account VALUES (1, $1)", &[balance.into()]).await?;
            let sql = "CREATE TABLE call (nth INTEGER PRIMARY KEY, order_id TEXT NOT NULL, path TEXT NOT NULL,
                came TEXT NOT NULL, at BIGINT NOT NULL)";
            tx.execute(sql, &[]).await
        })
    });
    made.await.map(drop).map_err(failed)
}

/// Changes the balance.
pub(super) async fn change(tx: &mut DynTx, change: i64) -> Result<(), SqlError> {
    tx.execute("UPDATE account SET balance = balance + $1", &[change.into()]).await.map(drop)
}

/// Notes a call.
pub(super) async fn note(tx: &mut DynTx, order: &str, path: &str, came: Came, at: Boot) -> Result<(), SqlError> {
    let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO call (order_id, path, came, at) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, &[order.into(), path.into(), came.word().into(), at.into()]).await.map(drop)
}

/// All there is, page by page: a query brings 128 KiB at most.
pub(super) async fn read(store: &Store) -> Result<Books, SqlError> {
    const PAGE: usize = 250;
    let balance = store.query("SELECT balance FROM account", vec![]).await?;
    let balance = balance.first().and_then(|row| row.at(0).as_i64()).unwrap_or_default();
    let (mut calls, mut last) = (Vec::new(), 0);
    loop {
        let sql = format!("SELECT nth, order_id, path, came, at FROM call WHERE nth > $1 ORDER BY nth LIMIT {PAGE}");
        let page = store.query(&sql, vec![last.into()]).await?;
        calls.extend(page.iter().filter_map(|row| {
            let [order, path, came] = [1, 2, 3].map(|n| row.at(n).as_str().unwrap_or_default());
            let came = Came::ALL.into_iter().find(|one| one.word() == came)?;
            let at = row.at(4).as_i64()?.unsigned_abs();
            Some(Call { order: order.to_owned(), path: path.to_owned(), came, at })
        }));
        match page.last().and_then(|row| row.at(0).as_i64()) {
            Some(end) if page.len() == PAGE => last = end,
            _ => return Ok(Books { balance, calls }),
        }
    }
}
