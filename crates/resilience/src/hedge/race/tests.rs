//! Copies on a paused clock.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use quorate_runtime::Env;

use super::*;
use crate::{
    hedge::After,
    retry::{Budget, BudgetConfig},
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An upstream that answers its calls after so long each, and knows how many it still works for.
struct World {
    env: Env,
    timers: Timers,
    budget: Mutex<Budget>,
    /// Calls it has seen, and those that nobody has ended.
    seen: Arc<AtomicU32>,
    working: Arc<AtomicU32>,
}

struct Working(Arc<AtomicU32>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl World {
    fn new(budget: BudgetConfig) -> Self {
        let env = Env::real();
        let [seen, working] = [(); 2].map(|()| Arc::default());
        Self { timers: Timers::new(&env), env, budget: Mutex::new(Budget::new(budget)), seen, working }
    }

    async fn call(&self, repeatable: Repeatable, answers: &[(u64, bool)]) -> Won<Result<u32, u32>> {
        let now = self.env.mono();
        self.budget.lock().unwrap().call(now);
        let config = Config { after: After::Fixed(millis(10)), extra: NonZeroU32::new(2).unwrap() };
        let deadline = Deadline::after(now, millis(10_000));
        let plan = Plan { config, delay: config.delay(|_| None), repeatable, deadline };
        let make = |copy: u32| {
            self.seen.fetch_add(1, Ordering::Relaxed);
            self.working.fetch_add(1, Ordering::Relaxed);
            let (working, env) = (Working(self.working.clone()), self.env.clone());
            let (after, good) = answers[copy as usize];
            async move {
                env.sleep(millis(after)).await;
                drop(working);
                if good { Ok(copy) } else { Err(copy) }
            }
        };
        let charge = |now| self.budget.lock().unwrap().charge(now);
        race(&self.timers, now, plan, charge, make, Result::is_ok).await
    }

    fn working(&self) -> u32 {
        self.working.load(Ordering::Relaxed)
    }
}

const PLENTY: BudgetConfig = BudgetConfig { percent: 100, interval: Duration::from_secs(10), floor_per_second: 10 };

#[tokio::test(start_paused = true)]
async fn the_quicker_copy_wins_and_the_upstream_works_for_nobody_any_more() {
    let world = World::new(PLENTY);
    let begun = world.env.mono();
    let won = world.call(Repeatable::Idempotent, &[(500, true), (20, true), (500, true)]).await;
    assert_eq!(won, Won { answer: Ok(1), copy: 1, sent: 3 });
    assert!(world.env.mono().saturating_since(begun) <= millis(34));
    assert_eq!(world.working(), 0, "losers are dropped with the answer");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_asked_for_once() {
    let world = World::new(PLENTY);
    assert_eq!(world.call(Repeatable::Idempotent, &[(9, true)]).await.sent, 1);
    assert_eq!(world.call(Repeatable::No, &[(900, true)]).await.sent, 1, "and a write however late");
    assert_eq!(world.seen.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_copy_that_is_under_way() {
    let world = World::new(PLENTY);
    let won = world.call(Repeatable::Keyed, &[(15, false), (40, true), (500, true)]).await;
    assert_eq!((won.answer, won.copy), (Ok(1), 1));
    let all = world.call(Repeatable::Keyed, &[(15, false), (15, false), (15, false)]).await;
    assert_eq!(all.answer, Err(2), "the last one to fail");
    assert_eq!(world.working(), 0);
}

#[tokio::test(start_paused = true)]
async fn copies_stay_within_the_budget_of_the_dependency_however_slow_it_is() {
    let world = World::new(BudgetConfig { percent: 20, floor_per_second: 0, ..PLENTY });
    for _ in 0..100 {
        world.call(Repeatable::Idempotent, &[(30, true), (30, true), (30, true)]).await;
    }
    assert_eq!(world.seen.load(Ordering::Relaxed), 120);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_drops_every_copy() {
    let world = World::new(PLENTY);
    let given_up = world.env.timeout(millis(50), world.call(Repeatable::Idempotent, &[(500, true); 3])).await;
    assert_eq!((given_up, world.working()), (None, 0));
    assert_eq!(world.seen.load(Ordering::Relaxed), 3);
}
