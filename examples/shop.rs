//! A shop of three services, each with a store of its own, that share nothing but messages: orders are placed, inventory reserves, billing
//! charges, and an order is completed, or cancelled and what was reserved for it released. What a service tells is committed with what it
//! did, by its outbox; what it hears takes effect once, in one transaction with what it does about it, by its inbox.
//!
//! `cargo run -p quorate-examples --example shop` has them in one process over the embedded bus. With the address of a bus each is a process,
//! and nothing else changes: `… --example shop -- --bus http://127.0.0.1:7400` (a node: `quorate serve`), `… --bus nats://127.0.0.1:4222`,
//! `… --bus amqp://guest:guest@127.0.0.1:5672/%2f`. Kill one of them: it is started again, and goes on from what its store holds.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use quorate::{
    Env,
    message_queue::Queues,
    transports::{Embedded, Transport, connect},
};

#[path = "shop/billing.rs"]
mod billing;
#[path = "shop/books.rs"]
pub(crate) mod books;
#[path = "shop/inventory.rs"]
mod inventory;
#[path = "shop/orders.rs"]
mod orders;
#[path = "shop/service.rs"]
mod service;

pub(crate) use service::{SERVICES, Shop};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[cfg_attr(test, expect(dead_code, reason = "a test has arguments of its own"))]
fn main() -> Outcome<()> {
    run(std::env::args().skip(1))
}

/// What the program does with such arguments.
#[tokio::main]
pub(crate) async fn run(arguments: impl Iterator<Item = String>) -> Outcome<()> {
    let mut arguments = Arguments::read(arguments)?;
    match (arguments.bus.take(), arguments.service.take(), arguments.folder.take()) {
        (None, None, None) => in_one_process().await,
        (Some(bus), None, folder) => {
            let program = std::env::current_exe()?;
            let command = |service: &str, folder: &Path| {
                let mut command = Command::new(&program);
                command.args(["--bus", &bus, "--folder"]).arg(folder).arg(service);
                command
            };
            as_processes(&bus, folder, command).await
        }
        (Some(bus), Some(service), Some(folder)) => one_service(&bus, &service, &folder).await,
        _ => Err("say --bus URL, or --bus URL --folder FOLDER orders|inventory|billing, or nothing".into()),
    }
}

#[derive(Default)]
struct Arguments {
    bus: Option<String>,
    folder: Option<PathBuf>,
    service: Option<String>,
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut read = Self::default();
        while let Some(argument) = given.next() {
            match &*argument {
                "--bus" => read.bus = given.next(),
                "--folder" => read.folder = given.next().map(PathBuf::from),
                name if SERVICES.contains(&name) => read.service = Some(argument),
                other => return Err(format!("nobody said what `{other}` means").into()),
            }
        }
        Ok(read)
    }
}

/// All services over the embedded bus, whose queues live in a store of their own.
async fn in_one_process() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let store = service::open(&folder.path().join("bus.db")).await?;
    let bus: Arc<dyn Transport> = Arc::new(Embedded::new(&store, Queues::open(&store).await?));
    let shop = Shop::new(bus, folder.path())?;
    let [orders, inventory, billing] = SERVICES.map(|name| shop.serve(name, |_| {}));
    tokio::try_join!(orders, inventory, billing)?;
    println!("{}", books::audit(folder.path()).await?);
    Ok(())
}

/// A service as a process, which ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Each service as a process that `command` starts, in `folder`: one that is killed is started again.
pub(crate) async fn as_processes(
    bus: &str,
    folder: Option<PathBuf>,
    command: impl Fn(&str, &Path) -> Command,
) -> Outcome<()> {
    let env = Env::real();
    let own = tempfile::tempdir()?;
    let folder = folder.unwrap_or_else(|| own.path().to_owned());
    let shop = Shop::new(connect(&env, &bus.parse()?, None)?, &folder)?;
    let start = |service: &str| {
        let process = command(service, &folder).spawn();
        process.inspect(|process| println!("{service} is process {}", process.id())).map(Process)
    };
    let mut running = Vec::new();
    for service in SERVICES {
        running.push((service, start(service)?));
    }
    while let Some((service, mut process)) = running.pop() {
        match process.0.try_wait()? {
            Some(ended) if ended.success() => println!("{service} has heard and told all there is"),
            Some(ended) if ended.code().is_some() => return Err(format!("{service} ended with {ended}").into()),
            Some(_) => running.insert(0, (service, start(service)?)),
            None => running.insert(0, (service, process)),
        }
        env.sleep(Duration::from_millis(20)).await;
    }
    println!("{}", books::audit(&folder).await?);
    shop.remove_boxes().await
}

async fn one_service(bus: &str, name: &str, folder: &Path) -> Outcome<()> {
    Shop::new(connect(&Env::real(), &bus.parse()?, None)?, folder)?.serve(name, |_| {}).await
}
