//! The same order in both styles: led by a saga, and by services that react to each other's events. In both the customer has been mailed
//! that the order is confirmed before the bank says no; no mail comes back, so what makes up for it is another one.
//!
//! `cargo run -p quorate-examples --example choreography`

use std::{error::Error, sync::Arc, time::Duration};

use quorate::{
    Env,
    event::{NewEvent, Position},
    saga::{
        Action, Config, Definition, Failure, Sagas, Status, Step,
        choreography::{OVERDUE, Process, Processes, ReactError, Reacted, Standing},
    },
    store::{AppendBatch, DynTx, ExpectedVersion, Query, QueryItem, ReadLog, Store, sqlite},
};
use serde_json::{Value, json};

/// Who has less than this is refused.
const CREDIT: u64 = 100;

/// Sends a mail: it can't be taken back, and is sent once, for it is a row beside the record of what had it sent.
fn mail(text: &'static str) -> Action {
    Action::local(move |tx, call| {
        Box::pin(async move {
            let row = [call.id.clone().into(), text.into()];
            tx.execute("INSERT INTO mail (customer_order, text) VALUES ($1, $2)", &row).await?;
            Ok(Value::Null)
        })
    })
}

async fn mails(store: &Store, order: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let sql = "SELECT text FROM mail WHERE customer_order = $1 ORDER BY rowid";
    let rows = store.query(sql, vec![order.into()]).await?;
    Ok(rows.iter().filter_map(|row| row.at(0).as_str().map(str::to_owned)).collect())
}

/// Led: the saga knows the order of steps, and undoes them in reverse. What undoes the confirmation is a notice.
async fn orchestrated(store: &Store) -> Result<(), Box<dyn Error>> {
    let charge = Action::remote(|call| async move {
        let cents: u64 = call.input()?;
        if cents > CREDIT { Err(Failure::refused("there is not enough money")) } else { Ok(json!({ "took": cents })) }
    });
    let refund = Action::remote(|_call| async { Ok(Value::Null) });
    let parcel = Action::remote(|_call| async { Ok(json!("on its way")) });
    let order = Definition::new("order".parse()?, 1)
        .step(Step::new("confirm", mail("your order is confirmed")).compensated_by(mail("your order is cancelled")))
        .step(Step::new("charge", charge).compensated_by(refund))
        .step(Step::new("send", parcel).pivot());
    let (sagas, name) = (Sagas::open(store, Config::default()).await?, "order".parse()?);
    sagas.define(order).await?;
    for (id, cents, status) in [("led-1", 60, Status::Completed), ("led-2", 600, Status::Compensated)] {
        sagas.start(&name, id, cents, None).await?;
        let ended = sagas.settled(&name, id, Duration::from_secs(30)).await?.journal;
        println!("{id} is {}: {}", ended.status().word(), mails(store, id).await?.join(", then "));
        assert_eq!(ended.status(), status);
    }
    assert_eq!(mails(store, "led-1").await?, ["your order is confirmed"]);
    assert_eq!(mails(store, "led-2").await?, ["your order is confirmed", "your order is cancelled"]);
    Ok(())
}

/// Sends a mail and says so: both in the transaction that records the event it answers.
async fn write(tx: &mut DynTx, order: Arc<str>, text: &str, kind: &str) -> Result<Reacted, ReactError> {
    let row = [order.clone().into(), text.into()];
    tx.execute("INSERT INTO mail (customer_order, text) VALUES ($1, $2)", &row).await?;
    let stream = "mails".parse().map_err(|wrong| ReactError::Refused(format!("{wrong}")))?;
    Ok(Reacted::default().append(stream, NewEvent::new("", "/mails", kind).about(&*order)))
}

/// Not led: each service knows what it reacts to. The mails are a process manager of this program; bank and parcels are others' services,
/// of which the process only says what is expected.
fn order() -> Result<Process, Box<dyn Error>> {
    Ok(Process::new("order".parse()?)
        .begins(&["order.placed"])
        .expect("order.placed", &["payment.taken", "payment.refused"], Duration::from_millis(200))
        .expect("payment.taken", &["parcel.sent"], Duration::from_secs(86_400))
        .ends(&["parcel.sent"])
        .undone(&["order.cancelled"])
        .reaction("bank", "order.confirmed", &["payment.taken", "payment.refused"])
        .reaction("parcels", "payment.taken", &["parcel.sent"])
        .react("mails", "order.placed", &["order.confirmed"], |tx, reacting| {
            Box::pin(write(tx, reacting.key, "your order is confirmed", "order.confirmed"))
        })
        .react("mails", "payment.refused", &["order.cancelled"], |tx, reacting| {
            Box::pin(write(tx, reacting.key, "your order is cancelled", "order.cancelled"))
        }))
}

/// What a service says, about an order and because of another event.
async fn say(store: &Store, kind: &str, order: &str, cause: Option<&str>) -> Result<String, Box<dyn Error>> {
    let (id, service) = (format!("{order}/{kind}"), kind.split('.').next().unwrap_or_default().to_owned());
    let (correlation_id, causation_id) = (Some(order.into()), cause.map(Into::into));
    let event = NewEvent { correlation_id, causation_id, ..NewEvent::new(&*id, &*format!("/{service}"), kind) };
    store.append(AppendBatch::to(service.parse()?, ExpectedVersion::Any, vec![event])).await?;
    Ok(id)
}

async fn choreographed(store: &Store) -> Result<(), Box<dyn Error>> {
    let (processes, name) = (Processes::open(store).await?, "order".parse()?);
    processes.declare(order()?).await?;
    let mut moves = processes.watch(&name)?;
    let mut until = async |key: &'static str, standing: Standing| -> Result<(), Box<dyn Error>> {
        while processes.look(&name, key).await.ok().is_none_or(|looked| looked.course.standing != standing) {
            moves.changed().await?;
        }
        Ok(())
    };

    let placed = say(store, "order.placed", "free-1", None).await?;
    let paid = say(store, "payment.taken", "free-1", Some(&placed)).await?;
    say(store, "parcel.sent", "free-1", Some(&paid)).await?;
    until("free-1", Standing::Ended).await?;
    let placed = say(store, "order.placed", "free-2", None).await?;
    say(store, "payment.refused", "free-2", Some(&placed)).await?;
    until("free-2", Standing::Undone).await?;
    for order in ["free-1", "free-2"] {
        println!("{order}: {}", mails(store, order).await?.join(", then "));
    }
    assert_eq!(mails(store, "free-1").await?, ["your order is confirmed"]);
    assert_eq!(mails(store, "free-2").await?, ["your order is confirmed", "your order is cancelled"]);

    // The bank is down: nobody waits for it, and all the same somebody says so.
    say(store, "order.placed", "free-3", None).await?;
    until("free-3", Standing::Overdue).await?;
    println!("{}", processes.graph(&name, "free-3").await?.tree());
    let query = Query::of([QueryItem::types([OVERDUE])]);
    let told = store.read_log(ReadLog { query, after: Position::ZERO, limit: 10 }).await?;
    assert!(told.events.iter().any(|event| event.subject() == Some("free-3")));
    Ok(())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("shop.db"))).await?;
    let made = store.transact(|tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE mail (customer_order TEXT NOT NULL, text TEXT NOT NULL)", &[]).await
        })
    });
    made.await?;
    orchestrated(&store).await?;
    choreographed(&store).await?;
    store.close().await?;
    Ok(())
}
