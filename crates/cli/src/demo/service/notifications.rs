//! Notifications: mails, sent by a queue. What was sent cannot be undone, so an order that comes to nothing gets a second mail.

use std::{sync::Arc, time::Duration};

use quorate_communication::message_queue::{Backoff, Config, Failed, Job, NewMessage, Queue, Queues, WorkerConfig};
use quorate_data::{
    event::NewEvent,
    store::{DynTx, Store},
};
use quorate_runtime::{BoxFuture, Env};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Books, Service, Wrong, failed};
use crate::{demo::plan::Order, exit::Failure};

/// A mail that is due.
#[derive(Clone, Serialize, Deserialize)]
struct Mail {
    order: String,
    about: String,
    to: String,
}

struct Notifications {
    mails: Queue,
}

async fn queue(store: &Store) -> Result<Queue, Failure> {
    let backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_millis(200) };
    let config = Config { max_attempts: 6, backoff, lease_ttl: Duration::from_secs(2), ..Config::default() };
    let queues = Queues::open(store).await.map_err(failed)?;
    queues.declare(&"mails".parse().map_err(failed)?, config).await.map_err(failed)
}

pub(super) async fn open(store: &Store) -> Result<Arc<dyn Service>, Failure> {
    Ok(Arc::new(Notifications { mails: queue(store).await? }))
}

async fn send(store: Store, job: Job<Mail>) -> Result<(), Failed> {
    if !job.body().to.contains('@') {
        return Err(Failed::again("no such address"));
    }
    let job = Arc::new(job);
    let noted = store.transact(move |tx| {
        let job = job.clone();
        Box::pin(async move {
            let Mail { order, about, .. } = job.body();
            let sql = "INSERT INTO sent (order_id, about) VALUES ($1, $2)";
            tx.execute(sql, &[(&**order).into(), (&**about).into()]).await?;
            job.ack_in(tx).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
    });
    noted.await.map_err(|cause| Failed::again(cause.to_string()))
}

impl Notifications {
    async fn mail(&self, tx: &mut DynTx, about: &str, order: &Order) -> Result<(), Wrong> {
        let sql = "INSERT INTO mail (order_id, about, address) VALUES ($1, $2, $3)";
        tx.execute(sql, &[(&*order.id).into(), about.into(), (&*order.mail).into()]).await?;
        let mail = Mail { order: order.id.clone(), about: about.to_owned(), to: order.mail.clone() };
        let id = format!("{}/{about}", order.id);
        let due = NewEvent::new(id, "/notifications", "mail.due").json(serde_json::to_vec(&mail)?);
        self.mails.send_in(tx, vec![NewMessage::of(due).in_group(&*order.id)]).await?;
        Ok(())
    }
}

impl Service for Notifications {
    fn tables(&self) -> Vec<String> {
        ["CREATE TABLE IF NOT EXISTS mail (order_id TEXT NOT NULL, about TEXT NOT NULL, address TEXT NOT NULL, PRIMARY KEY (order_id, about))",
         "CREATE TABLE IF NOT EXISTS sent (order_id TEXT NOT NULL, about TEXT NOT NULL)"]
            .map(str::to_owned).into()
    }

    fn asked<'t>(&'t self, tx: &'t mut DynTx, path: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match path {
                "/received" => self.mail(tx, "received", order).await,
                "/cancelled" => self.mail(tx, "cancelled", order).await,
                _ => Err(Wrong::Refused("this is not what notifications are for")),
            }
        })
    }

    /// Sends what is in the queue: the note that a mail was sent and the end of its message commit together.
    fn begin<'s>(&'s self, _env: &'s Env, store: &'s Store) -> BoxFuture<'s, Result<(), Failure>> {
        let sent = store.clone();
        let workers = self.mails.work(WorkerConfig::default(), move |job: Job<Mail>| send(sent.clone(), job));
        // They work until this process ends.
        Box::pin(std::future::ready(workers.map(drop).map_err(failed)))
    }

    fn heard<'t>(&'t self, tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            let about = match kind {
                "order.placed" => "received",
                "order.completed" => "completed",
                _ => "cancelled",
            };
            self.mail(tx, about, order).await
        })
    }

    fn more(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async {
            let counts = self.mails.describe().await.map_err(|cause| cause.to_string())?.counts;
            Ok(json!({ "left": counts.messages, "dead": counts.parked }))
        })
    }

    fn sums(&self) -> &'static str {
        "SELECT (SELECT count(*) FROM mail) AS mails, (SELECT count(*) FROM sent) AS sent"
    }

    fn books(&self) -> Books {
        &[("mails", "order_id, about, address FROM mail"), ("sent", "order_id, about FROM sent")]
    }
}
