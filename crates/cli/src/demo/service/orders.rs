//! Orders: taken once, and then completed or cancelled by a saga, or by what is heard of the other services.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{DynTx, Store};
use quorate_runtime::{BoxFuture, Env};
use serde_json::{Value, json};

use super::{Books, Service, Settings, Told, Wrong, tell};
use crate::{
    client::{Call, Client, JSON},
    demo::plan::{Order, Style},
    exit::Failure,
};

/// The saga that brings about orders of the one style.
const SAGA: &str = include_str!("../documents/order.yaml");
/// The view of all orders.
const VIEW: &str = include_str!("../documents/desk.toml");

/// How long until what failed is tried again.
const AGAIN: Duration = Duration::from_millis(100);

struct Orders {
    client: Client,
}

/// The service, once its node knows the saga and the view.
pub(super) async fn open(settings: &Settings, client: &Client) -> Result<Arc<dyn Service>, Failure> {
    let saga = settings.peers.iter().fold(SAGA.to_owned(), |text, (name, address)| {
        text.replace(&format!("http://{name}/"), &format!("http://{address}/"))
    });
    client.call(&Call::post("/v1/saga-definitions/order", "application/yaml", saga).put()).await?;
    client.call(&Call::post("/v1/views/desk/document", "application/toml", VIEW).put()).await?;
    Ok(Arc::new(Orders { client: client.clone() }))
}

/// Begins an order's saga; one that was begun stays the one.
async fn begin(client: &Client, order: &Order) -> Result<(), Failure> {
    let start = json!({ "id": order.id, "input": order });
    client.call(&Call::post("/v1/sagas/order", JSON, start.to_string())).await.map(drop)
}

/// Begins the sagas of orders that are open, a page of them after the other.
async fn take_up(env: &Env, store: &Store, client: &Client) {
    let mut last = 0;
    loop {
        let sql = "SELECT rowid, document FROM desk WHERE state = 'open' AND rowid > $1 ORDER BY rowid LIMIT 250";
        // What cannot be read now can be in a moment.
        let Ok(page) = store.query(sql, vec![last.into()]).await else {
            env.sleep(AGAIN).await;
            continue;
        };
        let Some(end) = page.last().and_then(|row| row.at(0).as_i64()) else { return };
        last = end;
        let orders = page.iter().filter_map(|row| serde_json::from_str::<Order>(row.at(1).as_str()?).ok());
        for order in orders.filter(|order| order.style == Style::Orchestrated) {
            while begin(client, &order).await.is_err() {
                env.sleep(AGAIN).await;
            }
        }
    }
}

impl Orders {
    /// Ends an order that is open. Ending it twice changes nothing.
    async fn end(&self, tx: &mut DynTx, state: &str, kind: &str, order: &Order) -> Result<(), Wrong> {
        let sql = "UPDATE desk SET state = $2 WHERE id = $1 AND state = 'open'";
        if tx.execute(sql, &[(&*order.id).into(), state.into()]).await? == 1 {
            tell(tx, "orders", kind, order).await?;
        }
        Ok(())
    }
}

impl Service for Orders {
    fn tables(&self) -> Vec<String> {
        vec![
            "CREATE TABLE IF NOT EXISTS desk (id TEXT PRIMARY KEY, state TEXT NOT NULL, document TEXT NOT NULL)"
                .to_owned(),
        ]
    }

    fn told(&self) -> Vec<Told> {
        let style = Some("style:choreographed");
        vec![
            ("inventory", style, &["order.placed"]),
            ("notifications", style, &["order.placed", "order.cancelled"]),
            ("notifications", None, &["order.completed"]),
        ]
    }

    fn is_guarded(&self, _path: &str) -> bool {
        false
    }

    fn asked<'t>(&'t self, tx: &'t mut DynTx, path: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match path {
                "/orders" => {
                    let sql =
                        "INSERT INTO desk (id, state, document) VALUES ($1, 'open', $2) ON CONFLICT (id) DO NOTHING";
                    let document = serde_json::to_string(order)?;
                    if tx.execute(sql, &[(&*order.id).into(), document.into()]).await? == 1 {
                        tell(tx, "orders", "order.placed", order).await?;
                    }
                    Ok(())
                }
                "/open" => Ok(()),
                "/complete" => self.end(tx, "completed", "order.completed", order).await,
                "/cancel" => self.end(tx, "cancelled", "order.cancelled", order).await,
                _ => Err(Wrong::Refused("this is not what orders are for")),
            }
        })
    }

    fn after<'s>(&'s self, path: &'s str, order: &'s Order) -> BoxFuture<'s, Result<(), String>> {
        Box::pin(async move {
            if path != "/orders" || order.style != Style::Orchestrated {
                return Ok(());
            }
            begin(&self.client, order).await.map_err(|cause| cause.to_string())
        })
    }

    /// Begins the sagas of orders that were taken by a process which then died.
    fn begin<'s>(&'s self, env: &'s Env, store: &'s Store) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let (client, store, waiting) = (self.client.clone(), store.clone(), env.clone());
            env.tasks().spawn("demo-take-up", async move {
                let stop = waiting.tasks().stop().clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = take_up(&waiting, &store, &client) => {}
                }
            });
            Ok(())
        })
    }

    fn heard<'t>(&'t self, tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match kind {
                "parcel.sent" => self.end(tx, "completed", "order.completed", order).await,
                _ => self.end(tx, "cancelled", "order.cancelled", order).await,
            }
        })
    }

    fn more(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async {
            let sql = "SELECT state, count(*) AS orders FROM standing GROUP BY state";
            let call = Call::post("/v1/views/desk/query", JSON, json!({ "sql": sql }).to_string());
            let reply = self.client.call(&call).await.map_err(|cause| cause.to_string())?;
            let told: Value = serde_json::from_slice(&reply.body).map_err(|cause| cause.to_string())?;
            let rows = told["rows"].as_array().map_or(&[][..], Vec::as_slice);
            let counts = rows.iter().filter_map(|row| Some((row["state"].as_str()?.to_owned(), row["orders"].clone())));
            Ok(counts.collect::<serde_json::Map<_, _>>().into())
        })
    }

    fn sums(&self) -> &'static str {
        "SELECT count(*) AS orders, coalesce(sum(state = 'open'), 0) AS open, coalesce(sum(state = 'completed'), 0) AS completed,
            coalesce(sum(state = 'cancelled'), 0) AS cancelled FROM desk"
    }

    fn books(&self) -> Books {
        &[("orders", "id, state, document FROM desk")]
    }
}
