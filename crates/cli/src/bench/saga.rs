//! `quorate bench saga`: sagas of three steps, every step of them durable.
//!
//! * `saga/steps`: three local steps, each in a transaction of its own: four durable points a saga.
//! * `saga/joined`: the same, where steps that follow each other share a transaction, as they do unless told otherwise.
//! * `saga/failing`: `steps` whose third step is refused, so that two are made up for.
//! * `saga/joined-failing`: `joined` whose third step is refused.
//! * `saga/recovery`: how long it takes until sagas that stood inside of a step when their store was closed are all done, from opening it
//!   again on. (That a process that is killed leaves them so is what a test shows.)

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use quorate_consistency::saga::{Action, Config, Definition, Failure as Failed, Sagas, Step};
use quorate_data::store::Store;
use quorate_foundations::name::Name;
use serde_json::{Value, json};

use super::{
    Options,
    events::rate,
    failed,
    figure::Figures,
    log::{Effort, Folder, open},
    segment,
};
use crate::{exit::Failure, output::note};

/// Sagas that stand inside of a step when their store is closed.
const PARKED: usize = 1_000;

/// Steps that may share a transaction, where they may.
const JOINED: usize = 32;

/// Measures everything that `options` want.
pub(super) async fn measure(env: &quorate_runtime::Env, options: &Options) -> Result<Figures, Failure> {
    let folder = Folder::make(&options.folder)?;
    let effort = Effort::of(options);
    let mut figures = Figures::default();
    for (kind, joined, refused) in
        [("steps", 1, false), ("joined", JOINED, false), ("failing", 1, true), ("joined-failing", JOINED, true)]
    {
        for beside in [1, 16, 64] {
            let name = format!("saga/{kind}/{beside}");
            if options.wants(&name) {
                let path = folder.file(&format!("{}.db", name.replace('/', "-")));
                let bench = Bench { store: open(env, path.clone()).await?, path, effort };
                bench.runs(&folder.file("segment"), beside, joined, refused, &name, &mut figures).await?;
                bench.end().await?;
            }
        }
    }
    let name = format!("saga/recovery/{PARKED}");
    if options.wants(&name) {
        recovery(env, &folder, effort, &name, &mut figures).await?;
    }
    Ok(figures)
}

struct Bench {
    store: Store,
    path: PathBuf,
    effort: Effort,
}

fn named(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|cause| failed("naming a saga", cause))
}

/// A step that changes nothing but its saga: what is measured is the engine.
fn local() -> Action {
    Action::local(|_, call| Box::pin(async move { Ok(json!({ "did": &*call.step })) }))
}

fn order(name: Name, refused: bool) -> Definition {
    let third =
        if refused { Action::local(|_, _| Box::pin(async { Err(Failed::refused("sold out")) })) } else { local() };
    Definition::new(name, 1)
        .step(Step::new("reserve", local()).compensated_by(local()))
        .step(Step::new("charge", local()).compensated_by(local()))
        .step(Step::new("ship", third))
}

impl Bench {
    async fn end(self) -> Result<(), Failure> {
        self.store.close().await.map_err(|cause| failed("closing a store", cause))?;
        fs::remove_file(&self.path).map_err(|cause| failed("removing a store", cause))
    }

    /// Sagas that end per second, `beside` of them at once, beside events in a bare file.
    async fn runs(
        &self,
        segment: &std::path::Path,
        beside: usize,
        joined_steps: usize,
        refused: bool,
        name: &str,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let config = Config { joined_steps, ..Config::default() };
        let sagas = Sagas::open(&self.store, config).await.map_err(|cause| failed("opening sagas", cause))?;
        let order_name = named("order")?;
        sagas.define(order(order_name.clone(), refused)).await.map_err(|cause| failed("defining a saga", cause))?;
        let (mut limit, mut ours, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.effort.rounds {
            note(&format!("{name}: round {} of {}, {:?}", round + 1, self.effort.rounds, self.effort.span));
            let bare = segment::appends(segment, beside, self.effort.span).await;
            limit.push(bare.map_err(|cause| failed("writing a segment", cause))?);
            let (running, name) = (sagas.clone(), order_name.clone());
            let (commits, before) = (self.store.statistics().commits, ended(&sagas));
            let rate = rate(beside, self.effort.span, move |lane, n| {
                let (sagas, name) = (running.clone(), name.clone());
                async move {
                    let id = format!("{round}-{lane}-{n}");
                    let started = sagas.start(&name, &id, json!({ "n": n }), None).await;
                    if started.map_err(|cause| cause.to_string())?.journal.status().is_ended() {
                        return Ok(());
                    }
                    let ended = sagas.settled(&name, &id, Duration::from_secs(60)).await;
                    let status = ended.map_err(|cause| cause.to_string())?.journal.status();
                    if status.is_ended() { Ok(()) } else { Err(format!("saga {id} is {}", status.word())) }
                }
            });
            ours.push(rate.await?);
            let (commits, ended) = (self.store.statistics().commits - commits, ended(&sagas) - before);
            syncs.push(commits as f64 / ended as f64);
        }
        figures.put(name, "sagas/s", &ours, Some(&limit));
        figures.put(&format!("{name}/syncs-per-saga"), "syncs", &syncs, None);
        Ok(())
    }
}

fn ended(sagas: &Sagas) -> u64 {
    let counts = sagas.counts();
    counts.completed + counts.compensated
}

/// How long it takes until what stood inside of a step is done.
async fn recovery(
    env: &quorate_runtime::Env,
    folder: &Folder,
    effort: Effort,
    name: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let mut took = Vec::new();
    let order = named("order")?;
    for round in 0..effort.rounds {
        note(&format!("{name}: round {} of {}", round + 1, effort.rounds));
        // What a store leaves beside its file is not to be taken for that of the next one.
        let path = folder.file(&format!("recovery-{round}.db"));
        let definition = |answers: bool| {
            let second = Action::remote(move |_| async move {
                if !answers {
                    std::future::pending::<()>().await;
                }
                Ok(Value::Null)
            });
            let local = || Step::new("reserve", local());
            Definition::new(order.clone(), 1)
                .step(local())
                .step(Step::new("charge", second))
                .step(Step::new("ship", self::local()))
        };
        let opened = |cause| failed("opening sagas", cause);
        let store = open(env, path.clone()).await?;
        let sagas = Sagas::open(&store, Config::default()).await.map_err(opened)?;
        sagas.define(definition(false)).await.map_err(opened)?;
        for n in 0..PARKED {
            let started = sagas.start(&order, &format!("{round}-{n}"), n, None).await;
            started.map_err(|cause| failed("starting a saga", cause))?;
        }
        store.close().await.map_err(|cause| failed("closing a store", cause))?;
        drop(sagas);
        let begun = Instant::now();
        let store = open(env, path.clone()).await?;
        let sagas = Sagas::open(&store, Config::default()).await.map_err(opened)?;
        sagas.define(definition(true)).await.map_err(opened)?;
        for n in 0..PARKED {
            let settled = sagas.settled(&order, &format!("{round}-{n}"), Duration::from_secs(60)).await;
            let status = settled.map_err(|cause| failed("waiting for a saga", cause))?.journal.status();
            if !status.is_ended() {
                return Err(failed("recovering", status.word()));
            }
        }
        took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        store.close().await.map_err(|cause| failed("closing a store", cause))?;
        fs::remove_file(&path).map_err(|cause| failed("removing a store", cause))?;
    }
    figures.put(name, "ms", &took, None);
    Ok(())
}
