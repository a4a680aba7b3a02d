//! Somebody who asks four times as often as was agreed.

use std::{num::NonZeroU32, time::Duration};

use quorate_resilience::rate_limit::Rate;
use quorate_runtime::Env;

use super::{
    show::Shown,
    stage::{End, Pace, called, named, stack},
    upstream::Upstream,
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(5);
const SPAN: Duration = Duration::from_millis(2_500);
const RATE: u32 = 50;
const BURST: u32 = 20;

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let upstream = Upstream::start(env).await?;
    let n = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    let rate = Rate::new(n(RATE), Duration::from_secs(1)).with_burst(n(BURST));
    let stack = stack(env, named("upstream")?.limit(rate))?;
    let (service, pace, url) = (called(env, &stack), Pace::new(env), upstream.url());
    let begun = env.mono();
    pace.calls(&service, &url, EVERY, SPAN).await;
    let calls = (SPAN.as_millis() / EVERY.as_millis()) as usize;
    let ended = pace.all(calls).await;

    let mut shown = Shown {
        scene: format!("200 calls a second through a limit of {RATE} a second, of which {BURST} may come at once."),
        ..Shown::default()
    };
    let arrivals = upstream.seen().arrivals;
    shown.count("CALLED", begun, ended.iter().map(|one| one.began));
    shown.count("REACHED THE UPSTREAM", begun, arrivals.iter().copied());
    let refused = ended.iter().filter(|one| one.end == End::Refused).count();
    shown.figure("reached the upstream", arrivals.len());
    shown.figure("refused, without being sent", refused);
    let taken = ended.last().map(|one| one.began.saturating_since(begun)).unwrap_or_default();
    let most = f64::from(BURST) + f64::from(RATE) * taken.as_secs_f64() + 1.0;
    shown
        .claim(format!("no more than a burst and {RATE} a second reached the upstream"), arrivals.len() as f64 <= most);
    shown.claim("every call was answered or refused", refused + arrivals.len() == ended.len());
    Ok(shown)
}
