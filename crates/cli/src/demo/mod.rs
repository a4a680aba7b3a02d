//! `quorate demo`: an application of several services on the runtime, under load, with faults, and judged all the while.
//!
//! | part | what it does |
//! |---|---|
//! | `plan` | what a seed decides: which orders come, what goes wrong when |
//! | `desk`, `service` | five processes, each a node with a store of its own and what the service does |
//! | `process` | this program as another process |
//! | `proxy`, `provider` | the ways between them, and somebody else's service: what can be slow, silent, or fail |
//! | `load`, `faults` | customers who order until they are answered; the plan's faults, carried out |
//! | `judge` | what must hold at every moment, and what in the end |
//! | `tally`, `picture`, `report` | what happened so far, how it looks at a terminal, and what is said at the end |
//!
//! The seed repeats the plan. When processes run and what the network does in between is real, and never the same twice.

mod desk;
mod faults;
pub(crate) mod folder;
mod judge;
mod load;
mod picture;
mod plan;
pub(crate) mod process;
mod provider;
pub(crate) mod proxy;
mod report;
mod service;
mod tally;
pub(crate) mod web;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use quorate_communication::event_bus::webhook::Secret;
use quorate_runtime::Env;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;

use self::{
    desk::{Desk, Member},
    faults::Faults,
    folder::Folder,
    judge::Books,
    load::Customers,
    plan::{Plan, SERVICES},
    provider::Provider,
    tally::Tally,
};
use crate::{
    exit::{Exit, Failure},
    output::{Format, working},
};

/// What is still wrong after so long without any change will not mend itself: longer than anything in the product rests, a
/// webhook's open breaker for instance.
const STILL: Duration = Duration::from_secs(90);
/// How long nothing may be wrong until it counts: what was sent twice arrives meanwhile.
const REST: Duration = Duration::from_millis(2_500);
/// How often services are asked for their sums, and how long one may take.
const LOOK: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the books of a service may take.
const READING: Duration = Duration::from_secs(60);

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
        let mut stopped = Stopped::watch()?;
        let mut folder = Folder::make(env, self.folder.clone(), seed)?;
        let provider = Provider::start(env).await?;
        let secret = Secret::draw(&mut env.random("demo-secret")).reveal();
        let desk = Desk::new(env, &folder.path, provider.address, &secret, self.is_planted()).await?;
        let desk = Arc::new(Mutex::new(desk));
        let ended = tokio::select! {
            ended = self.play(env, &desk, &provider, seed) => ended,
            () = stopped.told() => Err(Failure::new(Exit::Failed, "it was stopped before its end")),
        };
        let shown = match &ended {
            Ok((tally, books)) => report::show(tally, books, seed, &self, output),
            Err(_) => Ok(()),
        };
        if self.keep && ended.is_ok() {
            report::places(&*desk.lock().await);
            stopped.told().await;
        }
        desk.lock().await.end().await;
        env.tasks().stop().cancel();
        env.tasks().shut_down().await;
        let (tally, _) = ended?;
        if !tally.violations().is_empty() {
            folder.keep();
            let count = tally.violations().len();
            return Err(Failure::new(Exit::Damaged, format!("{count} things do not hold")));
        }
        shown
    }

    /// Load and faults, then peace, then judgement.
    async fn play(
        &self,
        env: &Env,
        desk: &Arc<Mutex<Desk>>,
        provider: &Provider,
        seed: u64,
    ) -> Result<(Arc<Tally>, Books), Failure> {
        working(env, "starting five services", async { desk.lock().await.start(env).await }).await?;
        // What payments forget shows where their answers are lost.
        let plan = Plan::of(seed, self.duration, self.is_planted().then_some("payments"));
        let tally = Arc::new(Tally::new(env.mono()));
        let picture = picture::start(env, desk, &tally, self.duration);
        let orders = desk.lock().await.members[0].address();
        let customers = Customers { env: env.clone(), orders, tally: tally.clone(), rate: self.rate };
        let planned = plan.faults.clone();
        let [faults_over, lost, over] = [(); 3].map(|()| CancellationToken::new());
        let striking = async {
            let faults = Faults { env, desk, provider, tally: &tally };
            match faults.carry_out(&planned).await {
                Ok(()) => faults_over.cancel(),
                Err(why) => {
                    tally.violated(why);
                    lost.cancel();
                }
            }
        };
        let ordering = async {
            tokio::select! {
                () = customers.order(plan, self.duration, &faults_over) => {}
                () = lost.cancelled() => {}
            }
        };
        let playing = async {
            tokio::join!(ordering, striking);
            customers.all_answered(STILL).await;
            over.cancel();
        };
        tokio::join!(playing, judge_meanwhile(env, desk, &tally, &over));
        let books = come_to_rest(env, desk, &tally).await;
        let checks = tally.checks();
        for service in SERVICES.iter().filter(|service| !checks.contains_key(**service)) {
            tally.violated(format!("{service}: it never told its sums"));
        }
        drop(picture);
        Ok((tally, books))
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
async fn judge_meanwhile(env: &Env, desk: &Mutex<Desk>, tally: &Tally, over: &CancellationToken) {
    while !over.is_cancelled() {
        env.sleep(LOOK).await;
        let mut places = Vec::new();
        for member in &mut desk.lock().await.members {
            if member.has_died() {
                tally.violated(format!("{}: its process ended by itself", member.name()));
            }
            places.extend(member.place().map(|place| (member.name().to_owned(), place.clone())));
        }
        for (name, place) in places {
            // One that is suspended or was killed meanwhile is asked the next time.
            let Ok(state) = Member::ask(&place, env, "/state", PATIENCE).await else { continue };
            if let Some(wrong) = judge::wrong_sum(&name, &state) {
                tally.violated(wrong);
            }
            tally.state(&name, state);
        }
    }
}

/// Waits until everything that was on its way has come to an end, and notes what is wrong then.
async fn come_to_rest(env: &Env, desk: &Mutex<Desk>, tally: &Tally) -> Books {
    let (mut last, mut changed, mut was_sound) = (None, env.mono(), false);
    loop {
        let (books, mut wrong) = read(env, desk).await;
        // Whoever has not told everything cannot be judged.
        if wrong.is_empty() {
            wrong = books.violations(&tally.acknowledged());
        }
        match (wrong.is_empty(), was_sound) {
            (true, true) => return books,
            (true, false) => env.sleep(REST).await,
            (false, _) => env.sleep(LOOK).await,
        }
        was_sound = wrong.is_empty();
        let seen = Some((wrong.clone(), books.mails_sent()));
        if seen != last {
            (last, changed) = (seen, env.mono());
        }
        if !was_sound && env.mono().saturating_since(changed) >= STILL {
            wrong.into_iter().for_each(|wrong| tally.violated(wrong));
            return books;
        }
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
        match Member::ask(place, env, "/books", READING).await {
            Ok(told) => wrong.extend(books.take(member.name(), &told).err()),
            Err(why) => wrong.push(format!("{}: it does not tell what it knows: {why}", member.name())),
        }
    }
    (books, wrong)
}

/// Ctrl-C, and what ends a process otherwise.
struct Stopped {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hang_up: Signal,
}

impl Stopped {
    fn watch() -> Result<Self, Failure> {
        let watch = |kind| signal(kind).map_err(|cause| Failure::io("signals cannot be watched", &cause));
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hang_up: watch(SignalKind::hangup())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
