//! Inventory: reserves what is ordered, ships it when it is paid, and takes it back when it is not.

use quorate::{inbox::Failed, runtime::BoxFuture, store::DynTx};

use super::service::{ORDERS, Order, Role, Told, counted};

/// Pieces of each item at the beginning: the first is sold out.
pub(super) const STOCK: [i64; 4] = [0, 14, 14, 14];

pub(super) fn role() -> Role {
    let mut tables = vec![
        "CREATE TABLE IF NOT EXISTS stock (item INTEGER PRIMARY KEY, pieces INTEGER)".to_owned(),
        "CREATE TABLE IF NOT EXISTS reservations (id INTEGER PRIMARY KEY, item INTEGER, pieces INTEGER, state TEXT)"
            .to_owned(),
    ];
    tables.extend((0..).zip(STOCK).map(|(item, pieces): (i64, i64)| {
        format!("INSERT INTO stock (item, pieces) VALUES ({item}, {pieces}) ON CONFLICT DO NOTHING")
    }));
    Role {
        name: "inventory",
        tables,
        hears: &["orders"],
        // Each order is placed, and ends.
        is_done: |store| {
            Box::pin(async move { Ok(counted(store, "SELECT count(*) FROM handled").await? >= 2 * ORDERS) })
        },
        handle,
    }
}

fn handle<'t>(tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<Option<Told>, Failed>> {
    Box::pin(async move {
        match kind {
            "order.placed" => reserve(tx, order).await.map(Some),
            "order.completed" => ship(tx, order).await.map(|()| None),
            "order.cancelled" => release(tx, order).await.map(|()| None),
            other => Err(Failed::park(format!("nobody said what `{other}` means"))),
        }
    })
}

async fn reserve(tx: &mut DynTx, Order { id, item, pieces, .. }: &Order) -> Result<Told, Failed> {
    let take = "UPDATE stock SET pieces = pieces - $1 WHERE item = $2 AND pieces >= $1";
    let is_there = tx.execute(take, &[(*pieces).into(), (*item).into()]).await? == 1;
    if is_there {
        let sql = "INSERT INTO reservations (id, item, pieces, state) VALUES ($1, $2, $3, 'held')";
        tx.execute(sql, &[*id, *item, *pieces].map(Into::into)).await?;
    }
    let kind = if is_there { "stock.reserved" } else { "stock.rejected" };
    Ok(Told { stream: format!("item-{item}"), kind })
}

async fn ship(tx: &mut DynTx, Order { id, .. }: &Order) -> Result<(), Failed> {
    let sql = "UPDATE reservations SET state = 'shipped' WHERE id = $1 AND state = 'held'";
    match tx.execute(sql, &[(*id).into()]).await? {
        1 => Ok(()),
        _ => Err(Failed::park(format!("nothing is held for order {id}"))),
    }
}

async fn release(tx: &mut DynTx, Order { id, item, pieces, .. }: &Order) -> Result<(), Failed> {
    let sql = "UPDATE reservations SET state = 'released' WHERE id = $1 AND state = 'held'";
    // Nothing is held for one that was rejected.
    if tx.execute(sql, &[(*id).into()]).await? == 1 {
        let put_back = "UPDATE stock SET pieces = pieces + $1 WHERE item = $2";
        tx.execute(put_back, &[(*pieces).into(), (*item).into()]).await?;
    }
    Ok(())
}
