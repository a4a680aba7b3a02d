//! An upstream that becomes slow, and what its callers keep for others.

use std::{num::NonZeroU32, time::Duration};

use quorate_resilience::bulkhead::{Config, Limit, Queue};
use quorate_runtime::Env;

use super::{
    show::Shown,
    stage::{End, Pace, called, named, stack},
    upstream::{Does, Upstream},
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(10);
const PHASE: Duration = Duration::from_millis(1_000);
const SLOW: Duration = Duration::from_millis(400);
const PLACES: u32 = 10;

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let (slow, well) = (Upstream::start(env).await?, Upstream::start(env).await?);
    let limit = NonZeroU32::new(PLACES).unwrap_or(NonZeroU32::MIN);
    let queue = Queue { length: 5, max_wait: Duration::from_millis(50) };
    let config = Config { limit: Limit::Fixed(limit), queue, ..Config::default() };
    let behind = stack(env, named("slow")?.bulkhead(config.clone()))?;
    let beside = stack(env, named("well")?.bulkhead(config))?;
    let (behind, beside) = (called(env, &behind), called(env, &beside));
    let (pace, other) = (Pace::new(env), Pace::new(env));
    let begun = env.mono();
    pace.calls(&behind, &slow.url(), EVERY, PHASE).await;
    slow.does(Does::Slow(SLOW));
    let slowed = env.mono();
    let (url, of_other) = (slow.url(), well.url());
    futures_util::join!(pace.calls(&behind, &url, EVERY, 2 * PHASE), other.calls(&beside, &of_other, EVERY, 2 * PHASE));
    let until = env.mono();
    let made = (PHASE.as_millis() / EVERY.as_millis()) as usize;
    let (ended, others) = (pace.all(3 * made).await, other.all(2 * made).await);

    let mut shown = Shown {
        scene: format!(
            "100 calls a second to each of two upstreams; one of them takes {SLOW:?} from the second second on. Each has {PLACES} places, and 5 may wait for 50 ms."
        ),
        ..Shown::default()
    };
    let of = |end: End| ended.iter().filter(move |one| one.end == end).map(|one| one.began);
    shown.count("SLOW: ANSWERED", begun, of(End::Answered));
    shown.count("SLOW: REFUSED", begun, of(End::Refused));
    shown.count("OTHER: ANSWERED", begun, others.iter().filter(|one| one.end == End::Answered).map(|one| one.began));
    shown.unwell(begun, slowed, until);
    let seen = slow.seen();
    shown.figure("the most calls under way at the slow one", seen.most);
    shown.figure("refused, so that nobody hangs on it", of(End::Refused).count());
    shown.claim(format!("never more than {PLACES} calls were under way at the slow one"), seen.most <= PLACES as usize);
    shown.claim("some were refused", of(End::Refused).count() > 0);
    let unharmed = others.iter().all(|one| one.end == End::Answered);
    shown.claim("no call to the other upstream was refused or failed", unharmed && others.len() == 2 * made);
    Ok(shown)
}
