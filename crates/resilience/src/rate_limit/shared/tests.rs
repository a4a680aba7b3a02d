//! A shared limit whose count is kept in memory, and sometimes can't be asked.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use quorate_runtime::BoxFuture;

use super::*;
use crate::rate_limit::{Portion, Rate};

/// Keeps the count of one key as a store would, and can be cut off.
struct Keeper {
    env: Env,
    due: Mutex<u64>,
    asked: AtomicU32,
    cut: AtomicBool,
    silent: AtomicBool,
}

impl Quota for Keeper {
    fn take<'a>(
        &'a self,
        _: &'a Name,
        rate: Rate,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.silent.load(Ordering::Relaxed) {
                self.env.sleep(Duration::from_secs(3_600)).await;
            }
            if self.cut.load(Ordering::Relaxed) {
                return Err(Unavailable(Arc::new(io::Error::other("cut off"))));
            }
            let (rule, now) = (Gcra::new(rate).unwrap(), self.env.mono());
            let mut due = self.due.lock().unwrap();
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
            if self.cut.load(Ordering::Relaxed) {
                return Err(Unavailable(Arc::new(io::Error::other("cut off"))));
            }
            *self.due.lock().unwrap() = 0;
            Ok(())
        })
    }
}

struct World {
    env: Env,
    keeper: Arc<Keeper>,
}

impl World {
    fn new() -> Self {
        let env = Env::real();
        let [cut, silent] = [(); 2].map(|()| AtomicBool::new(false));
        let keeper = Keeper { env: env.clone(), due: Mutex::new(0), asked: AtomicU32::new(0), cut, silent };
        Self { env, keeper: Arc::new(keeper) }
    }

    /// One of the processes that share a hundred units a minute.
    fn process(&self, portion: u32, on_unavailable: OnUnavailable) -> Shared {
        let config = SharedConfig {
            rate: Rate::new(n(100), Duration::from_secs(60)),
            portion: n(portion),
            lease: Duration::from_secs(5),
            patience: Duration::from_millis(50),
            on_unavailable,
            most_keys: 16.try_into().unwrap(),
        };
        Shared::new(&self.env, self.keeper.clone(), config).unwrap()
    }
}

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn key() -> Name {
    "tenant".parse().unwrap()
}

async fn taken(shared: &Shared, times: u32) -> usize {
    let mut taken = 0;
    for _ in 0..times {
        taken += usize::from(shared.take(&key(), 1).await.is_ok());
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_limit_get_it_together_and_ask_for_portions() {
    let world = World::new();
    let processes = [(); 3].map(|()| world.process(10, OnUnavailable::Deny));
    let mut given = 0;
    for _ in 0..100 {
        for process in &processes {
            given += taken(process, 1).await;
        }
    }
    assert_eq!(given, 100);
    assert_eq!(world.keeper.asked.load(Ordering::Relaxed), 10 + 3, "ten portions of ten, and each is refused once");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_repeated_without_asking_until_its_time_is_over_or_a_lease_or_all_is_forgotten() {
    let world = World::new();
    let process = world.process(1, OnUnavailable::Deny);
    assert_eq!(taken(&process, 100).await, 100);
    let asked = || world.keeper.asked.load(Ordering::Relaxed);
    let wait = |refused: Result<Allowed, SharedRejected>| match refused {
        Err(SharedRejected::Limit(refused)) => refused.wait.unwrap(),
        other => panic!("{other:?}"),
    };
    // One comes every 600 ms, ten in six seconds.
    assert_eq!(wait(process.take(&key(), 10).await), Duration::from_secs(6));
    assert_eq!(asked(), 101);
    world.env.sleep(Duration::from_secs(4)).await;
    assert_eq!(wait(process.take(&key(), 20).await), Duration::from_secs(2), "at least that long");
    assert_eq!(asked(), 101);
    assert_eq!(taken(&process, 1).await, 1, "fewer may be there");
    assert_eq!(asked(), 102);
    assert_eq!(taken(&process, 20).await, 5);
    let before = asked();
    assert_eq!(taken(&process, 20).await, 0);
    assert_eq!(asked(), before);
    process.forget();
    assert_eq!((taken(&process, 1).await, asked()), (0, before + 1));
    world.env.sleep(Duration::from_millis(600)).await;
    assert_eq!(taken(&process, 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_about_again_after_a_lease() {
    let world = World::new();
    let process = world.process(1, OnUnavailable::Deny);
    assert_eq!(taken(&process, 100).await, 100);
    assert!(process.take(&key(), 100).await.is_err());
    *world.keeper.due.lock().unwrap() = 0;
    assert!(process.take(&key(), 100).await.is_err(), "a minute, it was said");
    world.env.sleep(Duration::from_secs(5)).await;
    assert!(process.take(&key(), 100).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_leased_and_not_used_is_forgotten_when_its_time_is_up() {
    let world = World::new();
    let process = world.process(100, OnUnavailable::Deny);
    assert_eq!(taken(&process, 1).await, 1);
    world.env.sleep(Duration::from_secs(6)).await;
    // Ten units came since; the 99 that were leased are gone.
    assert_eq!(taken(&process, 100).await, 10);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_is_answered_as_declared() {
    let world = World::new();
    let alone = Rate::new(n(5), Duration::from_secs(60));
    let [allow, deny, local] = [OnUnavailable::Allow, OnUnavailable::Deny, OnUnavailable::Local(alone)]
        .map(|declared| world.process(1, declared));
    for (cut, silent) in [(true, false), (false, true)] {
        world.keeper.cut.store(cut, Ordering::Relaxed);
        world.keeper.silent.store(silent, Ordering::Relaxed);
        assert_eq!(allow.take(&key(), 1).await.unwrap(), Allowed { by: Count::Nobodys, left: None });
        let refused = deny.take(&key(), 1).await.unwrap_err();
        match cut {
            true => assert!(matches!(refused, SharedRejected::Unavailable(_)), "{refused}"),
            false => assert!(matches!(refused, SharedRejected::Silent { .. }), "{refused}"),
        }
    }
    assert_eq!([allow.uncounted(), deny.uncounted(), local.uncounted()], [2, 2, 0]);
    assert_eq!(taken(&local, 20).await, 5);
    assert_eq!(local.uncounted(), 20, "those that were refused as well");
    world.keeper.silent.store(false, Ordering::Relaxed);
    world.env.sleep(SILENT).await;
    let back = local.take(&key(), 1).await.unwrap();
    assert_eq!(back.by, Count::Shared, "once it can be asked, its count holds");
    assert_eq!(local.uncounted(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_reset_gives_everything_back_or_says_that_it_cannot() {
    let world = World::new();
    let process = world.process(10, OnUnavailable::Deny);
    assert_eq!(taken(&process, 200).await, 100);
    world.keeper.cut.store(true, Ordering::Relaxed);
    assert!(process.reset(&key()).await.is_err());
    world.keeper.cut.store(false, Ordering::Relaxed);
    assert_eq!(taken(&process, 1).await, 0);
    process.reset(&key()).await.unwrap();
    assert_eq!(taken(&process, 200).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_and_goes_never_gives_more_than_the_rate() {
    let world = World::new();
    let process = world.process(7, OnUnavailable::Deny);
    let mut given = 0;
    for round in 0..200_u32 {
        world.keeper.cut.store(round % 3 == 0, Ordering::Relaxed);
        given += taken(&process, 3).await;
    }
    assert_eq!(given, 100);
}

#[tokio::test(start_paused = true)]
async fn calls_that_come_at_once_ask_together_and_are_answered_as_if_each_had() {
    let world = World::new();
    let process = world.process(8, OnUnavailable::Deny);
    let all = async |costs: Vec<u32>| {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for cost in costs {
            let (process, told) = (process.clone(), told.clone());
            let call = async move { told.send((cost, process.take(&key(), cost).await.is_ok())).unwrap() };
            world.env.tasks().spawn("call", call);
        }
        drop(told);
        let mut given = Vec::new();
        while let Some((cost, is_given)) = heard.recv().await {
            given.extend(is_given.then_some(cost));
        }
        given
    };
    let asked = || world.keeper.asked.load(Ordering::Relaxed);
    assert_eq!(all(vec![1; 64]).await.len(), 64);
    assert!(asked() <= 3, "asked {} times", asked());
    // 36 are left: 30 don't fit behind ten, and whoever wants less is served all the same.
    let given = all([vec![10, 30], vec![1; 62]].concat()).await;
    assert_eq!((given.len(), given.iter().sum::<u32>(), given.contains(&30)), (27, 36, false));
    assert!(asked() <= 8, "asked {} times", asked());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_others_wait_for_the_same_answer_takes_nothing_from_them() {
    let world = World::new();
    let process = world.process(1, OnUnavailable::Deny);
    world.keeper.silent.store(true, Ordering::Relaxed);
    let name = key();
    let soon = Deadline::at(world.env.mono() + Duration::from_millis(40));
    let (first, second) = tokio::join!(process.take_by(&name, 1, soon), async {
        world.env.sleep(Duration::from_millis(1)).await;
        world.keeper.silent.store(false, Ordering::Relaxed);
        process.take(&name, 1).await
    });
    assert!(matches!(first, Err(SharedRejected::Silent { .. })));
    assert!(matches!(second, Err(SharedRejected::Silent { .. })), "the one answer that was asked for did not come");
    world.env.sleep(SILENT).await;
    assert_eq!(taken(&process, 200).await, 100, "nothing was taken");
}
