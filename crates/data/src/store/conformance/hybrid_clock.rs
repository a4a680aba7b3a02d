//! Hybrid clocks: stamps that grow, whoever opens them after whatever.

use std::{collections::BTreeSet, future::Future as _, pin::pin, task::Context, time::Duration};

use futures_util::{future::join_all, task::noop_waker};
use quorate_foundations::{
    ordering::hlc::{Config, HlcError, Stamp},
    time::Wall,
};

use super::{
    super::{HybridClock, HybridClockError, Limits, Retry, Store},
    Outcome, Place,
    vocabulary::{assert_sound, stream},
};

/// An hour: no machine that tests is that slow.
const BOUND: Duration = Duration::from_secs(3_600);

/// A clock that takes stamps up to an hour ahead, and reserves a window ahead.
async fn open(store: &Store, name: &str, window: Duration) -> Result<HybridClock, HybridClockError> {
    let config = Config::new(BOUND, window).unwrap_or_else(|wrong| panic!("{wrong}"));
    HybridClock::open(store, stream(name), config).await
}

/// A stamp of somebody whose clock is ahead.
fn ahead(store: &Store, by: Duration) -> Stamp {
    Stamp::new(store.env().wall() + by, 7)
}

pub(super) async fn stamps_grow_through_reopening_and_crashes(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    let mut last = Stamp::ZERO;
    for round in 0..4 {
        let clock = open(&store, "orders", Duration::from_millis(250)).await?;
        // From the second round on, the wall clock is behind what was handed out, by most of an hour.
        let mut stamps = vec![clock.tick().await?];
        if round == 0 {
            stamps.push(clock.observe(ahead(&store, BOUND - Duration::from_secs(60))).await?);
        }
        for _ in 0..100 {
            stamps.push(clock.tick().await?);
        }
        assert!(stamps[0] > last, "{} was handed out after {last}, in round {round}", stamps[0]);
        assert!(stamps.is_sorted_by(|earlier, later| earlier < later), "{stamps:?}");
        assert!(clock.ahead() > BOUND / 2 && clock.ahead() < BOUND, "{:?}", clock.ahead());
        last = stamps.pop().unwrap_or(last);
        if round % 2 == 0 {
            place.crash(store).await;
        } else {
            store.close().await?;
        }
        store = place.open(Limits::default()).await;
    }
    Ok(assert_sound(&store).await?)
}

pub(super) async fn stamps_asked_for_at_once_are_all_different(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    // So narrow that marks are written all the time.
    let clock = open(&store, "orders", Duration::from_nanos(1)).await?;
    let asked = join_all((0..8).map(|_| async {
        let mut own = Vec::new();
        for n in 0..25 {
            let heard = (n % 5 == 4).then(|| ahead(&store, Duration::from_secs(n)));
            own.push(match heard {
                Some(heard) => clock.observe(heard).await?,
                None => clock.tick().await?,
            });
            assert!(heard < own.last().copied());
        }
        assert!(own.is_sorted_by(|earlier, later| earlier < later), "{own:?}");
        Ok::<_, HybridClockError>(own)
    }));
    let stamps = asked.await.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(stamps.iter().flatten().collect::<BTreeSet<_>>().len(), 200);
    Ok(())
}

pub(super) async fn a_mark_is_written_for_many_stamps(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let clock = open(&store, "orders", BOUND / 2).await?;
    let before = store.statistics().commits;
    for _ in 0..10_000 {
        clock.tick().await?;
    }
    let commits = store.statistics().commits - before;
    assert!(commits <= 1, "{commits} transactions for 10,000 stamps");
    Ok(())
}

pub(super) async fn a_stamp_from_too_far_ahead_is_refused(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let clock = open(&store, "orders", Duration::from_millis(250)).await?;
    let before = clock.tick().await?;
    let refused = clock.observe(ahead(&store, BOUND * 2)).await.expect_err("an hour too far");
    let told = matches!(refused, HybridClockError::Refused(HlcError::TooFarAhead { bound: BOUND, .. }));
    assert!(told && matches!(refused.retry(), Retry::After(_)), "{refused:?}");
    let after = clock.tick().await?;
    assert!(before < after && after.wall() < ahead(&store, BOUND).wall(), "it leaves no trace: {after}");
    Ok(())
}

pub(super) async fn of_two_openers_of_a_clock_the_later_one_goes_on(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let first = open(&store, "orders", Duration::from_secs(60)).await?;
    let before = first.tick().await?;
    let second = open(&store, "orders", Duration::from_secs(60)).await?;
    let from = second.tick().await?;
    // The first one uses up what it had reserved, which is all below.
    let rest = first.tick().await?;
    assert!(before < rest && rest < from, "{before} {rest} {from}");
    // What it has not reserved it does not get, the first time or ever.
    for _ in 0..3 {
        let refused = first.observe(ahead(&store, Duration::from_secs(600))).await;
        let told = matches!(&refused, Err(HybridClockError::Fenced { name }) if *name == stream("orders"));
        assert!(told, "{refused:?}");
    }
    let last = second.observe(ahead(&store, Duration::from_secs(600))).await?;
    assert!(from < last);
    assert!(open(&store, "orders", Duration::from_secs(60)).await?.tick().await? > last);
    Ok(())
}

pub(super) async fn openers_that_race_share_no_stamp(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let raced = join_all((0..4).map(|_| async {
        let mut own = Vec::new();
        for _ in 0..5 {
            let clock = open(&store, "orders", Duration::from_millis(1)).await?;
            for n in 1..20 {
                // Further ahead each time, so that marks are written, and fences noticed.
                match clock.observe(ahead(&store, Duration::from_secs(n))).await {
                    Ok(stamp) => own.push(stamp),
                    Err(HybridClockError::Fenced { .. }) => break,
                    Err(other) => return Err(other),
                }
            }
        }
        Ok::<_, HybridClockError>(own)
    }));
    let stamps = raced.await.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    assert_eq!(stamps.iter().collect::<BTreeSet<_>>().len(), stamps.len(), "{stamps:?}");
    let last = open(&store, "orders", Duration::from_millis(1)).await?.tick().await?;
    assert!(stamps.iter().all(|stamp| *stamp < last));
    Ok(())
}

pub(super) async fn a_tick_that_is_dropped_repeats_no_stamp(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let clock = open(&store, "orders", Duration::from_nanos(1)).await?;
    let (mut last, mut dropped) = (Stamp::ZERO, 0);
    for n in 0..20 {
        {
            // Dropped while its mark is being written, which may come to pass all the same.
            let mut tick = pin!(clock.observe(ahead(&store, Duration::from_secs(40 - n))));
            dropped += u32::from(tick.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_pending());
        }
        let stamp = clock.tick().await?;
        assert!(stamp > last, "{stamp} after {last}");
        last = stamp;
    }
    assert!(dropped > 0, "not one was dropped half-way");
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    let stamp = open(&store, "orders", Duration::from_nanos(1)).await?.tick().await?;
    assert!(stamp > last, "{stamp} after {last} and a crash");
    Ok(())
}

pub(super) async fn each_clock_has_a_mark_of_its_own(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let (orders, stock) =
        (open(&store, "orders", Duration::from_secs(1)).await?, open(&store, "stock", Duration::from_secs(1)).await?);
    let far = orders.observe(ahead(&store, BOUND / 2)).await?;
    let near = stock.tick().await?;
    assert!(near < far && near > Stamp::new(Wall::from_unix_nanos(0), 0));
    let (far_again, near_again) = (
        open(&store, "orders", Duration::from_secs(1)).await?.tick().await?,
        open(&store, "stock", Duration::from_secs(1)).await?.tick().await?,
    );
    assert!(far_again > far && near_again > near && near_again < far);
    Ok(())
}
