//! One call in twenty of a search takes a second instead of ten milliseconds. What a second copy of late calls does to the slowest
//! of two thousand, and what it costs. Time is virtual.
//!
//! `cargo run -p quorate-examples --example hedge`

use std::{error::Error, num::NonZeroU32, time::Duration};

use quorate::{
    Env,
    resilience::{
        hedge::{After, Config},
        kit::Upstream,
        retry::BudgetConfig,
        stack::{Builder, Plain, Stack},
        timeout::Timers,
    },
};
use tower_layer::Layer as _;
use tower_service::Service as _;

const CALLS: u64 = 2_000;

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let late = Config { after: After::Fixed(Duration::from_millis(20)), extra: NonZeroU32::MIN };
    let once = quorate::resilience::retry::Config { attempts: NonZeroU32::MIN, ..Default::default() };
    let plain = run(Stack::builder("plain".parse()?)).await?;
    let hedged = run(Stack::builder("hedged".parse()?).retry(once, BudgetConfig::default()).hedge(late)).await?;

    println!("            half within   99 of 100 within   calls sent");
    for (name, run) in [("plain", &plain), ("hedged", &hedged)] {
        println!("  {name:<9} {:>11?} {:>18?} {:>12}", run.within(0.5), run.within(0.99), run.sent);
    }
    assert_eq!(plain.within(0.99), Duration::from_secs(1), "the slow ones are what users remember");
    assert!(hedged.within(0.99) < Duration::from_millis(50), "{:?}", hedged.within(0.99));
    assert!(hedged.sent <= CALLS as usize * 106 / 100, "one call in twenty was copied: {}", hedged.sent);
    Ok(())
}

struct Run {
    took: Vec<Duration>,
    sent: usize,
}

impl Run {
    /// How long the quickest `part` of the calls took at most.
    fn within(&self, part: f64) -> Duration {
        self.took[((self.took.len() - 1) as f64 * part) as usize]
    }
}

/// Calls through a stack, of which every twentieth is slow.
async fn run(stack: Builder) -> Result<Run, Box<dyn Error>> {
    let env = Env::real();
    let search = Upstream::new(&env);
    let stack = stack.build(&Timers::new(&env), Plain::idempotent().judged_by(Upstream::judge))?;
    let mut service = stack.layer(search.clone());
    let mut took = Vec::new();
    for nth in 0..CALLS {
        search.takes(Duration::from_millis(if nth % 20 == 0 { 1_000 } else { 10 }));
        let begun = env.mono();
        let call = service.call(nth);
        // What is asked a second time asks another replica, which is as quick as usual.
        let usual = search.clone();
        env.tasks().spawn("another replica", async move { usual.takes(Duration::from_millis(10)) });
        call.await?;
        took.push(env.mono().saturating_since(begun));
    }
    took.sort();
    Ok(Run { took, sent: search.heard().len() })
}
