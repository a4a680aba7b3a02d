//! A shop whose services hear of each other's events: orders are placed, bills are written once, and a warehouse that never learnt the new
//! version of an order goes on reading the old one.
//!
//! `cargo run -p quorate-examples --example bus`

use std::time::Duration;

use quorate::{
    Env,
    event_bus::{Bus, Context, Event, Group, Handlers, Heard},
    message_queue::Failed,
    schema::upcast::Upcasters,
    store::{Store, sqlite},
    subscription::{Config, OrderKey, Start, Subscriptions},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// An order, as it is placed today.
#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    customer: u32,
    items: Vec<String>,
}

impl Event for OrderPlaced {
    const TYPE: &'static str = "order.placed";
    const VERSION: u32 = 2;

    fn tags(&self) -> Vec<String> {
        vec![format!("customer:{}", self.customer)]
    }
}

/// An order, as it was placed when each had one item. The warehouse still reads this.
#[derive(Serialize, Deserialize)]
struct SingleOrder {
    customer: u32,
    item: String,
}

impl Event for SingleOrder {
    const TYPE: &'static str = "order.placed";
}

/// What billing tells because of an order.
#[derive(Serialize, Deserialize)]
struct Billed {
    customer: u32,
}

impl Event for Billed {
    const TYPE: &'static str = "customer.billed";
}

/// The way between the two versions, there and back.
fn versions() -> Result<Upcasters, Box<dyn std::error::Error>> {
    let up = |old: serde_json::Value| Ok(json!({ "customer": old["customer"], "items": [old["item"]] }));
    let down = |new: serde_json::Value| {
        let items: Vec<&str> = new["items"].as_array().into_iter().flatten().filter_map(|item| item.as_str()).collect();
        Ok(json!({ "customer": new["customer"], "item": items.join(" and ") }))
    };
    let chains = Upcasters::builder().latest("order.placed", 2).step("order.placed", 1, 2, up);
    Ok(chains.down("order.placed", 2, 1, down).build()?)
}

/// Bills are rows: written, told of and acknowledged in one transaction, so that each order is billed once, whoever dies when.
fn billing(store: &Store, bus: &Bus) -> Handlers {
    let (store, bus) = (store.clone(), bus.clone());
    Handlers::default().on(move |heard: Heard<OrderPlaced>| {
        let (store, bus) = (store.clone(), bus.clone());
        async move {
            let billed = store.transact(move |tx| {
                let (heard, bus) = (heard.clone(), bus.clone());
                Box::pin(async move {
                    let customer = heard.event().customer;
                    let order = heard.recorded().stream();
                    tx.execute("INSERT INTO bill (id, customer) VALUES ($1, $2)", &[order.into(), customer.into()])
                        .await?;
                    let stream = format!("customer-{customer}").parse()?;
                    bus.publish_in(tx, &stream, &[Billed { customer }], &heard.consequence()).await?;
                    heard.ack_in(tx).await?;
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
                })
            });
            billed.await.map_err(|failed| Failed::again(failed.to_string()))
        }
    })
}

/// Waits until a group has heard everything that is in the log.
async fn heard_all(group: &Group, env: &Env) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let standing = group.subscription().describe().await?;
        if standing.checkpoint == standing.head {
            return Ok(());
        }
        env.sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (env, folder) = (Env::real(), tempfile::tempdir()?);
    let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("shop.db"))).await?;
    let table = "CREATE TABLE bill (id TEXT PRIMARY KEY, customer BIGINT NOT NULL)";
    store.transact(move |tx| Box::pin(async move { tx.execute(table, &[]).await.map(drop) })).await?;
    let bus = Bus::new(&store, &Subscriptions::open(&store).await?, "/shop").with_upcasters(versions()?);

    let handlers = billing(&store, &bus);
    let config = Config { filter: handlers.filter(&bus), key: OrderKey::Tag("customer".into()), ..Config::default() };
    let billing = bus.group(&"billing".parse()?, config).await?;
    env.tasks().spawn("billing", billing.clone().serve(handlers, env.clone()));

    // One that was placed long ago, and two of today.
    let asked = Context::default().by("ada").in_tenant("acme");
    bus.publish(&"order-1".parse()?, &[SingleOrder { customer: 7, item: "a kettle".into() }], &asked).await?;
    let noon = env.wall();
    let items = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    bus.publish(&"order-2".parse()?, &[OrderPlaced { customer: 7, items: items(&["a cup", "a spoon"]) }], &asked)
        .await?;
    bus.publish(&"order-3".parse()?, &[OrderPlaced { customer: 8, items: items(&["a pan"]) }], &asked).await?;
    heard_all(&billing, &env).await?;
    let bills = store.query("SELECT id, customer FROM bill ORDER BY id", vec![]).await?;
    println!("{} orders were billed", bills.len());
    assert_eq!(bills.len(), 3);

    // The warehouse opens after noon, and wants what came since.
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let handlers = Handlers::default().on(move |heard: Heard<SingleOrder>| {
        let tell = tell.clone();
        async move { Ok(tell.send((heard.event().item.clone(), heard.context().tenant)).await?) }
    });
    let start = Start::After(bus.position_at(noon).await?);
    let config = Config { filter: handlers.filter(&bus), start, ..Config::default() };
    let warehouse = bus.group(&"warehouse".parse()?, config).await?;
    env.tasks().spawn("warehouse", warehouse.clone().serve(handlers, env.clone()));
    let mut packed = Vec::new();
    while packed.len() < 2 {
        let (item, tenant) = told.recv().await.ok_or("the warehouse closed")?;
        println!("packing {item} for {}", tenant.as_deref().unwrap_or("nobody"));
        packed.push(item);
    }
    packed.sort();
    assert_eq!(packed, ["a cup and a spoon", "a pan"]);
    env.tasks().shut_down().await;
    store.close().await?;
    Ok(())
}
