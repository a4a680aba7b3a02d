//! One client asks twenty times a second where five are allowed, another three times: the first is told when to come back, the
//! second notices nothing. Time is virtual.
//!
//! `cargo run -p quorate-examples --example rate_limit`

use std::{collections::BTreeMap, error::Error, num::NonZeroU32, time::Duration};

use quorate::{
    Env,
    resilience::{
        dice::Dice,
        rate_limit::{Keyed, Rate, headers, network},
    },
};

const SECONDS: u64 = 10;

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let five_a_second = Rate::new(const { NonZeroU32::new(5).unwrap() }, Duration::from_secs(1));
    let limits = Keyed::new(five_a_second, 1_000.try_into()?, env.random("limits").u64())?;
    let mut dice = Dice::from_rng(&mut env.random("come back"));
    println!("RateLimit-Policy: {}", headers::policy("per-client", &five_a_second, None));

    let mut passed = BTreeMap::new();
    for tick in 0..SECONDS * 60 {
        // The greedy one changes its address all the time, within the network that it was given.
        let greedy = (tick % 3 == 0).then(|| format!("2001:db8::{tick:x}"));
        let modest = (tick % 20 == 0).then(|| "192.0.2.7".to_owned());
        for address in [greedy, modest].into_iter().flatten() {
            let client = network(address.parse()?);
            match limits.take(env.mono(), &client, 1) {
                Ok(_) => *passed.entry(client).or_insert(0) += 1,
                Err(refused) if tick == 60 => {
                    println!("{client} is told: 429, Retry-After {:?}", refused.retry_after(&mut dice));
                }
                Err(_) => {}
            }
        }
        env.sleep(Duration::from_nanos(1_000_000_000 / 60)).await;
    }
    let (greedy, modest) = (passed[&network("2001:db8::1".parse()?)], passed[&network("192.0.2.7".parse()?)]);
    println!("in {SECONDS} s: {greedy} of 200 calls of the greedy one passed, {modest} of 30 of the modest one");
    assert_eq!(modest, 30, "whoever keeps to the rate notices nothing");
    assert!((50..=55).contains(&greedy), "a burst, and then five a second: {greedy}");
    Ok(())
}
