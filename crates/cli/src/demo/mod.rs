//! `quorate demo`: an application of several services on the runtime, under load, with faults, and judged all the while.
//!
//! | part | what it does |
//! |---|---|
//! | `plan` | what a seed decides: which orders come, what goes wrong when |
//! | `desk`, `service` | five processes, each a node with a store of its own and what the service does |
//! | `proxy`, `provider` | the ways between them, and somebody else's service: what can be slow, silent, or fail |
//! | `load`, `faults` | customers who order until they are answered; the plan's faults, carried out |
//! | `judge` | what must hold at every moment, and what in the end |
//! | `tally`, `picture`, `report` | what happened so far, how it looks at a terminal, and what is said at the end |
//!
//! The seed repeats the plan. When processes run and what the network does in between is real, and never the same twice.

mod desk;
mod faults;
mod judge;
mod load;
mod picture;
mod plan;
mod provider;
mod proxy;
mod report;
mod service;
mod tally;
mod web;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use quorate_communication::event_bus::webhook::Secret;
use quorate_runtime::Env;
use tokio::{signal::ctrl_c, sync::Mutex};

use self::{desk::Desk, judge::Books, plan::Plan, provider::Provider, tally::Tally};
use crate::{
    exit::{Exit, Failure},
    output::{Format, note, working},
};

/// How long everything that is on its way may take to come to an end once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is still wrong after so long without any change will not mend itself.
const STILL: Duration = Duration::from_secs(20);

/// How long, from which seed.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// For how long customers order and things go wrong
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// What decides which orders come and what goes wrong when; without it, a new one
    #[arg(long)]
    seed: Option<u64>,
    /// Orders per second
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rate: u64,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Where the stores are; without it, in a folder that is removed at the end
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Be one of the services; only the demo itself says so
    #[arg(long, hide = true)]
    service: bool,
    /// Plant a bug: `double-charge` has payments forget which calls they took
    #[cfg(feature = "museum")]
    #[arg(long, value_name = "BUG", value_parser = ["double-charge"])]
    plant: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = crate::span(text)?;
    let (least, most) = (Duration::from_secs(5), Duration::from_secs(24 * 3_600));
    if (least..=most).contains(&span) { Ok(span) } else { Err("it takes 5s to a day".to_owned()) }
}

impl Options {
    /// Runs the demo, or one service of it.
    pub(crate) async fn run(self, env: &Env, output: Format) -> Result<(), Failure> {
        if self.service {
            return service::run(env).await;
        }
        let seed = self.seed.unwrap_or_else(|| env.random("demo").below(1_000_000));
        let folder = Folder::make(self.folder.clone(), seed)?;
        let provider = Provider::start(env).await?;
        let secret = Secret::draw(&mut env.random("demo-secret")).reveal();
        let starting = Desk::start(env, &folder.path, provider.address, &secret, self.is_planted());
        let desk = Arc::new(Mutex::new(working(env, "starting five services", starting).await?));
        let ended = self.play(env, &desk, &provider, seed, output).await;
        let sound = match &ended {
            Ok(tally) => tally.violations().is_empty(),
            Err(_) => false,
        };
        if self.keep && sound {
            report::places(&*desk.lock().await);
            // Whoever cannot listen for it leaves it running for ever.
            let _pressed = ctrl_c().await;
        }
        desk.lock().await.end().await;
        env.tasks().stop().cancel();
        env.tasks().shut_down().await;
        folder.leave(sound);
        if ended?.violations().is_empty() {
            Ok(())
        } else {
            Err(Failure::new(Exit::Damaged, "something does not hold"))
        }
    }

    /// Load and faults, then peace, then judgement.
    async fn play(
        &self,
        env: &Env,
        desk: &Arc<Mutex<Desk>>,
        provider: &Provider,
        seed: u64,
        output: Format,
    ) -> Result<Arc<Tally>, Failure> {
        let plan = Plan::of(seed, self.duration);
        let tally = Arc::new(Tally::new(env.mono()));
        let picture = picture::start(env, desk, &tally, self.duration);
        let orders = desk.lock().await.members[0].address();
        let customers = load::Customers { env: env.clone(), orders, tally: tally.clone(), rate: self.rate };
        let faults = plan.faults.clone();
        let ((), carried_out, ()) = tokio::join!(
            customers.order(plan, self.duration),
            faults::carry_out(env, desk, provider, &tally, &faults),
            judge_meanwhile(env, desk, &tally, self.duration),
        );
        carried_out?;
        customers.all_answered(PATIENCE).await;
        let books = come_to_rest(env, desk, &tally).await;
        drop(picture);
        report::show(&tally, &books, seed, self, output)?;
        Ok(tally)
    }

    #[cfg(feature = "museum")]
    fn is_planted(&self) -> bool {
        self.plant.is_some()
    }

    #[cfg(not(feature = "museum"))]
    #[expect(clippy::unused_self, reason = "with the museum it has something to look at")]
    fn is_planted(&self) -> bool {
        false
    }
}

/// Asks every service for its sums, again and again, and notes those that do not hold.
async fn judge_meanwhile(env: &Env, desk: &Mutex<Desk>, tally: &Tally, span: Duration) {
    let until = env.mono() + span;
    while env.mono() < until {
        env.sleep(Duration::from_millis(400)).await;
        let places: Vec<_> = {
            let desk = desk.lock().await;
            desk.members.iter().filter_map(|member| Some((member.name().to_owned(), member.place()?.clone()))).collect()
        };
        for (name, place) in places {
            // One that is suspended or was killed meanwhile is asked the next time.
            let asked = env.timeout(Duration::from_millis(500), desk::Member::ask(&place, env, "/state")).await;
            let Some(Some(state)) = asked else { continue };
            if let Some(wrong) = judge::wrong_sum(&name, &state) {
                tally.violated(wrong);
            }
            tally.state(&name, state);
        }
    }
}

/// Waits until everything that was on its way has come to an end, and notes what is wrong then.
async fn come_to_rest(env: &Env, desk: &Mutex<Desk>, tally: &Tally) -> Books {
    let begun = env.mono();
    let (mut last, mut changed) = (None, begun);
    loop {
        let (books, mut wrong) = read(env, desk).await;
        wrong.extend(books.violations(&tally.acknowledged()));
        if wrong.is_empty() && books.are_mails_out() {
            return books;
        }
        let now = env.mono();
        let seen = Some((wrong.clone(), books.mails_sent()));
        if seen != last {
            (last, changed) = (seen, now);
        }
        if now.saturating_since(begun) >= PATIENCE || now.saturating_since(changed) >= STILL {
            wrong.into_iter().for_each(|wrong| tally.violated(wrong));
            if !books.are_mails_out() {
                tally.violated("mails that can be sent are not".to_owned());
            }
            return books;
        }
        env.sleep(Duration::from_millis(250)).await;
    }
}

/// Everything that the services know, and what is in the way of knowing it.
async fn read(env: &Env, desk: &Mutex<Desk>) -> (Books, Vec<String>) {
    let (mut books, mut wrong) = (Books::default(), Vec::new());
    let mut desk = desk.lock().await;
    for member in &mut desk.members {
        if member.has_died() {
            wrong.push(format!("{}: its process ended by itself", member.name()));
            continue;
        }
        let Some(place) = member.place() else { continue };
        match desk::Member::ask(place, env, "/books").await {
            Some(told) => wrong.extend(books.take(member.name(), &told).err()),
            None => wrong.push(format!("{}: it does not answer", member.name())),
        }
    }
    (books, wrong)
}

/// Where the stores are.
struct Folder {
    path: PathBuf,
    /// Whether it is the demo's own.
    passing: bool,
}

impl Folder {
    fn make(asked: Option<PathBuf>, seed: u64) -> Result<Self, Failure> {
        let passing = asked.is_none();
        let path =
            asked.unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-demo-{}-{seed}", std::process::id())));
        let failed = |cause| Failure::io(format!("the folder {}", path.display()), &cause);
        std::fs::create_dir_all(&path).map_err(failed)?;
        let mut there = std::fs::read_dir(&path).map_err(failed)?;
        if there.next().is_some() {
            let what = format!("the folder {} is not empty", path.display());
            return Err(Failure::new(Exit::Usage, what).advise("name an empty one, or none"));
        }
        Ok(Self { path, passing })
    }

    /// Removes it, unless somebody will want to look into it.
    fn leave(self, sound: bool) {
        if self.passing && sound {
            // What is left of it is in the system's folder for what passes.
            let _removed = std::fs::remove_dir_all(&self.path);
        } else {
            note(&format!("the stores are in {}", self.path.display()));
        }
    }
}
