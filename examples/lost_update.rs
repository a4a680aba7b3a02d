//! A counter that reads in one transaction and writes in another. The simulator finds the seed in which an update is lost:
//! `cargo run -p quorate-examples --example lost_update`

use quorate::{Env, sim, sim::Sim, store::Store, store::sqlite};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Adds one and returns the new count. What if two callers are here at once?
async fn add_one(store: &Store) -> Result<i64, String> {
    let rows = store.query("SELECT n FROM counter", vec![]).await.map_err(|e| e.to_string())?;
    let next = rows[0].at(0).as_i64().unwrap_or(0) + 1;
    let sql = "UPDATE counter SET n = $1";
    let write = store.transact(move |tx| Box::pin(async move { tx.execute(sql, &[next.into()]).await }));
    write.await.map(|_| next).map_err(|e| e.to_string())
}

/// The service, as it would run in production: answers each byte with the new count.
async fn serve(env: Env) -> Result<(), String> {
    let store = sqlite::open(&env, sqlite::Config::at("counter.db")).await.map_err(|e| e.to_string())?;
    let sql = "CREATE TABLE IF NOT EXISTS counter AS SELECT 0 AS n";
    store.transact(move |tx| Box::pin(async move { tx.execute(sql, &[]).await })).await.map_err(|e| e.to_string())?;
    let listener = env.net().listen(SocketAddr::from(([0, 0, 0, 0], 80))).await.map_err(|e| e.to_string())?;
    while let Some(Ok((mut io, _))) = env.tasks().stop().run_until_cancelled(listener.accept()).await {
        let store = store.clone();
        env.tasks().spawn("client", async move {
            while let (Ok(_), Ok(count)) = (io.read_u8().await, add_one(&store).await) {
                let _ = io.write_i64(count).await;
            }
        });
    }
    store.close().await.map_err(|e| e.to_string())
}

/// The world: three clients add five each, and nothing goes wrong. Nobody should hear a count that somebody else heard.
pub(crate) fn world(sim: Sim) -> sim::Outcome {
    let (mut sim, heard) = (sim.without_faults(), Arc::new(Mutex::new(BTreeSet::new())));
    let server = sim.server("counter", serve);
    let to = sim.address(server, 80);
    for n in 0..3 {
        let heard = heard.clone();
        sim.client(&format!("client-{n}"), move |env| add_five(env, to, heard.clone()));
    }
    sim.run()
}

async fn add_five(env: Env, to: SocketAddr, heard: Arc<Mutex<BTreeSet<i64>>>) -> Result<(), String> {
    env.sleep(Duration::from_millis(100)).await;
    let mut io = env.net().connect(to).await.map_err(|e| e.to_string())?;
    for _ in 0..5 {
        io.write_u8(1).await.map_err(|e| e.to_string())?;
        let count = io.read_i64().await.map_err(|e| e.to_string())?;
        heard.lock().map_err(|e| e.to_string())?.insert(count).then_some(()).ok_or(format!("two were told {count}"))?;
    }
    Ok(())
}

fn main() {
    println!("the lowest seed that fails, and how: {:?}", sim::testing::search(200, world));
}
