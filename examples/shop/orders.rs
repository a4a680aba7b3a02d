//! Orders: places them, and ends each as inventory and billing say.

use std::time::Duration;

use quorate::{
    Env,
    inbox::Failed,
    runtime::BoxFuture,
    store::{DynTx, Store},
};

use super::{
    Outcome,
    service::{ORDERS, Order, Role, Told, counted, tell},
};

/// Orders that are open at a time: there are more once some have ended.
const MOST_OPEN: i64 = 8;

pub(super) fn role() -> Role {
    let table = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item INTEGER, pieces INTEGER, account INTEGER, \
        cents INTEGER, state TEXT)";
    Role {
        name: "orders",
        tables: vec![table.to_owned()],
        hears: &["inventory", "billing"],
        is_done: |store| {
            Box::pin(async move {
                // Whatever inventory said of an order, each was reserved or rejected; what billing said ended it. They come through
                // two inboxes, so that an order may have ended before orders hears that it was reserved.
                let reserved = "SELECT count(*) FROM handled WHERE topic = 'inventory'";
                let ended = "SELECT count(*) FROM orders WHERE state <> 'placed'";
                Ok(counted(store, reserved).await? >= ORDERS && counted(store, ended).await? >= ORDERS)
            })
        },
        handle,
    }
}

/// The order of that number: what is asked for, and by whom.
fn order(id: i64) -> Order {
    let pieces = 1 + id % 3;
    Order { id, item: id % 4, pieces, account: id % 5, cents: 100 * pieces }
}

/// Places what was not placed yet.
pub(super) async fn place(store: &Store) -> Outcome<()> {
    let placed = counted(store, "SELECT count(*) FROM orders").await?;
    for id in placed + 1..=ORDERS {
        while counted(store, "SELECT count(*) FROM orders WHERE state = 'placed'").await? >= MOST_OPEN {
            Env::real().sleep(Duration::from_millis(10)).await;
        }
        let placed = store.transact(move |tx| {
            Box::pin(async move {
                let order = order(id);
                let Order { id, item, pieces, account, cents } = order;
                let sql = "INSERT INTO orders (id, item, pieces, account, cents, state) VALUES ($1, $2, $3, $4, $5, 'placed')";
                tx.execute(sql, &[id, item, pieces, account, cents].map(Into::into)).await?;
                tell(tx, "orders", Told { stream: format!("order-{id}"), kind: "order.placed" }, &order).await?;
                Ok::<_, Failed>(())
            })
        });
        placed.await?;
    }
    Ok(())
}

fn handle<'t>(tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<Option<Told>, Failed>> {
    Box::pin(async move {
        let (state, kind) = match kind {
            "payment.charged" => ("completed", "order.completed"),
            "payment.declined" => ("declined", "order.cancelled"),
            "stock.rejected" => ("rejected", "order.cancelled"),
            // It is billing's turn.
            _ => return Ok(None),
        };
        let sql = "UPDATE orders SET state = $1 WHERE id = $2 AND state = 'placed'";
        if tx.execute(sql, &[state.into(), order.id.into()]).await? != 1 {
            return Err(Failed::park(format!("order {} is not open", order.id)));
        }
        Ok(Some(Told { stream: format!("order-{}", order.id), kind }))
    })
}
