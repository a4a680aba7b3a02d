//! A shop of three services, each with a store of its own: orders are placed, inventory reserves, billing issues an invoice, and the
//! order is paid. What each did is published by a relay from its log, and takes effect once in the next one's transaction.
//!
//! `cargo run -p quorate-examples --example shop` has all of it in one process over the embedded bus. With the address of a broker
//! (`… --example shop -- nats://127.0.0.1:4222`, `… -- amqp://guest:guest@127.0.0.1:5672/%2f`) each service is a process: nothing
//! else changes. Kill one, and run it again with the line that it printed.

use std::{error::Error, path::Path, process::Command, sync::Arc, time::Duration};

use quorate::{
    Env,
    event::NewEvent,
    inbox::{Failed, Inbox, InboxConfig},
    message_queue::Queues,
    outbox::{Relay, RelayConfig},
    runtime::BoxFuture,
    store::{AppendBatch, DynTx, ExpectedVersion, Query, QueryItem, Store, sqlite},
    transports::{Address, Embedded, Incoming, Topic, Transport, connect},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Orders that are placed.
const ORDERS: i64 = 20;
const SERVICES: [&str; 3] = ["orders", "inventory", "billing"];

#[tokio::main]
pub(crate) async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let address = arguments.next().filter(|address| address.contains("://"));
    match (address, arguments.next(), arguments.next()) {
        (None, ..) => in_one_process().await,
        (Some(address), Some(service), Some(folder)) => one_service(&address, &service, Path::new(&folder)).await,
        (Some(address), ..) => as_processes(&address),
    }
}

/// All services over the embedded bus, whose queues live in a store of their own.
async fn in_one_process() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let bus = open(folder.path(), "bus").await?;
    let bus: Arc<dyn Transport> = Arc::new(Embedded::new(&bus, Queues::open(&bus).await?));
    // Who listens comes first: what nobody would get is not published.
    let mut services = Vec::new();
    for name in ["billing", "inventory", "orders"] {
        services.push(Service::start(name, open(folder.path(), name).await?, bus.clone()).await?);
    }
    services[2].place_orders().await?;
    services[2].wait_until_paid().await?;
    for service in &services {
        println!("{:>10}: {}", service.name, service.told().await?);
        service.stop().await;
    }
    Ok(())
}

/// Each service as a process, in this folder.
fn as_processes(address: &str) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut running = Vec::new();
    for service in SERVICES {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([address, service]).arg(folder.path());
        println!("{command:?}");
        running.push((service, command.spawn()?));
    }
    // The first one ends when everything is paid; the others serve for as long as they are let.
    let (_, orders) = &mut running[0];
    let ended = orders.wait();
    for (_, process) in running.iter_mut().skip(1) {
        process.kill()?;
        process.wait()?;
    }
    let ended = ended?;
    if ended.success() { Ok(()) } else { Err(format!("orders ended with {ended}").into()) }
}

async fn one_service(address: &str, name: &str, folder: &Path) -> Outcome<()> {
    let address: Address = address.parse()?;
    let bus = connect(&Env::real(), &address, None)?;
    let service = Service::start(name, open(folder, name).await?, bus).await?;
    if name != "orders" {
        return std::future::pending().await;
    }
    service.place_orders().await?;
    service.wait_until_paid().await?;
    println!("{:>10}: {}", service.name, service.told().await?);
    service.stop().await;
    Ok(())
}

async fn open(folder: &Path, name: &str) -> Outcome<Store> {
    Ok(sqlite::open(&Env::real(), sqlite::Config::at(folder.join(name).with_extension("db"))).await?)
}

/// A service: its store, the relay of what it does, and the inbox of what others did.
struct Service {
    name: String,
    store: Store,
    relay: Relay,
    inbox: Inbox,
}

impl Service {
    /// Starts a service. Each publishes to the topic of its name, and hears of what the one before it did.
    async fn start(name: &str, store: Store, bus: Arc<dyn Transport>) -> Outcome<Self> {
        let hears_of = match name {
            "orders" => "billing",
            "inventory" => "orders",
            "billing" => "inventory",
            other => return Err(format!("there is no service {other}").into()),
        };
        let table = "CREATE TABLE IF NOT EXISTS done (item TEXT)";
        store.transact(move |tx| Box::pin(tx.execute(table, &[]))).await?;
        let config = InboxConfig::of(topic(hears_of)?, name.parse()?);
        let service: Arc<str> = name.into();
        let inbox = Inbox::start(&store, bus.clone(), config, move |tx, message| handle(service.clone(), tx, message));
        let inbox = inbox.await?;
        let mut config = RelayConfig::to(topic(name)?);
        // An order that was paid is told to nobody.
        let told = ["order.placed", "stock.reserved", "invoice.issued"];
        config.subscription.filter = Query::of([QueryItem::types(told)]);
        let relay = Relay::start(&store, &"out".parse()?, bus, config).await?;
        Ok(Self { name: name.to_owned(), store, relay, inbox })
    }

    async fn place_orders(&self) -> Outcome<()> {
        for n in 1..=ORDERS {
            let placed = NewEvent::new(format!("order-{n}"), "/orders", "order.placed").json("{}");
            let stream = format!("order-{n}").parse()?;
            self.store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![placed])).await?;
        }
        Ok(())
    }

    async fn wait_until_paid(&self) -> Outcome<()> {
        while self.counted("SELECT count(*) FROM done").await? < ORDERS {
            Env::real().sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn counted(&self, sql: &str) -> Outcome<i64> {
        Ok(self.store.query(sql, vec![]).await?.first().and_then(|row| row.at(0).as_i64()).unwrap_or(0))
    }

    async fn told(&self) -> Outcome<String> {
        let done = self.counted("SELECT count(*) FROM done").await?;
        let items = self.counted("SELECT count(DISTINCT item) FROM done").await?;
        assert_eq!((done, items), (ORDERS, ORDERS), "each order is dealt with once");
        Ok(format!("{done} messages took effect, each once; {:?}", self.inbox.counts()))
    }

    async fn stop(&self) {
        self.relay.stop().await;
        self.inbox.stop().await;
    }
}

fn topic(name: &str) -> Outcome<Topic> {
    Ok(Topic { partitions: 4, ..Topic::new(name.parse()?) })
}

/// What a service does about what another one did, in one transaction with the record that it did.
fn handle<'t>(service: Arc<str>, tx: &'t mut DynTx, message: Arc<Incoming>) -> BoxFuture<'t, Result<(), Failed>> {
    Box::pin(async move {
        let order = message.event.id.split('/').next().unwrap_or_default();
        tx.execute("INSERT INTO done (item) VALUES ($1)", &[order.into()]).await?;
        let (stream, kind) = match &*service {
            "inventory" => (format!("stock-{order}"), "stock.reserved"),
            "billing" => (format!("invoice-{order}"), "invoice.issued"),
            _ => (order.to_owned(), "order.paid"),
        };
        // Its id follows from what caused it, so that it is the same one however often this is run.
        let id = format!("{order}/{kind}");
        let event = NewEvent::new(id, format!("/{service}"), kind).json("{}");
        tx.append(&stream.parse()?, ExpectedVersion::Any, vec![event]).await?;
        Ok(())
    })
}
