//! The service of prices is down for two minutes. Those who ask get what it said last, marked with its age, and once that is too
//! old what is usual; the circuit and the counts say all the while that it is down. Time is virtual.
//!
//! `cargo run -p quorate-examples --example fallback`

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate::{
    Env,
    resilience::{
        circuit_breaker,
        fallback::{Keep, Source, Stale, When},
        kit::{Reply, Upstream},
        stack::{Instead, Plain, Stack},
        timeout::Timers,
    },
};
use tower_layer::Layer as _;
use tower_service::Service as _;

const ITEM: u64 = 7;
const USUAL: u64 = 100;

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let prices = Upstream::new(&env);
    let stack = Stack::builder("prices".parse()?)
        .breaker(circuit_breaker::Config::default())
        .build(&Timers::new(&env), Plain::idempotent().judged_by(Upstream::judge))?;

    let last = Arc::new(Mutex::new(Stale::new(Keep { oldest: Duration::from_secs(60), ..Keep::default() })));
    let (recalled, clock) = (last.clone(), env.clone());
    let instead = Instead::new(When::default(), move |_, item| {
        let known = recalled.lock().ok()?.stale(clock.mono(), &item);
        known.or(Some((USUAL, Source::Static)))
    });
    let mut service = instead.layer(stack.layer(prices.clone()));

    let mut told = Vec::new();
    for minute in 0..5 {
        prices.always(if (1..=3).contains(&minute) { Reply::Fail } else { Reply::Answer });
        let served = service.call(ITEM).await?;
        println!("at {minute} × 40 s: {} from {:?}", served.value, served.source);
        if !served.is_degraded() {
            last.lock().map_err(|_| "poisoned")?.remember(env.mono(), ITEM, served.value, 8);
        }
        told.push(served.source);
        env.sleep(Duration::from_secs(40)).await;
    }
    let (fresh, usual) = (Source::Upstream, Source::Static);
    let stale = Source::Stale { age: Duration::from_secs(40) };
    assert_eq!(told, [fresh.clone(), stale, usual.clone(), usual, fresh]);
    println!(
        "what became of the calls: {:?}",
        stack.counts().iter().filter(|(_, calls)| *calls > 0).collect::<Vec<_>>()
    );
    assert!(stack.counts().contains(&("fault", 3)), "what was served instead hides nothing");
    Ok(())
}
