//! A service of a user's that keeps views of its own log: written to, poisoned, taken over, rebuilt and crashed, and in the end
//! the views are the fold of the log.

mod code;
mod judge;
mod operator;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::{NewEvent, Position},
    materialized_view::{Config, EffectHandler, OnPoison, View, ViewError, Views},
    store::{AppendBatch, ExpectedVersion, Store, sqlite},
};
use quorate_runtime::{Env, random::Rng};
use quorate_sim::{Phase, Sim};
use tokio::sync::watch;

use self::code::{Letters, Tally};
use crate::{Report, notes::Notes};

/// Events that are appended, over all lives of the server.
const EVENTS: usize = 100;
const STREAMS: u64 = 5;

/// Runs the scenario.
pub(crate) fn run(mut sim: Sim) -> Report {
    let notes = Notes::of_world(&sim);
    let done = Arc::new(AtomicBool::new(false));
    let (phase, server_notes, ended) = (sim.phase(), notes.clone(), done.clone());
    let events = sim.rounds_or(EVENTS) as u64;
    sim.server("views", move |env| serve(env, events, phase.clone(), server_notes.clone(), ended.clone()));
    sim.witness("patience", move |env| {
        let done = done.clone();
        async move {
            while !done.load(Ordering::Acquire) {
                env.sleep(Duration::from_millis(500)).await;
            }
            Ok(())
        }
    });
    let judge = if sim.out_of_contract().is_none() { judge::judge } else { judge::judge_where_syncs_lie };
    let (outcome, notes) = (sim.run(), notes.take());
    Report::judged(outcome, notes, events, judge)
}

/// One life of the service.
struct Service {
    env: Env,
    store: Store,
    /// How many are appended in the end.
    events: u64,
    rng: Rng,
    notes: Notes,
    /// Whether poison can be applied by now.
    cured: Arc<AtomicBool>,
    /// Owners of the views; who came later fences who came earlier.
    owners: Vec<Views>,
}

async fn serve(
    env: Env,
    events: u64,
    phase: watch::Receiver<Phase>,
    notes: Notes,
    done: Arc<AtomicBool>,
) -> Result<(), String> {
    let store = sqlite::open(&env, sqlite::Config::at("views.db")).await.map_err(|failed| failed.to_string())?;
    let rng = env.random("service");
    let cured = Arc::new(AtomicBool::new(false));
    let mut service = Service { env, store, events, rng, notes, cured, owners: Vec::new() };
    let stop = service.env.tasks().stop().clone();
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = service.live(phase) => ended,
    };
    match ended {
        Ok(()) if !stop.is_cancelled() => {
            done.store(true, Ordering::Release);
            stop.cancelled().await;
        }
        _ => {}
    }
    // A store whose disk failed cannot be closed in order; the next life looks at what is there.
    service.store.close().await.ok();
    ended
}

/// Writes while the views of a life begin.
struct Early {
    store: Store,
    events: u64,
    rng: Rng,
}

impl Early {
    async fn write(mut self, env: &Env) {
        for _ in 0..self.rng.below(6) {
            append(&self.store, self.events, &mut self.rng).await;
            env.sleep(Duration::from_millis(self.rng.below(4))).await;
        }
    }
}

/// Appends up to three events, unless there are `enough`.
async fn append(store: &Store, enough: u64, rng: &mut Rng) {
    let count = 1 + rng.below(3);
    if store.head().get() >= enough {
        return;
    }
    let stream = format!("s-{}", rng.below(STREAMS));
    let kinds = (0..count).map(|_| match rng.below(20) {
        0 => "poison",
        1 => "rare",
        2..=6 => "mailed",
        _ => "happened",
    });
    let events = kinds.collect::<Vec<_>>().into_iter();
    let events = events.map(|kind| NewEvent::new(store.event_id(), "/scenario", kind)).collect();
    let Ok(stream) = stream.parse() else { return };
    // Whether it is there, the log will tell.
    store.append(AppendBatch::to(stream, ExpectedVersion::Any, events)).await.ok();
}

impl Service {
    async fn live(&mut self, phase: watch::Receiver<Phase>) -> Result<(), String> {
        // A program writes before its views begin, and while they do; not before there are any, since what is in the log before
        // a view is history to it, for which no letter is sent.
        let has_begun = self.store.head() > Position::ZERO;
        if has_begun {
            self.append().await;
        }
        let early = Early { store: self.store.clone(), events: self.events, rng: self.env.random("early") };
        let (env, own) = (self.env.clone(), self.own());
        tokio::join!(own, async {
            if has_begun {
                early.write(&env).await;
            }
        });
        while self.store.head().get() < self.events || *phase.borrow() != Phase::Healed {
            self.append().await;
            self.operate().await;
            if self.rng.below(3) == 0 {
                self.look().await;
            }
            // Once everything is written there is only the operator to wait for, and what still goes wrong.
            let longest = if self.store.head().get() < self.events { 80 } else { 500 };
            self.env.sleep(Duration::from_millis(self.rng.below(longest))).await;
        }
        self.come_to_rest().await
    }

    /// Becomes the owner of the views, however often the disk fails meanwhile.
    async fn own(&mut self) {
        while let Err(failed) = self.take_over().await {
            tracing::debug!(%failed, "the views are taken over again");
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Becomes the owner of the views; who was it before is not told.
    async fn take_over(&mut self) -> Result<(), ViewError> {
        let views = Views::open(&self.store).await?;
        if let Err(failed) = self.start_all(&views).await {
            // What was started of them would go on, and own what whoever comes next stands by for.
            views.shut_down().await;
            return Err(failed);
        }
        self.owners.push(views);
        Ok(())
    }

    async fn start_all(&self, views: &Views) -> Result<(), ViewError> {
        let patience = Config {
            on_poison: OnPoison::Park,
            max_attempts: 2,
            first_rest: Duration::from_millis(20),
            stride: 16,
            batch_events: 16,
            ..Config::default()
        };
        let letters: Arc<dyn EffectHandler> = Arc::new(Letters(self.notes.clone()));
        let tally = Tally::named("tally", &[], &self.cured);
        views.start_shared(Arc::new(tally), patience.clone(), Some(letters.clone())).await?;
        views.start(Tally::named("rare", &["rare"], &self.cured), patience.clone()).await?;
        views.start(Tally::named("spread", &[], &self.cured), Config { shards: 3, ..patience.clone() }).await?;
        let inline = Config { max_attempts: 2, first_rest: Duration::from_millis(20), ..Config::inline() };
        let code = Tally::named("inline", &["happened", "mailed", "rare"], &self.cured);
        views.start_shared(Arc::new(code), inline, Some(letters)).await?;
        views.start_declared().await?;
        if views.get(&operator::named("declared")?).await.is_err() {
            views.declare(code::document(1)?).await?;
        }
        Ok(())
    }

    async fn append(&mut self) {
        append(&self.store, self.events, &mut self.rng).await;
    }

    /// What readers see on the way: it never goes back, and is of the position that it says.
    async fn look(&mut self) {
        let invoked = self.notes.now();
        let name = ["tally", "rare", "inline"][usize::try_from(self.rng.below(3)).unwrap_or_default()];
        let Ok(view) = self.view(name).await else { return };
        if let Ok((position, events)) = operator::total(&view).await {
            let what = crate::notes::Action::LookedAt { view: name.to_owned(), position, events };
            self.notes.add("reader", invoked, what);
        }
    }

    fn views(&self) -> Option<&Views> {
        self.owners.last()
    }

    async fn view(&self, name: &str) -> Result<View, ViewError> {
        let gone = || ViewError::Invalid { what: "nobody owns the views yet".to_owned() };
        self.views().ok_or_else(gone)?.get(&operator::named(name)?).await
    }
}
