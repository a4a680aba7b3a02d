//! Failures that pass by themselves, and an upstream that is dead: retries help with the one and must not harm the other.

use std::{num::NonZeroU32, time::Duration};

use quorate_resilience::retry::{Backoff, BudgetConfig, Config, Jitter};
use quorate_runtime::Env;

use super::{
    show::Shown,
    stage::{End, Pace, called, named, stack},
    upstream::{Does, Upstream},
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(5);
const PHASE: Duration = Duration::from_millis(1_500);
const PERCENT: u32 = 20;
const FLOOR: u32 = 10;

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let upstream = Upstream::start(env).await?;
    let backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(1), jitter: Jitter::Full };
    let config = Config { attempts: NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN), backoff, ..Config::default() };
    let budget = BudgetConfig { percent: PERCENT, interval: Duration::from_secs(1), floor_per_second: FLOOR };
    let stack = stack(env, named("upstream")?.retry(config, budget))?;
    let (service, pace, url) = (called(env, &stack), Pace::new(env), upstream.url());
    let begun = env.mono();
    // One connection breaks now and then.
    let hiccups = async {
        for _ in 0..7 {
            env.sleep(PHASE / 8).await;
            upstream.does(Does::Fail);
            env.sleep(2 * EVERY).await;
            upstream.does(Does::Answer);
        }
    };
    futures_util::join!(pace.calls(&service, &url, EVERY, PHASE), hiccups);
    let calls = (PHASE.as_millis() / EVERY.as_millis()) as usize;
    let first = pace.all(calls).await;
    upstream.does(Does::Fail);
    let (died, before) = (env.mono(), upstream.seen().arrivals.len());
    pace.calls(&service, &url, EVERY, PHASE).await;
    let ended = pace.all(2 * calls).await;
    let until = env.mono();

    let mut shown = Shown {
        scene: format!(
            "200 calls a second, up to four attempts each. First the upstream fails for 10 ms now and then; after {PHASE:?} it is dead. The budget is {PERCENT} % of the calls and {FLOOR} a second."
        ),
        ..Shown::default()
    };
    let arrivals = upstream.seen().arrivals;
    shown.count("CALLED", begun, ended.iter().map(|one| one.began));
    shown.count("REACHED THE UPSTREAM", begun, arrivals.iter().copied());
    shown.unwell(begun, died, until);
    let failed = first.iter().filter(|one| one.end != End::Answered).count();
    let dead = arrivals.len() - before;
    shown.figure("calls that failed while the upstream only stumbled", failed);
    shown.figure("attempts for each call while it was dead", format!("{:.2}", dead as f64 / calls as f64));
    let seconds = until.saturating_since(died).as_secs() + 2;
    // The second before counts as well: its calls earn retries.
    let earned = (2 * calls) * PERCENT as usize / 100 + FLOOR as usize * seconds as usize;
    shown.claim("no call failed while the upstream only stumbled", failed == 0);
    shown.claim(
        format!("a dead upstream got at most {earned} retries for {calls} calls, not three for one"),
        dead <= calls + earned,
    );
    Ok(shown)
}
