//! A counter that reads in one transaction and writes in another. The simulator finds the seed in which an update is lost:
//! `cargo run -p quorate-examples --example lost_update`

use quorate::{
    Env,
    sim::{Outcome, Sim, Violation, testing},
    store::{Store, sqlite},
};
use std::{fmt::Display, net::SocketAddr, sync::Arc, sync::atomic::AtomicI64, sync::atomic::Ordering::Relaxed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Adds one and returns the new count. What if two callers are here at once?
async fn add_one(store: &Store) -> Result<i64, String> {
    let rows = store.query("SELECT n FROM counter", vec![]).await.map_err(text)?;
    let next = rows[0].at(0).as_i64().unwrap_or(0) + 1;
    let write = store
        .transact(move |tx| Box::pin(async move { tx.execute("UPDATE counter SET n = $1", &[next.into()]).await }));
    write.await.map(|_| next).map_err(text)
}

/// The service, as it would run in production: answers each byte with the new count.
async fn serve(env: Env) -> Result<(), String> {
    let store = sqlite::open(&env, sqlite::Config::at("counter.db")).await.map_err(text)?;
    let table = "CREATE TABLE IF NOT EXISTS counter AS SELECT 0 AS n";
    store.transact(move |tx| Box::pin(async move { tx.execute(table, &[]).await })).await.map_err(text)?;
    let listener = env.net().listen(SocketAddr::from(([0, 0, 0, 0], 80))).await.map_err(text)?;
    while let Some(Ok((mut io, _))) = env.tasks().stop().run_until_cancelled(listener.accept()).await {
        let store = store.clone();
        env.tasks().spawn("client", async move {
            while let (Ok(_), Ok(count)) = (io.read_u8().await, add_one(&store).await) {
                let _ = io.write_i64(count).await;
            }
        });
    }
    store.close().await.map_err(text)
}

/// The world: three clients add five each, and nothing goes wrong. Fifteen is what should come of it.
fn world(sim: Sim) -> Outcome {
    let (mut sim, highest) = (sim.without_faults(), Arc::new(AtomicI64::new(0)));
    let server = sim.server("counter", serve);
    let to = sim.address(server, 80);
    for n in 0..3 {
        let highest = highest.clone();
        sim.client(&format!("client-{n}"), move |env| add_five(env, to, highest.clone()));
    }
    let mut outcome = sim.run();
    let counted = highest.load(Relaxed);
    outcome.find((counted < 15).then(|| Violation::new("no lost update", format!("15 were added, {counted} counted"))));
    outcome
}

async fn add_five(env: Env, to: SocketAddr, highest: Arc<AtomicI64>) -> Result<(), String> {
    env.sleep(std::time::Duration::from_millis(100)).await;
    let mut io = env.net().connect(to).await.map_err(text)?;
    for _ in 0..5 {
        io.write_u8(1).await.map_err(text)?;
        highest.fetch_max(io.read_i64().await.map_err(text)?, Relaxed);
    }
    Ok(())
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn main() {
    match testing::search(200, world) {
        Some((seed, what)) => println!("seed {seed} loses an update ({what})"),
        None => println!("200 seeds passed"),
    }
}
