use std::{
    num::NonZeroU32,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{
    Refuser,
    kit::Upstream,
    rate_limit::{Gcra, OnUnavailable, Portion, Quota, Rate, SharedConfig, Unavailable},
    stack::{Plain, Stack},
    timeout::Timers,
};

/// A count for one key that can be cut off.
struct Keeper(Env, Mutex<u64>, AtomicBool);

impl Quota for Keeper {
    fn take<'a>(
        &'a self,
        _: &'a Name,
        rate: Rate,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>> {
        Box::pin(async move {
            if self.2.load(Ordering::Relaxed) {
                return Err(Unavailable(Arc::new(std::io::Error::other("cut off"))));
            }
            let (rule, now, mut due) = (Gcra::new(rate).unwrap(), self.0.mono(), self.1.lock().unwrap());
            Ok(match rule.lease(*due, now, least, most) {
                Ok((units, after)) => {
                    *due = after;
                    Portion::Given { units, left: rule.standing(after, now) }
                }
                Err(refused) => Portion::Refused(refused),
            })
        })
    }

    fn forget<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            if self.2.load(Ordering::Relaxed) {
                return Err(Unavailable(Arc::new(std::io::Error::other("cut off"))));
            }
            *self.1.lock().unwrap() = 0;
            Ok(())
        })
    }
}

fn five_a_minute() -> Rate {
    Rate::new(NonZeroU32::new(5).unwrap(), Duration::from_secs(60))
}

fn config(on_unavailable: OnUnavailable) -> SharedConfig {
    SharedConfig {
        rate: five_a_minute(),
        portion: NonZeroU32::new(2).unwrap(),
        lease: Duration::from_secs(30),
        patience: Duration::from_secs(1),
        on_unavailable,
        most_keys: 8.try_into().unwrap(),
    }
}

async fn passed<S, E>(service: &mut S, calls: u32) -> Vec<CallError<E>>
where
    S: Service<u32, Response = u32, Error = CallError<E>>,
{
    let mut refused = Vec::new();
    for call in 0..calls {
        if let Err(error) = service.call(call).await {
            refused.push(error);
        }
    }
    refused
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_count_reach_the_upstream_as_often_as_one_may() {
    let env = Env::real();
    let (upstream, keeper) =
        (Upstream::new(&env), Arc::new(Keeper(env.clone(), Mutex::new(0), AtomicBool::new(false))));
    let mut refused = 0;
    for process in ["one", "two"] {
        let stack = Stack::builder(process.parse().unwrap()).build(&Timers::new(&env), Plain::idempotent()).unwrap();
        let shared = Shared::new(&env, keeper.clone(), config(OnUnavailable::Deny)).unwrap();
        let limit = LimitBy::shared(shared, |_: &u32| "everybody".parse::<Name>().ok());
        let errors = passed(&mut limit.layer(stack.layer(upstream.clone())), 4).await;
        assert!(errors.iter().all(|error| matches!(error, CallError::Rejected(Rejection::Limit(_)))), "{errors:?}");
        refused += errors.len();
    }
    assert_eq!((upstream.heard().len(), refused), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn a_count_that_cannot_be_asked_is_answered_as_declared_and_the_upstream_does_not_see_what_is_refused() {
    let env = Env::real();
    for (declared, reach) in
        [(OnUnavailable::Allow, 9), (OnUnavailable::Deny, 0), (OnUnavailable::Local(five_a_minute()), 5)]
    {
        let upstream = Upstream::new(&env);
        let keeper = Arc::new(Keeper(env.clone(), Mutex::new(0), AtomicBool::new(true)));
        let stack = Stack::builder("a".parse().unwrap()).build(&Timers::new(&env), Plain::idempotent()).unwrap();
        let shared = Shared::new(&env, keeper, config(declared)).unwrap();
        let limit = LimitBy::shared(shared, |_: &u32| "everybody".parse::<Name>().ok());
        let errors = passed(&mut limit.layer(stack.layer(upstream.clone())), 9).await;
        assert_eq!(upstream.heard().len(), reach, "{declared:?}");
        for error in errors {
            let CallError::Rejected(rejection) = &error else { panic!("{error}") };
            assert_eq!(rejection.by(), Refuser::Limit);
            assert_eq!(*rejection == Rejection::Uncounted, declared == OnUnavailable::Deny);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_do_not_spend_each_others_units_and_a_call_without_one_is_not_limited() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack = Stack::builder("a".parse().unwrap()).build(&Timers::new(&env), Plain::idempotent()).unwrap();
    let keyed = Arc::new(Keyed::new(five_a_minute(), 8.try_into().unwrap(), 7).unwrap());
    let key = |call: &u32| (*call < 20).then(|| format!("tenant-{}", call % 2).parse::<Name>().unwrap());
    let mut service = LimitBy::own(&env, keyed, key).layer(stack.layer(upstream.clone()));
    assert_eq!(passed(&mut service, 30).await.len(), 10);
    assert_eq!(upstream.heard().len(), 20);
}
