//! An upstream that doesn't answer, or answers and never ends.

use std::time::Duration;

use quorate_runtime::Env;

use super::{
    show::{Shown, millis, quantile},
    stage::{End, Ended, Pace, called, named, stack},
    upstream::{Does, Upstream},
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(20);
const PHASE: Duration = Duration::from_millis(1_000);
const TOTAL: Duration = Duration::from_millis(250);

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let upstream = Upstream::start(env).await?;
    let stack = stack(env, named("upstream")?.total(TOTAL))?;
    let (service, pace, url) = (called(env, &stack), Pace::new(env), upstream.url());
    let begun = env.mono();
    pace.calls(&service, &url, EVERY, PHASE).await;
    upstream.does(Does::Slow(Duration::from_secs(60)));
    let hung = env.mono();
    pace.calls(&service, &url, EVERY, PHASE).await;
    let each = (PHASE.as_millis() / EVERY.as_millis()) as usize;
    pace.all(2 * each).await;
    upstream.does(Does::Trickle);
    pace.calls(&service, &url, EVERY, PHASE).await;
    let ended = pace.all(3 * each).await;
    let until = env.mono();
    // An upstream learns that somebody left when it looks, or writes.
    env.sleep(Duration::from_millis(200)).await;

    let mut shown = Shown {
        scene: format!(
            "50 calls a second, each of which has {TOTAL:?} in all. For a second the upstream doesn't answer; for another it answers at once and sends a byte now and then."
        ),
        ..Shown::default()
    };
    let of = |end: End| ended.iter().filter(move |one| one.end == end);
    shown.count("ANSWERED", begun, of(End::Answered).map(|one| one.began));
    shown.count("GIVEN UP", begun, of(End::Late).map(|one| one.began + one.took));
    shown.unwell(begun, hung, until);
    let late: Vec<&Ended> = of(End::Late).collect();
    let mut spans: Vec<Duration> = late.iter().map(|one| one.took).collect();
    spans.sort();
    let seen = upstream.seen();
    shown.figure("given up after (median)", millis(quantile(&spans, 0.5)));
    shown.figure("given up after (longest)", millis(quantile(&spans, 1.0)));
    shown.figure("requests that told the upstream how long their caller waits", seen.told);
    shown.claim("every call to an upstream that hung or trickled was given up", late.len() == 2 * each);
    shown.claim("none was given up before its time", spans.first().is_some_and(|first| *first >= TOTAL));
    shown.claim("the upstream saw each of those callers leave, so that it can stop as well", seen.left == late.len());
    shown.claim("every request said how long its caller waits", seen.told == seen.arrivals.len());
    Ok(shown)
}
