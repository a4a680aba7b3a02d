//! An upstream dies for four seconds under two hundred calls a second. What reaches it: with retries that nobody bounds, and
//! behind a stack. Time is virtual: the fourteen seconds take a moment.
//!
//! `cargo run -p quorate-examples --example storm`

use std::{error::Error, num::NonZeroU32, time::Duration};

use quorate::{
    Env,
    resilience::{
        circuit_breaker,
        kit::{Reply, Upstream},
        retry::{BudgetConfig, Config},
        stack::{Builder, Plain, Stack},
        timeout::Timers,
    },
};
use tower_layer::Layer as _;
use tower_service::Service as _;

const SECONDS: u64 = 14;
const CALLS_A_SECOND: u64 = 200;
const DEAD: std::ops::Range<u64> = 4..8;

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let retry = Config { attempts: NonZeroU32::new(4).ok_or("four attempts")?, ..Config::default() };
    let unbounded = BudgetConfig { percent: 100, floor_per_second: 1_000_000, ..BudgetConfig::default() };
    let storm = Stack::builder("storm".parse()?).retry(retry, unbounded);
    let steady = Stack::builder("steady".parse()?)
        .total(Duration::from_secs(2))
        .retry(retry, BudgetConfig::default())
        .endpoint_breaker(circuit_breaker::Config::default());

    let (storm, steady) = (run(storm).await?, run(steady).await?);
    println!("what reaches the upstream each second ({CALLS_A_SECOND} calls are made)\n");
    println!("   s   unbounded retries                         behind a stack");
    for second in 0..SECONDS as usize {
        let mark = if DEAD.contains(&(second as u64)) { "†" } else { " " };
        let (wild, tame) = (storm[second], steady[second]);
        println!("  {second:>2} {mark} {wild:>4} {:<36} {tame:>4} {}", bar(wild), bar(tame));
    }
    let most = |seconds: &[u64]| seconds.iter().copied().max().unwrap_or(0);
    println!(
        "\nat most {} a second against {}; † marks seconds in which the upstream is dead",
        most(&storm),
        most(&steady)
    );
    assert!(most(&storm) > 3 * CALLS_A_SECOND, "retries that nobody bounds multiply");
    assert!(most(&steady) <= CALLS_A_SECOND * 2, "what the stack lets through is bounded");
    Ok(())
}

/// Calls through a stack while the upstream dies and returns; how many reach it in each second.
async fn run(stack: Builder) -> Result<Vec<u64>, Box<dyn Error>> {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack = stack.build(&Timers::new(&env), Plain::idempotent().judged_by(Upstream::judge))?;
    let begun = env.mono();
    for nth in 0..SECONDS * CALLS_A_SECOND {
        let dead = DEAD.contains(&(nth / CALLS_A_SECOND));
        upstream.always(if dead { Reply::Fail } else { Reply::Answer });
        let mut service = stack.layer(upstream.clone());
        env.tasks().spawn("call", async move { _ = service.call(nth).await });
        env.sleep(Duration::from_nanos(1_000_000_000 / CALLS_A_SECOND)).await;
    }
    let mut seconds = vec![0; SECONDS as usize + 1];
    for at in upstream.heard() {
        let second = at.saturating_since(begun).as_secs() as usize;
        seconds[second.min(SECONDS as usize)] += 1;
    }
    Ok(seconds)
}

fn bar(calls: u64) -> String {
    "█".repeat((calls / 25) as usize)
}
