//! Alarms on a paused clock, and bodies that stall.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{pending, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame};
use proptest::prelude::*;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::*;
use crate::{deadline::Deadline, outcome::Scope};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Counts how often something was dropped.
struct Dropped(Arc<AtomicU32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn work_is_dropped_when_its_time_runs_out_and_not_before() {
    let env = Env::real();
    let timers = Timers::new(&env);
    let (begun, dropped) = (env.mono(), Arc::new(AtomicU32::new(0)));
    let held = Dropped(dropped.clone());
    let work = async move {
        let _held = held;
        pending::<()>().await;
    };
    let deadline = Deadline::after(begun, Duration::from_micros(2_500));
    let ended = timers.within(begun, deadline, Scope::Attempt, work).await;
    assert_eq!(ended, Err(Expired { scope: Scope::Attempt }));
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let waited = env.mono().saturating_since(begun);
    assert!(
        (Duration::from_micros(2_500)..=Duration::from_micros(2_500) + Timers::GRAIN).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn work_whose_deadline_has_passed_is_not_begun() {
    let env = Env::real();
    let timers = Timers::new(&env);
    env.sleep(millis(10)).await;
    let deadline = Deadline::at(Mono::ZERO + millis(5));
    let work = async { panic!("begun") };
    assert!(timers.within::<()>(env.mono(), deadline, Scope::Total, work).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_earlier_alarm_that_is_set_later_rings_first() {
    let env = Env::real();
    let timers = Timers::new(&env);
    let start = env.mono();
    let rings = |after: u64| {
        let (timers, env) = (timers.clone(), env.clone());
        async move {
            timers.alarm(Deadline::after(start, millis(after))).await;
            env.mono().saturating_since(start)
        }
    };
    let (late, early, never_set) = tokio::join!(
        rings(60_000),
        async {
            env.sleep(millis(5)).await;
            rings(20).await
        },
        async {
            drop(timers.alarm(Deadline::after(start, millis(1))));
            timers.within(start, Deadline::NEVER, Scope::Total, async { 3 }).await
        }
    );
    assert!((millis(20)..=millis(21)).contains(&early), "{early:?}");
    assert!((millis(60_000)..=millis(60_001)).contains(&late), "{late:?}");
    assert_eq!(never_set, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_can_be_set_to_another_time_before_and_after_it_rang() {
    let env = Env::real();
    let timers = Timers::new(&env);
    let start = env.mono();
    let mut alarm = timers.alarm(Deadline::after(start, millis(10)));
    poll_fn(|cx| Poll::Ready(alarm.ring(cx))).await.is_pending().then_some(()).unwrap();
    alarm.reset(Deadline::after(start, millis(50)));
    poll_fn(|cx| alarm.ring(cx)).await;
    assert!(env.mono().saturating_since(start) >= millis(50));
    alarm.reset(Deadline::after(start, millis(70)));
    poll_fn(|cx| alarm.ring(cx)).await;
    assert!(env.mono().saturating_since(start) >= millis(70));
}

#[tokio::test(start_paused = true)]
async fn alarms_ring_while_the_node_drains_and_hold_it_up_no_longer_than_they_live() {
    let env = Env::real();
    let timers = Timers::new(&env);
    let start = env.mono();
    let mut soon = Box::pin(timers.within(start, Deadline::after(start, millis(100)), Scope::Total, pending::<()>()));
    let far = timers.within(start, Deadline::after(start, millis(3_600_000)), Scope::Total, env.sleep(millis(200)));
    poll_fn(|cx| Poll::Ready(soon.as_mut().poll(cx))).await.is_pending().then_some(()).unwrap();
    let (ended, finished, ()) = tokio::join!(soon, far, env.tasks().shut_down());
    assert_eq!((ended.is_err(), finished), (true, Ok(())));
    let drained = env.mono().saturating_since(start);
    assert!(drained < millis(300), "{drained:?}: nobody waited for the alarm that was removed");
}

#[tokio::test(start_paused = true)]
async fn thousands_of_alarms_ring_in_time_and_none_that_was_dropped() {
    let env = Env::real();
    let timers = Timers::new(&env);
    let start = env.mono();
    let mut running = tokio::task::JoinSet::new();
    for i in 0..5_000_u64 {
        let (timers, env) = (timers.clone(), env.clone());
        running.spawn(async move {
            let (at, ends) = (millis(1 + i * 7 % 3_000), millis(i * 13 % 3_000));
            let deadline = Deadline::after(start, at);
            let done = timers.within(start, deadline, Scope::Total, env.sleep(ends)).await;
            let waited = env.mono().saturating_since(start);
            match done {
                Ok(()) => assert!(waited >= ends && waited <= at + millis(2)),
                Err(_) => assert!(waited >= at && waited <= at + millis(2) && ends >= at),
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// A body that sends its pieces after so long each, and then stalls.
struct Slow {
    env: Env,
    pieces: VecDeque<Duration>,
    next: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _held: Dropped,
}

impl Body for Slow {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, Infallible>>> {
        if self.next.is_none() {
            let env = self.env.clone();
            let after = self.pieces.pop_front();
            self.next = Some(Box::pin(async move {
                match after {
                    Some(after) => env.sleep(after).await,
                    None => pending().await,
                }
            }));
        }
        let next = self.next.as_mut().unwrap();
        std::task::ready!(next.as_mut().poll(cx));
        self.next = None;
        Poll::Ready(Some(Ok(Frame::data(b"piece"))))
    }
}

struct Reading {
    body: TimedBody<Slow>,
    dropped: Arc<AtomicU32>,
    env: Env,
}

impl Reading {
    fn of(pieces: &[u64], total: Option<u64>, idle: Option<u64>) -> Self {
        let env = Env::real();
        let dropped = Arc::new(AtomicU32::new(0));
        let pieces = pieces.iter().copied().map(millis).collect();
        let slow = Slow { env: env.clone(), pieces, next: None, _held: Dropped(dropped.clone()) };
        let total = total.map_or(Deadline::NEVER, |total| Deadline::after(env.mono(), millis(total)));
        let body = TimedBody::new(slow, &Timers::new(&env), (total, Scope::Total), idle.map(millis));
        Self { body, dropped, env }
    }

    async fn frame(&mut self) -> Option<Result<(), BodyError<Infallible>>> {
        let body = &mut self.body;
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.map(|frame| frame.map(drop))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_cut_off_at_the_deadline_with_an_error_and_its_sender_dropped() {
    let mut reading = Reading::of(&[100; 1_000], Some(1_050), None);
    for _ in 0..10 {
        reading.frame().await.unwrap().unwrap();
    }
    let end = reading.frame().await.unwrap().unwrap_err();
    assert!(matches!(end, BodyError::Expired(Expired { scope: Scope::Total })), "{end}");
    assert_eq!(reading.dropped.load(Ordering::Relaxed), 1, "while the reader still holds the body");
    assert!(reading.frame().await.is_none(), "an error is the last thing");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_and_read_slowly_is_cut_off_at_the_deadline() {
    let mut reading = Reading::of(&[0; 1_000], Some(1_050), None);
    for _ in 0..10 {
        reading.frame().await.unwrap().unwrap();
        reading.env.sleep(millis(100)).await;
    }
    reading.env.sleep(millis(100)).await;
    assert!(matches!(reading.frame().await, Some(Err(BodyError::Expired(_)))));
    assert_eq!(reading.dropped.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn alarms_that_are_set_after_the_node_was_told_to_stop_ring_as_well() {
    let env = Env::real();
    let timers = Timers::new(&env);
    for _ in 0..3 {
        let now = env.mono();
        let deadline = Deadline::after(now, millis(10));
        assert!(timers.within(now, deadline, Scope::Total, pending::<()>()).await.is_err());
        env.tasks().shut_down().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_end_lives_for_an_hour_and_dies_of_silence() {
    let mut reading = Reading::of(&[900; 4_000], None, Some(1_000));
    for _ in 0..4_000 {
        reading.frame().await.unwrap().unwrap();
    }
    let before = reading.env.mono();
    let end = reading.frame().await.unwrap().unwrap_err();
    assert!(matches!(end, BodyError::Idle(idle) if idle == millis(1_000)), "{end}");
    assert!(reading.env.mono().saturating_since(before) <= millis(1_001));
    assert_eq!(reading.dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn hopeless_calls_are_refused_and_unknown_ones_are_not() {
    let (now, config) = (Mono::ZERO, Config::default());
    let deadline = Deadline::after(now, millis(100));
    assert_eq!(config.admit(now, deadline, None), Ok(()));
    assert_eq!(config.admit(now, deadline, Some(millis(99))), Ok(()));
    let refused = config.admit(now, deadline, Some(millis(100)));
    assert_eq!(refused, Err(Hopeless { remaining: millis(100), needs: millis(100) }));
    assert!(config.admit(now + millis(100), deadline, None).is_err(), "a deadline that has passed needs no measuring");
    let lax = Config { refuse_hopeless: false, ..config };
    assert_eq!(lax.admit(now, deadline, Some(millis(500))), Ok(()));
    assert!(lax.admit(now + millis(100), deadline, Some(millis(500))).is_err());
    assert_eq!(config.admit(now, Deadline::NEVER, Some(Duration::MAX / 2)), Ok(()));
}

#[test]
fn times_that_cannot_be_name_the_field() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let attempt = Config { total: seconds(3), attempt: seconds(3), ..Config::default() };
    assert!(attempt.check().unwrap_err().to_string().contains("`attempt` is 3s, not less than `total`, 3s"));
    assert_eq!(Config { idle: seconds(0), ..Config::default() }.check(), Err(ConfigError::Zero("idle")));
    assert_eq!(Config::default().check(), Ok(()));
}

proptest! {
    #[test]
    fn no_attempt_outlives_its_call_and_no_call_its_caller(
        now in 0_u64..1_000_000,
        inherited in proptest::option::of(0_u64..100_000),
        total in proptest::option::of(1_u64..100_000),
        attempt in proptest::option::of(1_u64..100_000),
        later in 0_u64..200_000,
    ) {
        let now = Mono::ZERO + millis(now);
        let inherited = inherited.map_or(Deadline::NEVER, |span| Deadline::after(now, millis(span)));
        let config = Config { total: total.map(millis), attempt: attempt.map(millis), ..Config::default() };
        let whole = config.total(now, inherited);
        let once = config.attempt(now + millis(later), whole);
        prop_assert!(once <= whole && whole <= inherited);
        prop_assert!(total.is_none_or(|total| whole <= Deadline::after(now, millis(total))));
    }
}
