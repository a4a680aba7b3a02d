//! The inventory: what is free, and what was taken for whom.

use quorate_data::store::DynTx;
use quorate_runtime::BoxFuture;

use super::{Books, Service, Told, Wrong, tell};
use crate::demo::plan::{ITEMS, Order, stock};

pub(super) struct Inventory;

impl Inventory {
    async fn reserve(&self, tx: &mut DynTx, order: &Order) -> Result<(), Wrong> {
        let sql = "UPDATE stock SET free = free - $1, taken = taken + $1 WHERE item = $2 AND free >= $1";
        if tx.execute(sql, &[order.quantity.into(), (&*order.item).into()]).await? == 0 {
            return Err(Wrong::Refused("there is not enough of it"));
        }
        let sql = "INSERT INTO reservation (order_id, item, quantity) VALUES ($1, $2, $3)";
        tx.execute(sql, &[(&*order.id).into(), (&*order.item).into(), order.quantity.into()]).await?;
        Ok(())
    }

    async fn release(&self, tx: &mut DynTx, order: &Order) -> Result<(), Wrong> {
        let sql = "DELETE FROM reservation WHERE order_id = $1";
        if tx.execute(sql, &[(&*order.id).into()]).await? == 1 {
            let sql = "UPDATE stock SET free = free + $1, taken = taken - $1 WHERE item = $2";
            tx.execute(sql, &[order.quantity.into(), (&*order.item).into()]).await?;
        }
        Ok(())
    }
}

impl Service for Inventory {
    fn tables(&self) -> Vec<String> {
        let mut tables = vec![
            "CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, free BIGINT NOT NULL, taken BIGINT NOT NULL)".to_owned(),
            "CREATE TABLE IF NOT EXISTS reservation (order_id TEXT PRIMARY KEY, item TEXT NOT NULL, quantity BIGINT NOT NULL)"
                .to_owned(),
        ];
        let fill =
            |item| format!("INSERT INTO stock VALUES ('{item}', {}, 0) ON CONFLICT (item) DO NOTHING", stock(item));
        tables.extend(ITEMS.map(fill));
        tables
    }

    fn told(&self) -> Vec<Told> {
        vec![("payments", None, &["stock.reserved"]), ("orders", None, &["stock.refused"])]
    }

    fn asked<'t>(&'t self, tx: &'t mut DynTx, path: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match path {
                "/reservations" => self.reserve(tx, order).await,
                "/releases" => self.release(tx, order).await,
                _ => Err(Wrong::Refused("this is not what the inventory does")),
            }
        })
    }

    fn heard<'t>(&'t self, tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            if kind != "order.placed" {
                return self.release(tx, order).await;
            }
            match self.reserve(tx, order).await {
                Ok(()) => tell(tx, "inventory", "stock.reserved", order).await,
                Err(Wrong::Refused(_)) => tell(tx, "inventory", "stock.refused", order).await,
                failed => failed,
            }
        })
    }

    fn sums(&self) -> &'static str {
        "SELECT sum(free + taken) AS pieces, min(free) AS least, sum(taken) AS taken,
            (SELECT coalesce(sum(quantity), 0) FROM reservation) AS reserved FROM stock"
    }

    fn books(&self) -> Books {
        &[("stock", "item, free, taken FROM stock"), ("reservations", "order_id, item, quantity FROM reservation")]
    }
}
