//! `quorate sim`: whole-product simulations by name and seed.

mod campaign;
mod minimise;
mod one;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use quorate_runtime::Env;
use quorate_scenarios::Scenario;
use quorate_sim::{OutOfContract, Settings};
use serde_json::{Value, json};

use crate::{
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table, note},
};

/// What can be done with simulations.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// The scenarios by name
    List,
    /// Run a scenario: many seeds, or one
    ///
    /// Every seed runs in a process of its own. Ends at the first seed that fails, with the command that runs it again.
    /// With many seeds, states that the scenario must reach and did not fail it, too.
    Run {
        /// The scenario's name; see `quorate sim list`
        scenario: String,
        #[command(flatten)]
        how: How,
    },
    /// Run one seed again and tell what happened in it
    Replay {
        /// The scenario's name
        scenario: String,
        #[command(flatten)]
        what: One,
    },
    /// Find the fewest faults with which a failing seed still fails
    Shrink {
        /// The scenario's name
        scenario: String,
        /// The failing seed
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        world: World,
    },
    /// Write what happened in one seed as a page with a timeline
    Report {
        /// The scenario's name
        scenario: String,
        #[command(flatten)]
        what: One,
        /// The page to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Which seeds.
#[derive(Args, Debug)]
pub(crate) struct How {
    /// Run this many seeds, from `--first` on
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with_all = ["seed", "run_for"])]
    seeds: u64,
    /// The first of the seeds
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Run this one seed, in this process
    #[arg(long)]
    seed: Option<u64>,
    /// Run seeds for so long, on the clock on the wall
    #[arg(long = "for", id = "run_for", value_name = "SPAN", value_parser = crate::span, conflicts_with = "seed")]
    run_for: Option<Duration>,
    #[command(flatten)]
    world: World,
}

/// What worlds are like besides what their seeds say.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct World {
    /// How long things go wrong and clients work in each world, in its own time; without it, until the clients have done what
    /// the scenario has for them, and things go wrong for ten seconds
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    time: Option<Duration>,
    /// Break a promise that everything rests on; judged is only what is still promised then
    #[arg(long, value_name = "PROMISE")]
    out_of_contract: Option<Promise>,
}

/// A promise that worlds can break.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Syncs say that they made something durable, and did not
    LyingSync,
}

impl World {
    /// The longest that things may go wrong.
    const LONGEST: Duration = Duration::from_secs(24 * 3_600);

    /// Refuses worlds that would last too long, or no time at all.
    fn check(&self) -> Result<(), Failure> {
        match self.time {
            Some(time) if time.is_zero() || time > Self::LONGEST => {
                Err(Failure::new(Exit::Usage, "`--time` is more than nothing, and at most a day"))
            }
            _ => Ok(()),
        }
    }

    fn settings(&self) -> Settings {
        let out_of_contract = self.out_of_contract.map(|Promise::LyingSync| OutOfContract::LyingSync);
        Settings { faults_for: self.time, out_of_contract, ..Settings::default() }
    }

    /// The arguments that make such a world.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(time) = self.time {
            arguments.extend(["--time".to_owned(), format!("{}ms", time.as_millis())]);
        }
        if let Some(Promise::LyingSync) = self.out_of_contract {
            arguments.extend(["--out-of-contract".to_owned(), "lying-sync".to_owned()]);
        }
        arguments
    }
}

/// One seed, and what of its faults is left out.
#[derive(Args, Debug, Clone)]
pub(crate) struct One {
    /// The seed
    #[arg(long)]
    seed: u64,
    /// Places of its plan of faults, counted from 0, that are left out
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    without: Vec<usize>,
    /// Print every step to standard error: two runs that differ differ first where their steps do
    #[arg(long)]
    steps: bool,
    #[command(flatten)]
    world: World,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, env: &Env, format: Format) -> Result<(), Failure> {
        match self {
            Self::List => list(format),
            Self::Run { scenario, how: How { seed: Some(seed), world, .. } } => {
                let one = One { seed, without: Vec::new(), steps: false, world };
                one::run(env, find(&scenario)?, one, format).await
            }
            Self::Run { scenario, how } => campaign::run(env, find(&scenario)?, &how, format).await,
            Self::Replay { scenario, what } => one::run(env, find(&scenario)?, what, format).await,
            Self::Shrink { scenario, seed, world } => minimise::run(find(&scenario)?, seed, &world, format).await,
            Self::Report { scenario, what, out } => one::report(env, find(&scenario)?, what, out).await,
        }
    }
}

fn find(name: &str) -> Result<&'static Scenario, Failure> {
    quorate_scenarios::find(name).ok_or_else(|| {
        let failure = Failure::new(Exit::NotFound, format!("there is no scenario `{name}`"));
        failure.advise("`quorate sim list` names them")
    })
}

fn list(format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        let all = quorate_scenarios::all().iter();
        let all: Vec<Value> = all.map(|scenario| json!({ "name": scenario.name, "about": scenario.about })).collect();
        out.json(&Value::Array(all))?;
        return out.flush();
    }
    let mut table = Table::new([Column::Left("SCENARIO"), Column::Left("WHAT HAPPENS")]);
    quorate_scenarios::all().iter().for_each(|scenario| table.row([scenario.name, scenario.about]));
    table.print(&mut out)
}

/// Tells how a seed is run again.
fn how_to_repeat(scenario: &Scenario, seed: u64, world: &World) {
    let world: String = world.arguments().iter().map(|argument| format!(" {argument}")).collect();
    note(&format!("to run it again:   quorate sim replay {} --seed {seed}{world}", scenario.name));
    note(&format!("to make it smaller: quorate sim shrink {} --seed {seed}{world}", scenario.name));
}
