//! Billing: charges accounts for what was reserved, as far as they have money.

use quorate::{inbox::Failed, runtime::BoxFuture, store::DynTx};

use super::service::{ORDERS, Order, Role, Told, counted};

/// Cents of each account at the beginning: the first has none.
pub(super) const CENTS: [i64; 5] = [0, 1_000, 1_000, 1_000, 1_000];

pub(super) fn role() -> Role {
    let mut tables = vec![
        "CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, cents INTEGER)".to_owned(),
        "CREATE TABLE IF NOT EXISTS charges (id INTEGER PRIMARY KEY, account INTEGER, cents INTEGER)".to_owned(),
    ];
    tables.extend((0..).zip(CENTS).map(|(account, cents): (i64, i64)| {
        format!("INSERT INTO accounts (id, cents) VALUES ({account}, {cents}) ON CONFLICT DO NOTHING")
    }));
    Role {
        name: "billing",
        tables,
        hears: &["inventory"],
        // Each order is reserved or rejected.
        is_done: |store| Box::pin(async move { Ok(counted(store, "SELECT count(*) FROM handled").await? >= ORDERS) }),
        handle,
    }
}

fn handle<'t>(tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<Option<Told>, Failed>> {
    Box::pin(async move {
        if kind != "stock.reserved" {
            return Ok(None);
        }
        let Order { id, account, cents, .. } = *order;
        let take = "UPDATE accounts SET cents = cents - $1 WHERE id = $2 AND cents >= $1";
        let is_paid = tx.execute(take, &[cents.into(), account.into()]).await? == 1;
        if is_paid {
            let sql = "INSERT INTO charges (id, account, cents) VALUES ($1, $2, $3)";
            tx.execute(sql, &[id, account, cents].map(Into::into)).await?;
        }
        let kind = if is_paid { "payment.charged" } else { "payment.declined" };
        Ok(Some(Told { stream: format!("account-{account}"), kind }))
    })
}
