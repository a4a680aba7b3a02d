//! Shipping: a parcel for each order, unless nobody delivers there.

use quorate_data::store::DynTx;
use quorate_runtime::BoxFuture;

use super::{Books, Service, Told, Wrong, tell};
use crate::demo::plan::{ISLAND, Order};

pub(super) struct Shipping;

impl Shipping {
    async fn send(&self, tx: &mut DynTx, order: &Order) -> Result<(), Wrong> {
        if order.place == ISLAND {
            return Err(Wrong::Refused("nobody delivers there"));
        }
        tx.execute(
            "INSERT INTO parcel (order_id, place) VALUES ($1, $2)",
            &[(&*order.id).into(), (&*order.place).into()],
        )
        .await?;
        Ok(())
    }
}

impl Service for Shipping {
    fn tables(&self) -> Vec<String> {
        vec!["CREATE TABLE IF NOT EXISTS parcel (order_id TEXT PRIMARY KEY, place TEXT NOT NULL)".to_owned()]
    }

    fn told(&self) -> Vec<Told> {
        vec![("orders", None, &["parcel.sent"]), ("payments", None, &["parcel.refused"])]
    }

    fn asked<'t>(&'t self, tx: &'t mut DynTx, path: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match path {
                "/parcels" => self.send(tx, order).await,
                "/recalls" => {
                    tx.execute("DELETE FROM parcel WHERE order_id = $1", &[(&*order.id).into()]).await?;
                    Ok(())
                }
                _ => Err(Wrong::Refused("this is not what shipping does")),
            }
        })
    }

    fn heard<'t>(&'t self, tx: &'t mut DynTx, _kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match self.send(tx, order).await {
                Ok(()) => tell(tx, "shipping", "parcel.sent", order).await,
                Err(Wrong::Refused(_)) => tell(tx, "shipping", "parcel.refused", order).await,
                failed => failed,
            }
        })
    }

    fn sums(&self) -> &'static str {
        "SELECT count(*) AS parcels FROM parcel"
    }

    fn books(&self) -> Books {
        &[("parcels", "order_id, place FROM parcel")]
    }
}
