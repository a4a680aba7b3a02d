//! An upstream that dies and returns under load, behind a circuit.

use std::{num::NonZeroU32, time::Duration};

use quorate_resilience::circuit_breaker::{Config, Open};
use quorate_runtime::Env;

use super::{
    show::Shown,
    stage::{End, Pace, called, named, stack},
    upstream::{Does, Upstream},
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(10);
const PHASE: Duration = Duration::from_millis(1_000);
const OPEN: Duration = Duration::from_millis(300);
const IN_A_ROW: u32 = 5;

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let upstream = Upstream::start(env).await?;
    let config = Config {
        consecutive: NonZeroU32::new(IN_A_ROW),
        open: Open { min: OPEN, max: OPEN, jitter: 0.0 },
        ..Config::default()
    };
    let stack = stack(env, named("upstream")?.endpoint_breaker(config))?;
    let (service, pace, url) = (called(env, &stack), Pace::new(env), upstream.url());
    let begun = env.mono();
    pace.calls(&service, &url, EVERY, PHASE).await;
    upstream.does(Does::Fail);
    let died = env.mono();
    pace.calls(&service, &url, EVERY, 2 * PHASE).await;
    upstream.does(Does::Answer);
    let returned = env.mono();
    pace.calls(&service, &url, EVERY, PHASE + OPEN).await;
    let made = (4 * PHASE + OPEN).as_millis() / EVERY.as_millis();
    let ended = pace.all(made as usize).await;

    let mut shown = Shown {
        scene: format!(
            "100 calls a second; the upstream answers 503 for two seconds. The circuit opens after {IN_A_ROW} failures in a row, for {OPEN:?}."
        ),
        ..Shown::default()
    };
    let arrivals = upstream.seen().arrivals;
    shown.count("CALLED", begun, ended.iter().map(|one| one.began));
    shown.count("REACHED THE UPSTREAM", begun, arrivals.iter().copied());
    shown.unwell(begun, died, returned);
    let while_dead = arrivals.iter().filter(|at| **at >= died && **at < returned).count();
    let refused = ended.iter().filter(|one| one.end == End::Refused).count();
    let last = ended.iter().rev().take(20).filter(|one| one.end == End::Answered).count();
    shown.figure("calls", ended.len());
    shown.figure("refused at once, without being sent", refused);
    shown.figure("reached the upstream while it was dead", while_dead);
    // Those that open it, one probe each time, and those that were under way.
    let bound = IN_A_ROW as usize + 2 * PHASE.as_millis() as usize / OPEN.as_millis() as usize + 5;
    shown.claim(format!("at most {bound} of the 200 calls made while it was dead reached it"), while_dead <= bound);
    shown.claim("once it was back, calls were answered again", last == 20);
    Ok(shown)
}
