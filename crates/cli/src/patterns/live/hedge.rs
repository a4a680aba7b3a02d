//! An upstream of which one answer in twenty is slow for no reason.

use std::{num::NonZeroU32, time::Duration};

use http::Method;
use quorate_resilience::{
    hedge::{After, Config},
    retry::{self, BudgetConfig},
};
use quorate_runtime::Env;

use super::{
    show::{Shown, millis, quantile},
    stage::{Called, Pace, call, called, named, stack},
    upstream::{Does, Upstream},
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(5);
const SPAN: Duration = Duration::from_millis(2_000);
const SLOW: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_millis(30);

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let upstream = Upstream::start(env).await?;
    upstream.does(Does::SlowEvery(20, SLOW));
    let url = upstream.url();
    let plain = called(env, &stack(env, named("plain")?)?);
    let budget = BudgetConfig { percent: 20, interval: Duration::from_secs(10), floor_per_second: 10 };
    let once = retry::Config { attempts: NonZeroU32::MIN, ..retry::Config::default() };
    let hedged =
        named("hedged")?.hedge(Config { after: After::Fixed(LATE), extra: NonZeroU32::MIN }).retry(once, budget);
    let hedged = called(env, &stack(env, hedged)?);
    let calls = (SPAN.as_millis() / EVERY.as_millis()) as usize;
    let spans = async |service: &Called| {
        let pace = Pace::new(env);
        pace.calls(service, &url, EVERY, SPAN).await;
        let mut spans: Vec<Duration> = pace.all(calls).await.iter().map(|one| one.took).collect();
        spans.sort();
        spans
    };
    let without = spans(&plain).await;
    let before = upstream.seen().arrivals.len();
    let with = spans(&hedged).await;
    let copies = upstream.seen().arrivals.len() - before - with.len();
    // Writes are slow all the same, and never sent twice.
    upstream.does(Does::Slow(2 * LATE));
    let mut writer = hedged.clone();
    for _ in 0..5 {
        call(env, &mut writer, Method::POST, &url).await;
    }

    let mut shown = Shown {
        scene: format!(
            "200 reads a second; one answer in twenty takes {SLOW:?}. A second copy is sent after {LATE:?}, and the first answer wins."
        ),
        ..Shown::default()
    };
    for (what, spans) in [("without", &without), ("with", &with)] {
        let at = |part| millis(quantile(spans, part));
        shown.figure(&format!("{what} copies: median, 95 %, 99 %"), format!("{}, {}, {}", at(0.5), at(0.95), at(0.99)));
    }
    shown.figure("copies", format!("{copies} for {} reads", with.len()));
    shown.claim("copies stayed within a fifth of the reads and ten a second", copies <= with.len() / 5 + 30);
    shown.claim("copies were sent, and slow answers became rarer", {
        let slow = |spans: &[Duration]| spans.iter().filter(|span| **span >= SLOW).count();
        copies > 0 && slow(&with) < slow(&without)
    });
    shown.claim("no write was copied", upstream.seen().writes == 5);
    Ok(shown)
}
