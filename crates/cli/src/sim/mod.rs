//! `quorate sim`: whole-product simulations by name and seed.

mod backoff;
mod campaign;
mod minimise;
mod one;
mod process;
mod saga;
mod txn;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use quorate_runtime::Env;
use quorate_scenarios::Scenario;
use quorate_sim::{OutOfContract, Outcome, Settings};
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
    /// Find the fewest clients, rounds of their work and faults with which a failing seed still fails
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
    /// A crowd that updates one row: how long it takes, and how many writes, by strategy of backing off
    Backoff(backoff::Options),
    /// Two-phase commit: every course with so many faults, and what becomes of it by what strikes first
    Txn(txn::Options),
    /// A document's saga, through every crash, lost or repeated message and late arrival: how it ends, and what should not be so
    ///
    /// Runs once with nothing going wrong and once for each step with that step refused; at each call of these, each fault happens
    /// once. Participants are made up: nothing is called. Exits with 6 if a course does not end as it should.
    Saga(saga::Options),
}

/// Which seeds.
#[derive(Args, Debug)]
pub(crate) struct How {
    /// Run this many seeds, from `--first` on
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with_all = ["seed", "run_for"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
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
    /// With `--for`: run this many seeds at least, however long that takes
    #[arg(long, value_name = "N", requires = "run_for")]
    at_least: Option<u64>,
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
    /// Plant a bug of the museum
    #[cfg(feature = "museum")]
    #[arg(long, value_name = "PIECE", value_parser = piece)]
    plant: Option<String>,
}

/// A piece of the museum by its name.
#[cfg(feature = "museum")]
fn piece(name: &str) -> Result<String, String> {
    let pieces = quorate_scenarios::museum::PIECES;
    if pieces.iter().any(|piece| piece.name == name) {
        return Ok(name.to_owned());
    }
    Err(format!("there are {}", pieces.iter().map(|piece| piece.name).collect::<Vec<_>>().join(", ")))
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
        Settings { faults_for: self.time, out_of_contract, planted: self.planted(), ..Settings::default() }
    }

    #[cfg(feature = "museum")]
    fn planted(&self) -> Option<String> {
        self.plant.clone()
    }

    #[cfg(not(feature = "museum"))]
    #[expect(clippy::unused_self, reason = "with the museum it has something to look at")]
    fn planted(&self) -> Option<String> {
        None
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
        arguments.extend(self.planted().into_iter().flat_map(|name| ["--plant".to_owned(), name]));
        arguments
    }
}

/// What of a seed's world is left out.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct LeftOut {
    /// Places of its plan of faults, counted from 0
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    without: Vec<usize>,
    /// Clients that do nothing, by name
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    without_client: Vec<String>,
    /// The most rounds of work that each client does
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
}

impl LeftOut {
    /// Refuses to leave out what `outcome` says is not there.
    fn check(&self, outcome: &Outcome) -> Result<(), Failure> {
        let count = outcome.plan.faults.len();
        if let Some(place) = self.without.iter().find(|place| **place >= count) {
            let what = format!("`--without {place}`: seed {} has {count} faults, counted from 0", outcome.seed);
            return Err(Failure::new(Exit::Usage, what));
        }
        if let Some(name) = self.without_client.iter().find(|name| !outcome.clients.contains(name)) {
            let known = outcome.clients.join("`, `");
            let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are `{known}`") };
            return Err(Failure::new(
                Exit::Usage,
                format!("`--without-client`: no client is called `{name}`; {known}"),
            ));
        }
        Ok(())
    }

    /// The arguments that leave as much out.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if !self.without.is_empty() {
            let places: Vec<String> = self.without.iter().map(ToString::to_string).collect();
            arguments.extend(["--without".to_owned(), places.join(",")]);
        }
        if !self.without_client.is_empty() {
            arguments.extend(["--without-client".to_owned(), self.without_client.join(",")]);
        }
        arguments.extend(self.rounds.into_iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]));
        arguments
    }
}

/// One seed, and what of its world is left out.
#[derive(Args, Debug, Clone)]
pub(crate) struct One {
    /// The seed
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    left_out: LeftOut,
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
            Self::Backoff(options) => backoff::run(&options, format),
            Self::Txn(options) => txn::run(&options, format),
            Self::Saga(options) => saga::run(options, env, format).await,
            Self::Run { scenario, how: How { seed: Some(seed), world, .. } } => {
                let one = One { seed, left_out: LeftOut::default(), steps: false, world };
                one::run(env, find(&scenario)?, one, format).await
            }
            Self::Run { scenario, how } => campaign::run(env, find(&scenario)?, &how, format).await,
            Self::Replay { scenario, what } => one::run(env, find(&scenario)?, what, format).await,
            Self::Shrink { scenario, seed, world } => minimise::run(env, find(&scenario)?, seed, &world, format).await,
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
fn how_to_repeat(scenario: &Scenario, seed: u64, left_out: &LeftOut, world: &World) {
    note(&format!("to run it again:   {}", replay(scenario, seed, left_out, world)));
    note(&format!(
        "to make it smaller: quorate sim shrink {} --seed {seed}{}",
        scenario.name,
        listed(&world.arguments())
    ));
}

/// The command that runs a seed again.
fn replay(scenario: &Scenario, seed: u64, left_out: &LeftOut, world: &World) -> String {
    let arguments = listed(&[left_out.arguments(), world.arguments()].concat());
    format!("quorate sim replay {} --seed {seed}{arguments}", scenario.name)
}

fn listed(arguments: &[String]) -> String {
    arguments.iter().map(|argument| format!(" {}", quoted(argument))).collect()
}

/// An argument as a shell takes it: names of clients may have spaces.
fn quoted(argument: &str) -> String {
    if argument.contains(' ') { format!("'{argument}'") } else { argument.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_with_all_that_it_was_given() {
        let left_out = LeftOut { without: vec![0, 3], without_client: vec!["last reader".into()], rounds: Some(5) };
        let world = World { out_of_contract: Some(Promise::LyingSync), ..World::default() };
        assert_eq!(
            replay(&quorate_scenarios::all()[0], 7, &left_out, &world),
            "quorate sim replay appends --seed 7 --without 0,3 --without-client 'last reader' --rounds 5 \
             --out-of-contract lying-sync"
        );
    }
}
