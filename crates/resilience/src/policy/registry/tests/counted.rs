//! Rates that the store counts for several processes.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
};

use quorate_runtime::BoxFuture;

use super::*;
use crate::rate_limit::{Gcra, Portion, Rate};

/// A store that counts, answers late, or doesn't answer.
struct Store {
    env: Env,
    due: Mutex<BTreeMap<Name, u64>>,
    cut: AtomicBool,
    silent: AtomicBool,
}

impl Quota for Store {
    fn take<'a>(
        &'a self,
        key: &'a Name,
        rate: Rate,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>> {
        Box::pin(async move {
            if self.silent.load(Ordering::Relaxed) {
                self.env.sleep(Duration::from_secs(3_600)).await;
            }
            if self.cut.load(Ordering::Relaxed) {
                return Err(Unavailable(Arc::new(std::io::Error::other("cut off"))));
            }
            let (rule, now) = (Gcra::new(rate).unwrap(), self.env.mono());
            let mut known = self.due.lock().unwrap();
            let due = known.entry(key.clone()).or_default();
            Ok(match rule.lease(*due, now, least, most) {
                Ok((units, after)) => {
                    *due = after;
                    Portion::Given { units, left: rule.standing(after, now) }
                }
                Err(refused) => Portion::Refused(refused),
            })
        })
    }

    fn forget<'a>(&'a self, key: &'a Name) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            self.due.lock().unwrap().remove(key);
            Ok(())
        })
    }
}

struct World {
    env: Env,
    store: Arc<Store>,
    upstream: Upstream,
}

impl World {
    fn new() -> Self {
        let env = Env::real();
        let [cut, silent] = [(); 2].map(|()| AtomicBool::new(false));
        let store = Store { env: env.clone(), due: Mutex::default(), cut, silent };
        Self { upstream: Upstream::new(&env), store: Arc::new(store), env }
    }

    /// One of the processes, and its calls.
    fn process(&self, spec: &str) -> (Registry, crate::stack::Living<Upstream, Plain<Judge>>) {
        let stacks = Stacks::new(&Timers::new(&self.env));
        let policies = Registry::counting_in(&stacks, &circuit_breaker::Registry::new(&self.env), self.store.clone());
        apply(&policies, &[policy("bank", spec)]);
        let service = policies.stack(&name("bank"), plain()).unwrap().layer(self.upstream.clone());
        (policies, service)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.env.metrics()).unwrap();
        text
    }
}

/// Ten calls, and how many of them were made.
async fn ten(service: &mut crate::stack::Living<Upstream, Plain<Judge>>) -> usize {
    let mut made = 0;
    for call in 0..10 {
        match service.call(call).await {
            Ok(_) => made += 1,
            Err(error) => {
                let limited = matches!(error, CallError::Rejected(Rejection::Limit(_) | Rejection::Uncounted));
                assert!(limited, "{error}");
            }
        }
    }
    made
}

fn five(mode: &str) -> String {
    format!("rateLimit: {{requests: 5, per: 1h, count: store, onStoreUnavailable: {mode}}}")
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_store_make_as_many_calls_together_as_one_may() {
    let world = World::new();
    let ((_, mut one), (policies, mut two)) = (world.process(&five("deny")), world.process(&five("deny")));
    let made = ten(&mut one).await + ten(&mut two).await;
    assert_eq!((made, world.upstream.heard().len()), (5, 5));
    let standing = policies.standing(&name("bank")).unwrap();
    let limited = standing.outcomes.iter().find(|(word, _)| *word == "rejected_limit").unwrap().1;
    assert_eq!((limited, standing.uncounted, standing.limit), (10, Some(0), None), "they are counted among the calls");
    assert!(policies.reset_limit(&name("bank")).await.unwrap());
    assert_eq!(ten(&mut two).await, 5);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_cannot_count_what_the_document_says_holds_and_is_counted() {
    for (mode, made) in [("allow", 10), ("deny", 0), ("local", 5)] {
        for (cut, silent) in [(true, false), (false, true)] {
            let world = World::new();
            world.store.cut.store(cut, Ordering::Relaxed);
            world.store.silent.store(silent, Ordering::Relaxed);
            let (policies, mut service) = world.process(&five(mode));
            assert_eq!(ten(&mut service).await, made, "{mode}");
            assert_eq!(world.upstream.heard().len(), made, "{mode}");
            assert_eq!(policies.standing(&name("bank")).unwrap().uncounted, Some(10), "{mode}");
            let line = format!(r#"quorate_rate_limit_uncounted_total{{dependency="bank",decided="{mode}"}} 10"#);
            assert!(world.metrics().contains(&line), "{}", world.metrics());
            world.store.cut.store(false, Ordering::Relaxed);
            world.store.silent.store(false, Ordering::Relaxed);
            world.env.sleep(Duration::from_secs(1)).await;
            ten(&mut service).await;
            assert_eq!(policies.standing(&name("bank")).unwrap().uncounted, Some(10), "{mode}: it counts again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_count_a_quarter_of_its_own_time_and_then_what_is_declared_holds() {
    let world = World::new();
    world.store.silent.store(true, Ordering::Relaxed);
    for (mode, made) in [("allow", 10), ("local", 5), ("deny", 0)] {
        let spec = format!("{}, timeouts: {{request: 100ms}}", five(mode));
        let (policies, mut service) = world.process(&spec);
        let begun = world.env.mono();
        assert_eq!(ten(&mut service).await, made, "{mode}");
        assert_eq!(world.env.mono().saturating_since(begun).as_millis(), 10 * 25, "{mode}");
        assert_eq!(policies.standing(&name("bank")).unwrap().uncounted, Some(10), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_silence_calls_are_decided_at_once_until_one_asks_again() {
    let world = World::new();
    world.store.silent.store(true, Ordering::Relaxed);
    let (policies, mut service) = world.process(&five("allow"));
    for _ in 0..3 {
        let begun = world.env.mono();
        assert_eq!(ten(&mut service).await, 10);
        assert_eq!(world.env.mono().saturating_since(begun).as_millis(), 250, "one asks, and nine don't");
        world.env.sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(policies.standing(&name("bank")).unwrap().uncounted, Some(30));
    world.store.silent.store(false, Ordering::Relaxed);
    assert_eq!(ten(&mut service).await, 5, "it counts again");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_asks_is_one_that_nobody_waits_for_any_more() {
    let world = World::new();
    world.store.silent.store(true, Ordering::Relaxed);
    let (policies, mut service) = world.process(&five("allow"));
    assert!(world.env.timeout(Duration::from_millis(10), service.call(1)).await.is_none());
    let outcomes = policies.standing(&name("bank")).unwrap().outcomes;
    let of = |wanted: &str| outcomes.iter().find(|(word, _)| *word == wanted).unwrap().1;
    assert_eq!((of("cancelled"), of("success")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_asked_first_pass_every_other_policy_as_well() {
    let world = World::new();
    let rest = "retry: {attempts: 2, backoff: 1ms}, breaker: {consecutive: 3}, concurrency: {max: 1}";
    let (_, mut service) = world.process(&format!("{}, {rest}", five("deny")));
    world.upstream.script([Reply::Fail, Reply::Fail]);
    assert_eq!(service.call(7).await, Ok(7));
    assert_eq!(world.upstream.heard().len(), 3, "one call of three attempts takes one unit");
    assert_eq!(ten(&mut service).await, 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_stays_taken_when_the_policy_changes_and_who_counts_may_change() {
    let world = World::new();
    let (policies, mut service) = world.process(&five("deny"));
    assert_eq!(ten(&mut service).await, 5);
    apply(&policies, &[policy("bank", &format!("{}, timeouts: {{request: 3s}}", five("local")))]);
    assert_eq!(ten(&mut service).await, 0);
    apply(&policies, &[policy("bank", "rateLimit: {requests: 2, per: 1h}")]);
    assert_eq!(ten(&mut service).await, 2, "this process counts from now on");
    apply(&policies, &[policy("bank", &five("deny"))]);
    assert_eq!(ten(&mut service).await, 0, "the store has not forgotten");
}

#[tokio::test(start_paused = true)]
async fn calls_that_nobody_counted_stay_counted_whatever_the_rate_becomes() {
    let world = World::new();
    world.store.cut.store(true, Ordering::Relaxed);
    let (policies, mut service) = world.process(&five("allow"));
    ten(&mut service).await;
    let others =
        [five("deny"), "timeouts: {request: 3s}".to_owned(), five("allow").replace("requests: 5", "requests: 6")];
    for (spec, counted) in others.iter().zip([Some(0), None, Some(10)]) {
        apply(&policies, &[policy("bank", spec)]);
        assert_eq!(policies.standing(&name("bank")).unwrap().uncounted, counted, "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_nobody_keeps_is_refused_and_changes_nothing() {
    let env = Env::real();
    let policies = registry(&env);
    apply(&policies, &[policy("bank", "rateLimit: {requests: 2, per: 1h}")]);
    let refused = policies.apply(&documents(&[policy("bank", &five("deny"))])).unwrap_err();
    assert_eq!(refused, ApplyError::NoCount { dependency: name("bank") });
    assert_eq!(policies.standing(&name("bank")).unwrap().policy.counted, None);
}
