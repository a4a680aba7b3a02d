//! The bulkhead on a paused clock and on real threads.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::*;
use crate::{
    deadline::Deadline,
    outcome::{Class, Outcome},
    timeout::Timers,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn fixed(limit: u32, length: u32, max_wait: u64) -> Config {
    let limit = Limit::Fixed(NonZeroU32::new(limit).unwrap());
    Config { limit, queue: Queue { length, max_wait: millis(max_wait) }, ..Config::default() }
}

struct World {
    env: Env,
    timers: Timers,
    bulkhead: Arc<Bulkhead>,
}

impl World {
    fn of(config: Config) -> Self {
        let env = Env::real();
        let bulkhead = Arc::new(Bulkhead::new(config, env.mono()).unwrap());
        Self { timers: Timers::new(&env), env, bulkhead }
    }

    fn enter(&self, ask: Ask) -> Entering<Arc<Bulkhead>> {
        Bulkhead::enter(self.bulkhead.clone(), &self.timers, self.env.mono(), ask)
    }

    fn in_flight(&self) -> u32 {
        self.bulkhead.snapshot().in_flight
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_enters_when_a_place_is_free_and_is_sent_away_in_time() {
    let world = World::of(fixed(1, 10, 100));
    let first = world.enter(Ask::default()).await.unwrap();
    let begun = world.env.mono();
    let (second, third, ()) = tokio::join!(
        async {
            let permit = world.enter(Ask::default()).await.unwrap();
            (world.env.mono().saturating_since(begun), permit)
        },
        world.enter(Ask::default()),
        async {
            world.env.sleep(millis(50)).await;
            first.settle(world.env.mono(), Outcome::Upstream(Class::Success));
        }
    );
    assert_eq!(second.0, millis(50));
    assert_eq!(third.unwrap_err().why, Why::MaxWait);
    assert!(world.env.mono().saturating_since(begun) <= millis(102));
    assert_eq!(world.in_flight(), 1);
    drop(second);
    let snapshot = world.bulkhead.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_passes_in_the_queue_is_never_made() {
    let world = World::of(fixed(1, 10, 10_000));
    let first = world.enter(Ask::default()).await.unwrap();
    let deadline = Deadline::after(world.env.mono(), millis(30));
    let waited = world.enter(Ask { deadline, ..Ask::default() });
    let (refused, ()) = tokio::join!(waited, async {
        world.env.sleep(millis(31)).await;
        drop(first);
    });
    assert_eq!(refused.unwrap_err().why, Why::Deadline);
    assert_eq!(world.in_flight(), 0);
    assert_eq!(world.enter(Ask { deadline, ..Ask::default() }).await.unwrap_err().why, Why::Deadline);
}

#[tokio::test(start_paused = true)]
async fn dropping_one_who_waits_leaves_the_queue_also_after_it_was_given_the_place() {
    let world = World::of(fixed(1, 10, 10_000));
    let first = world.enter(Ask::default()).await.unwrap();
    let (mut gone, mut given) = (Box::pin(world.enter(Ask::default())), Box::pin(world.enter(Ask::default())));
    for waiting in [&mut gone, &mut given] {
        std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    }
    assert_eq!(world.bulkhead.snapshot().waiting, 2);
    drop(gone);
    assert_eq!(world.bulkhead.snapshot().waiting, 1);
    drop(first);
    assert_eq!(world.in_flight(), 1, "it is the other's, who doesn't know yet");
    drop(given);
    assert_eq!(world.in_flight(), 0);
    assert!(world.enter(Ask::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_lowers_itself_when_calls_begin_to_wait_for_each_other() {
    let adaptive = Adaptive { initial: NonZeroU32::new(500).unwrap(), ..Adaptive::default() };
    let config = Config { limit: Limit::Adaptive(adaptive), ..Config::default() };
    let bulkhead = Bulkhead::new(config, Mono::ZERO).unwrap();
    // An upstream that does twenty calls at once in 10 ms each; two hundred callers, of which some are refused.
    let mut now = Mono::ZERO;
    let mut call = |callers: u32| {
        let inside: Vec<_> =
            (0..callers).filter_map(|_| Bulkhead::try_enter(&bulkhead, now, &Ask::default()).ok()).collect();
        now = now + millis(10 * u64::from(callers.min(inside.len() as u32).div_ceil(20)));
        inside.into_iter().for_each(|permit| permit.settle(now, Outcome::Upstream(Class::Success)));
    };
    (0..100).for_each(|_| call(5));
    (0..1_000).for_each(|_| call(200));
    let limit = bulkhead.snapshot().limit;
    assert!((15..=60).contains(&limit), "{limit}");
}

#[test]
fn threads_never_find_more_inside_than_the_limit_and_leave_it_empty() {
    let config = Config { shares: Shares { background: 0.5, normal: 1.0 }, ..fixed(4, 0, 1) };
    let bulkhead = Bulkhead::new(config, Mono::ZERO).unwrap();
    let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (bulkhead, inside, most) = (&bulkhead, &inside, &most);
            scope.spawn(move || {
                let ask = Ask { priority: Priority::ALL[number % 3], ..Ask::default() };
                for _ in 0..5_000 {
                    if let Ok(permit) = Bulkhead::try_enter(bulkhead, Mono::ZERO, &ask) {
                        most.fetch_max(inside.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                        inside.fetch_sub(1, Ordering::AcqRel);
                        drop(permit);
                    }
                }
            });
        }
    });
    assert!(most.load(Ordering::Relaxed) <= 4);
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn rules_that_change_keep_those_inside_and_those_who_wait() {
    let world = World::of(fixed(1, 10, 1_000));
    let first = world.enter(Ask::default()).await.unwrap();
    let (second, ()) = tokio::join!(world.enter(Ask::default()), async {
        tokio::task::yield_now().await;
        world.bulkhead.configure(Config { tenant_share: Some(0.5), ..fixed(2, 10, 1_000) }, world.env.mono()).unwrap();
    });
    assert_eq!(world.in_flight(), 2);
    drop((first, second));
    let tenant = Ask { tenant: Some("one".parse().unwrap()), ..Ask::default() };
    let theirs = world.enter(tenant.clone()).await.unwrap();
    let refused = Bulkhead::try_enter(&*world.bulkhead, world.env.mono(), &tenant).unwrap_err();
    assert_eq!(refused.why, Why::TenantShare);
    drop(theirs);
    world.bulkhead.configure(fixed(1, 0, 1), world.env.mono()).unwrap();
    assert!(world.enter(tenant).await.is_ok());
    assert_eq!(world.in_flight(), 0);
    let nonsense = Config { tenant_share: Some(0.0), ..fixed(1, 0, 1) };
    assert!(world.bulkhead.configure(nonsense, world.env.mono()).unwrap_err().to_string().contains("`tenant_share`"));
}

#[test]
fn an_adaptive_limit_rises_with_bursts_that_the_upstream_takes() {
    let config = Config { limit: Limit::Adaptive(Adaptive::default()), ..Config::default() };
    let bulkhead = Bulkhead::new(config, Mono::ZERO).unwrap();
    for second in 0..60 {
        let now = Mono::ZERO + millis(1_000 * second);
        let inside: Vec<_> =
            (0..50).filter_map(|_| Bulkhead::try_enter(&bulkhead, now, &Ask::default()).ok()).collect();
        inside.into_iter().for_each(|permit| permit.settle(now + millis(20), Outcome::Upstream(Class::Success)));
    }
    let limit = bulkhead.snapshot().limit;
    assert!(limit >= 50, "{limit}");
}
