//! The shop as processes over each bus: its services are killed at moments that nobody chose, the bus is killed once, and then the three
//! stores are audited.
//!
//! The test starts this program again as the services, and as the node, in which the same test plays the other parts.
#![expect(clippy::disallowed_methods, reason = "these tests look at processes from outside")]

use std::{collections::BTreeMap, path::Path, process::Command, sync::Mutex, time::Duration};

use quorate::{Env, transports::connect};
use quorate_node::config::Config;

use self::{
    brokers::{nats, nats_address, rabbitmq, rabbitmq_address},
    part::{Orders, PATIENCE, Part, say, variable},
    server::{Kind, Server, free_port},
};
use super::shop::{SERVICES, Shop, books};

#[path = "../../../crates/communication/tests/transports/brokers.rs"]
mod brokers;
#[expect(dead_code, reason = "services end themselves at no boundary")]
#[path = "../../../crates/communication/tests/transports/part.rs"]
mod part;
#[expect(dead_code, reason = "nobody looks into the folders of brokers")]
#[path = "../../../crates/communication/tests/transports/server.rs"]
mod server;

/// How often each service is killed.
const KILLS: usize = 2;
/// Messages between two kills, at most: all happen while more than half of the messages are still to come.
const SPREAD: u64 = 12;
/// What the node's part is called.
const NODE: &str = "node";

/// A node that this program is, in the same test.
struct Node {
    test: &'static str,
    port: u16,
}

impl Kind for Node {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([self.test, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(variable::PART, NODE).env(variable::STORE, folder.join("data"));
        command.env(variable::BROKER, self.port.to_string());
        command
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// Plays a part, until it is done with it.
async fn child() {
    let [part, store, broker] =
        [variable::PART, variable::STORE, variable::BROKER].map(|name| std::env::var(name).unwrap());
    if part == NODE {
        let mut config = Config::in_folder(store);
        config.listen = ([127, 0, 0, 1], broker.parse().unwrap()).into();
        return quorate_node::serve(config, Env::real()).await.unwrap();
    }
    let bus = connect(&Env::real(), &broker.parse().unwrap(), None).unwrap();
    let shop = Shop::new(bus, Path::new(&store)).unwrap();
    let die_at: Option<i64> = std::env::var(variable::DIE_AT).ok().and_then(|at| at.parse().ok());
    let looks = |heard| {
        say(&format!("heard {heard}"));
        if die_at.is_some_and(|at| heard >= at) {
            std::process::abort();
        }
    };
    shop.serve(&part, looks).await.unwrap();
    say("done");
}

/// A service, through all its lives.
struct Service<'a> {
    name: &'static str,
    /// Nothing only while it is killed.
    now: Option<Part>,
    start: &'a dyn Fn(&'static str) -> Part,
    heard: u64,
    is_done: bool,
}

impl Service<'_> {
    /// Listens to what it has said by now.
    fn look(&mut self) {
        let Some(now) = &mut self.now else { return };
        let said = now.heard();
        let last = said.iter().rev().find_map(|line| line.strip_prefix("heard ")?.parse().ok());
        self.heard = self.heard.max(last.unwrap_or(0));
        self.is_done |= said.iter().any(|line| line == "done");
        assert!(self.is_done || !now.has_ended(), "{} has ended by itself, and was not done", self.name);
    }

    /// Kills it, wherever it is, and starts it again.
    fn kill(&mut self) {
        // Ordering: it is gone before the next one opens its store.
        drop(self.now.take().map(Part::kill));
        self.now = Some((self.start)(self.name));
    }
}

/// Waits until the services have heard `heard` messages, or are done. Returns how many they have heard.
async fn until(services: &mut [Service<'_>], heard: u64) -> u64 {
    let env = Env::real();
    let until = env.mono() + PATIENCE;
    loop {
        services.iter_mut().for_each(Service::look);
        let all = services.iter().map(|service| service.heard).sum();
        if all >= heard || services.iter().all(|service| service.is_done) {
            return all;
        }
        assert!(env.mono() < until, "{all} messages were heard within {PATIENCE:?}, and {heard} were waited for");
        env.sleep(Duration::from_millis(5)).await;
    }
}

async fn whoever_is_killed(test: &'static str, server: impl FnOnce() -> Option<Server>, address: fn(u16) -> String) {
    if std::env::var_os(variable::PART).is_some() {
        return child().await;
    }
    let Some(server) = tokio::task::block_in_place(server) else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), address(server.port()));
    let start = |part| Part::start(Orders { test, part, store: folder.path(), broker: &url, round: 0, die_at: "" });
    let service = |name| Service { name, now: Some(start(name)), start: &start, heard: 0, is_done: false };
    let mut services = SERVICES.map(service);

    let mut dice = Env::real().random("who is killed, and when");
    let mut left: Vec<usize> = (0..KILLS * services.len()).map(|n| n % services.len()).collect();
    let mut heard = until(&mut services, 1).await;
    let mut kills = 0;
    while !left.is_empty() {
        if left.len() == KILLS {
            assert!(services.iter().any(|service| !service.is_done), "nothing is on its way any more");
            // The services go on meanwhile, as far as they can.
            tokio::task::block_in_place(|| server.kill());
            Env::real().sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| server.start());
        }
        let victim = left.swap_remove(usize::try_from(dice.below(left.len() as u64)).unwrap());
        heard = until(&mut services, heard + 1 + dice.below(SPREAD)).await;
        Env::real().sleep(Duration::from_micros(dice.below(20_000))).await;
        services[victim].look();
        if !services[victim].is_done {
            eprintln!("{} is killed, {heard} messages on the way", services[victim].name);
            services[victim].kill();
            kills += 1;
        }
    }
    assert!(kills >= 2 * KILLS, "only {kills} services were killed before they were done");
    until(&mut services, u64::MAX).await;
    services.into_iter().for_each(|service| drop(service.now.map(Part::kill)));
    let books = books::audit(folder.path()).await.unwrap();
    eprintln!("{books}");
    assert!(books.completed > 0 && books.declined > 0 && books.rejected > 0, "{books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_over_a_node_loses_and_doubles_nothing_whoever_is_killed() {
    const TEST: &str = "processes::the_shop_over_a_node_loses_and_doubles_nothing_whoever_is_killed";
    let node = || Some(Server::new(|_| Box::new(Node { test: TEST, port: free_port() })));
    whoever_is_killed(TEST, node, |port| format!("http://127.0.0.1:{port}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_over_nats_loses_and_doubles_nothing_whoever_is_killed() {
    const TEST: &str = "processes::the_shop_over_nats_loses_and_doubles_nothing_whoever_is_killed";
    whoever_is_killed(TEST, nats, nats_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_over_rabbitmq_loses_and_doubles_nothing_whoever_is_killed() {
    const TEST: &str = "processes::the_shop_over_rabbitmq_loses_and_doubles_nothing_whoever_is_killed";
    whoever_is_killed(TEST, rabbitmq, rabbitmq_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_runs_its_services_as_processes_and_starts_again_what_was_killed() {
    const TEST: &str = "processes::the_shop_runs_its_services_as_processes_and_starts_again_what_was_killed";
    if std::env::var_os(variable::PART).is_some() {
        return child().await;
    }
    let server = tokio::task::block_in_place(|| Server::new(|_| Box::new(Node { test: TEST, port: free_port() })));
    let (folder, url) = (tempfile::tempdir().unwrap(), format!("http://127.0.0.1:{}", server.port()));
    let lives = Mutex::new(BTreeMap::<String, usize>::new());
    let command = |service: &str, folder: &Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(variable::PART, service).env(variable::STORE, folder).env(variable::BROKER, &url);
        let mut lives = lives.lock().unwrap();
        let life = lives.entry(service.to_owned()).or_default();
        *life += 1;
        // Each dies once, as of a signal.
        command.env(variable::DIE_AT, if *life == 1 { "5" } else { "" });
        command
    };
    let shop = super::shop::as_processes(&url, Some(folder.path().to_owned()), command);
    Env::real().timeout(PATIENCE, shop).await.expect("it ends").unwrap();
    assert!(lives.into_inner().unwrap().values().all(|lives| *lives == 2));
}
